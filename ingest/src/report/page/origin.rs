//! Where a version comes from: inputs, configuration, earlier versions, tables.

use forebay_schemas::dataset::{DatasetManifest, ObjectRef, TableFormat, TableRef};

use super::listing::toml;
use super::markup::{Align, code, date, escape, percent, properties, size, table};
use crate::report::grouped;

/// Earlier versions shown.
const MAX_ANCESTORS: usize = 100;

pub(super) fn inputs(manifest: &DatasetManifest) -> String {
    let inputs = &manifest.inputs;
    let mean = inputs.bytes.checked_div(inputs.objects).map_or_else(String::new, |mean| format!(", {} each on average", size(mean)));
    let rows = [
        ("source", code(&inputs.url)),
        ("objects", format!("{}{mean}", grouped(inputs.objects))),
        ("bytes", format!("{} ({})", grouped(inputs.bytes), size(inputs.bytes))),
        ("digest of keys, sizes and etags", code(&inputs.digest.to_string())),
        ("list of objects", object(&inputs.list)),
    ];
    properties("The raw objects that were read", &rows)
}

pub(super) fn configuration(manifest: &DatasetManifest) -> String {
    format!(
        "<p>Digest {}: of those settings and lists that decide the rows.</p><pre tabindex=\"0\" role=\"region\" aria-label=\"Settings\"><code>{}</code></pre>",
        code(&manifest.config_digest.to_string()),
        // Lines must stay lines.
        toml(&manifest.config).lines().map(escape).collect::<Vec<_>>().join("\n")
    )
}

pub(super) fn lineage(manifest: &DatasetManifest, ancestors: &[DatasetManifest]) -> String {
    let mut rows: Vec<(&str, String)> = vec![("rows digest", code(&manifest.rows_digest.to_string()))];
    rows.push(match &manifest.layout {
        Some(layout) => {
            ("layout", format!("adds to its parent: its rows are laid out after those of the parent; digest {}", code(&layout.to_string())))
        }
        None => ("layout", "made at a stroke from all inputs".to_owned()),
    });
    if let Some(tokenizer) = &manifest.tokenizer {
        rows.push(("tokenizer", format!("{}, end of document is {}", object(&tokenizer.object), tokenizer.end_of_document)));
    }
    rows.extend(manifest.cleaned.as_ref().map(|cleaned| ("stage objects for later versions", object(cleaned))));
    versions(manifest, ancestors) + &tables(manifest) + &properties("Digests and objects", &rows)
}

fn versions(manifest: &DatasetManifest, ancestors: &[DatasetManifest]) -> String {
    let row = |version: &DatasetManifest| {
        let parent = version.parent.map_or("–".to_owned(), |parent| parent.to_string());
        vec![
            version.version.to_string(),
            parent,
            date(version.created_unix_ms),
            grouped(version.inputs.objects),
            grouped(version.tally.read),
            grouped(version.tally.kept),
            percent(version.tally.kept, version.tally.read),
            format!("<span title=\"{0}\">{1}</span>", version.identity(), code(&version.identity().short())),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(manifest).chain(ancestors.iter().take(MAX_ANCESTORS)).map(row).collect();
    let columns = [
        ("version", Align::Right),
        ("parent", Align::Right),
        ("committed", Align::Left),
        ("objects", Align::Right),
        ("read", Align::Right),
        ("kept", Align::Right),
        ("kept of read", Align::Right),
        ("identity", Align::Left),
    ];
    table("This version and those before it, the newest first", &columns, &rows)
}

fn tables(manifest: &DatasetManifest) -> String {
    let row = |(name, table): (&String, &TableRef)| {
        let format = match table.format {
            TableFormat::Lance => "Lance",
            TableFormat::Parquet => "Parquet",
        };
        let parts = table.plain();
        let bytes: u64 = parts.iter().flat_map(|part| &part.files).map(|file| file.object.bytes).sum();
        // Lance keeps the sizes of its files to itself.
        let bytes = if bytes > 0 { size(bytes) } else { "–".to_owned() };
        vec![escape(name), format.to_owned(), grouped(table.rows), grouped(parts.len() as u64), bytes, code(&table.path)]
    };
    let rows: Vec<Vec<String>> = manifest.tables.iter().map(row).collect();
    let columns = [
        ("table", Align::Left),
        ("format", Align::Left),
        ("rows", Align::Right),
        ("parts", Align::Right),
        ("bytes", Align::Right),
        ("path below the dataset", Align::Left),
    ];
    table("Tables", &columns, &rows)
}

fn object(object: &ObjectRef) -> String {
    format!("{}, {}, blake3 {}", code(&object.path), size(object.bytes), code(&object.digest.short()))
}
