//! `forebay dataset`: log, show, report, diff, tag, untag, gc.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use forebay_ingest::report;
use forebay_schemas::dataset::DatasetManifest;
use forebay_schemas::units::Millis;
use forebay_store::{Dataset as Store, VersionSpec};
use serde_json::json;

use forebay::config::runtime;
use forebay::output;

/// Looks at the versions of a dataset, compares and names them
#[derive(Args)]
#[command(
    after_help = "Example:\n  forebay dataset log lake/rust-code\n  forebay dataset tag lake/rust-code clean-1 1\n  forebay dataset diff lake/rust-code 1 2"
)]
pub(crate) struct Dataset {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Lists all versions, newest first
    #[command(after_help = "Example:\n  forebay dataset log s3://bucket/lake/code --json")]
    Log {
        /// URL or path of the dataset
        dataset: String,
        /// Prints {"versions": [{version, created_unix_ms, rows, read, kept, rows_digest, identity, tags}]}
        #[arg(long)]
        json: bool,
    },
    /// Shows one version: conservation, tables, statistics, lineage
    #[command(after_help = "Example:\n  forebay dataset show lake/rust-code clean-1")]
    Show {
        /// URL or path of the dataset
        dataset: String,
        /// latest, a number or a tag
        #[arg(default_value = "latest")]
        version: String,
        /// Prints the manifest
        #[arg(long)]
        json: bool,
    },
    /// Writes a page to look at: what each rule left out, duplicates, histograms, lineage
    ///
    /// One HTML file that fetches nothing.
    #[command(
        after_help = "Example:\n  forebay dataset report lake/rust-code\n  forebay dataset report s3://bucket/lake/code 7 --out code-7.html"
    )]
    Report {
        /// URL or path of the dataset
        dataset: String,
        /// latest, a number or a tag
        #[arg(default_value = "latest")]
        version: String,
        /// Where to; the default is `{dataset}-{version}.html` in this folder
        #[arg(long)]
        out: Option<PathBuf>,
        /// Prints {version, path}
        #[arg(long)]
        json: bool,
    },
    /// Compares two versions: records, inputs, settings
    #[command(after_help = "Example:\n  forebay dataset diff lake/rust-code 1 latest")]
    Diff {
        /// URL or path of the dataset
        dataset: String,
        /// latest, a number or a tag
        from: String,
        /// latest, a number or a tag
        to: String,
        /// Prints {from, to, added, removed, unchanged, inputs, tallies, config}
        #[arg(long)]
        json: bool,
    },
    /// Names a version, or lists the names
    #[command(after_help = "Example:\n  forebay dataset tag lake/rust-code clean-1 1\n  forebay dataset tag lake/rust-code")]
    Tag {
        /// URL or path of the dataset
        dataset: String,
        /// The new name; none lists all
        tag: Option<String>,
        /// latest, a number or another tag
        #[arg(default_value = "latest")]
        version: String,
        /// Prints {"tags": {name: version}}
        #[arg(long)]
        json: bool,
    },
    /// Takes a name away; the version stays
    Untag {
        /// URL or path of the dataset
        dataset: String,
        /// The name
        tag: String,
    },
    /// Finds what crashed writers left behind
    #[command(after_help = "Example:\n  forebay dataset gc lake/rust-code --older-than 60m --delete")]
    Gc {
        /// URL or path of the dataset
        dataset: String,
        /// Younger objects may belong to a writer at work and are left alone
        #[arg(long, default_value = "1440m")]
        older_than: Millis,
        /// Deletes them
        #[arg(long)]
        delete: bool,
        /// Prints {objects, bytes, deleted}
        #[arg(long)]
        json: bool,
    },
}

impl Dataset {
    pub(crate) fn run(self) -> Result<()> {
        runtime()?.block_on(async {
            match self.action {
                Action::Log { dataset, json } => log(&dataset, json).await,
                Action::Show { dataset, version, json } => show(&dataset, &version, json).await,
                Action::Report { dataset, version, out, json } => write_report(&dataset, &version, out, json).await,
                Action::Diff { dataset, from, to, json } => diff(&dataset, &from, &to, json).await,
                Action::Tag { dataset, tag, version, json } => tag_or_list(&dataset, tag, &version, json).await,
                Action::Untag { dataset, tag } => Ok(Store::open(&dataset).await?.untag(&tag).await?),
                Action::Gc { dataset, older_than, delete, json } => gc(&dataset, older_than.duration(), delete, json).await,
            }
        })
    }
}

async fn resolve(store: &Store, version: &str) -> Result<DatasetManifest> {
    Ok(store.resolve(&version.parse::<VersionSpec>()?).await?)
}

async fn log(dataset: &str, json: bool) -> Result<()> {
    let store = Store::open(dataset).await?;
    let mut versions = store.log().await?;
    versions.reverse();
    let tags = store.tags().await?;
    let tags_of = |version| tags.iter().filter(|(_, tagged)| **tagged == version).map(|(tag, _)| tag.clone()).collect::<Vec<_>>();
    let rows = |manifest: &DatasetManifest, table: &str| manifest.tables.get(table).map_or(0, |table| table.rows);
    if json {
        let versions: Vec<_> = versions
            .iter()
            .map(|m| {
                let tables: serde_json::Map<_, _> = m.tables.iter().map(|(name, table)| (name.clone(), table.rows.into())).collect();
                json!({"version": m.version, "created_unix_ms": m.created_unix_ms, "rows": tables, "read": m.tally.read,
                    "kept": m.tally.kept, "rows_digest": m.rows_digest, "identity": m.identity(), "tags": tags_of(m.version)})
            })
            .collect();
        return output::json(&json!({"versions": versions}));
    }
    let lines: Vec<Vec<String>> = versions
        .iter()
        .map(|m| {
            vec![
                m.version.to_string(),
                output::utc(m.created_unix_ms),
                output::grouped(m.tally.read),
                output::grouped(m.tally.kept),
                output::grouped(rows(m, "train")),
                output::grouped(rows(m, "validation")),
                m.identity().short(),
                tags_of(m.version).join(" "),
            ]
        })
        .collect();
    output::table(&["version", "committed (UTC)", "read", "kept", "train", "validation", "identity", "tags"], &lines)
}

async fn show(dataset: &str, version: &str, json: bool) -> Result<()> {
    let store = Store::open(dataset).await?;
    let manifest = resolve(&store, version).await?;
    if json {
        return output::json(&manifest);
    }
    let m = &manifest;
    output::line(format!("version {} of {}", m.version, store.location().url()))?;
    output::line(format!("  committed   {} UTC by {}", output::utc(m.created_unix_ms), m.program))?;
    output::line(format!("  identity    {}", m.identity()))?;
    output::line(format!("  rows digest {}", m.rows_digest))?;
    output::line(format!("  settings    {}", m.config_digest.short()))?;
    let inputs = &m.inputs;
    output::line(format!(
        "  inputs      {} objects, {} bytes of {}, digest {}",
        output::grouped(inputs.objects),
        output::grouped(inputs.bytes),
        inputs.url,
        inputs.digest.short()
    ))?;
    for (name, table) in &m.tables {
        output::line(format!("  table       {name:<11} {:>10} rows, {:?} at {}", output::grouped(table.rows), table.format, table.path))?;
    }
    if let Some(entropy) = m.statistics.unigram_entropy_nats {
        output::line(format!("  tokens      {}, unigram entropy {entropy:.3} nats", output::grouped(m.statistics.tokens.unwrap_or(0))))?;
    }
    if let (Some(classes), Some(counts)) = (&m.statistics.classes, &m.statistics.class_counts) {
        let classes: Vec<String> = classes.iter().zip(counts).map(|(class, count)| format!("{class} {count}")).collect();
        output::line(format!("  classes     {}", classes.join(", ")))?;
    }
    output::line("")?;
    output::line(report::conservation(&m.tally).trim_end())
}

async fn write_report(dataset: &str, version: &str, out: Option<PathBuf>, json: bool) -> Result<()> {
    let store = Store::open(dataset).await?;
    let manifest = resolve(&store, version).await?;
    let page = report::page_of(&store, &manifest).await?;
    let name = dataset.trim_end_matches('/').rsplit('/').next().unwrap_or("dataset");
    let path = out.unwrap_or_else(|| PathBuf::from(format!("{name}-{}.html", manifest.version)));
    std::fs::write(&path, page).with_context(|| format!("writing `{}` failed", path.display()))?;
    if json {
        return output::json(&json!({"version": manifest.version, "path": path}));
    }
    output::line(format!("report of version {}: {}", manifest.version, path.display()))
}

async fn diff(dataset: &str, from: &str, to: &str, json: bool) -> Result<()> {
    let store = Store::open(dataset).await?;
    let (from, to) = (resolve(&store, from).await?.version, resolve(&store, to).await?.version);
    let diff = store.diff(from, to).await?;
    if json {
        return output::json(&diff);
    }
    output::line(format!("version {from} -> {to}"))?;
    output::line(format!(
        "  records  +{} -{} ={}",
        output::grouped(diff.added),
        output::grouped(diff.removed),
        output::grouped(diff.unchanged)
    ))?;
    let inputs: Vec<String> = diff.inputs.iter().map(|(change, count)| format!("{change} {}", output::grouped(*count))).collect();
    output::line(format!("  inputs   {}", inputs.join(", ")))?;
    for (key, (before, after)) in &diff.config {
        output::line(format!("  setting  {key}: {before} -> {after}"))?;
    }
    Ok(())
}

async fn tag_or_list(dataset: &str, tag: Option<String>, version: &str, json: bool) -> Result<()> {
    let store = Store::open(dataset).await?;
    if let Some(tag) = &tag {
        let version = resolve(&store, version).await?.version;
        store.tag(tag, version).await?;
        if !json {
            return output::line(format!("{tag} -> version {version}"));
        }
    }
    let tags = store.tags().await?;
    if json {
        return output::json(&json!({"tags": tags}));
    }
    let lines: Vec<Vec<String>> = tags.into_iter().map(|(tag, version)| vec![tag, version.to_string()]).collect();
    output::table(&["tag", "version"], &lines)
}

async fn gc(dataset: &str, older_than: Duration, delete: bool, json: bool) -> Result<()> {
    let report = Store::open(dataset).await?.gc(older_than, delete).await?;
    if json {
        return output::json(&report);
    }
    let what = if report.deleted { "deleted" } else { "found (--delete deletes them)" };
    output::line(format!(
        "{what}: {} objects, {} bytes that no version names",
        output::grouped(report.objects),
        output::grouped(report.bytes)
    ))
}
