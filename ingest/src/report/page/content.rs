//! What the kept records are like: sizes, tokens, classes, channels.

use std::collections::BTreeMap;
use std::fmt::Write;

use forebay_schemas::dataset::{DatasetManifest, Modality, Statistics};
use forebay_schemas::record::{TRAIN, VALIDATION};

use super::bars::{Bar, bars, powers};
use super::counts::{Counts, Tokens};
use super::markup::{Align, clip, escape, percent, properties, size, table};
use crate::report::grouped;

/// Classes whose bars are shown at once; all others are in a table that opens.
const CLASSES: usize = 24;
/// Classes in that table.
const MAX_CLASSES: usize = 5_000;

pub(super) fn section(manifest: &DatasetManifest, counts: &Counts) -> String {
    let facts = facts(manifest, counts);
    let parts = [
        sizes(manifest.modality, &manifest.statistics.sizes),
        tokens(&counts.tokens),
        channels(&manifest.statistics),
        classes(&manifest.statistics),
        named("Languages of kept documents", "language", "documents", &manifest.statistics.languages),
        named("What cleaning changed in kept documents", "change", "times", &manifest.statistics.edits),
    ];
    let shown: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).map(|part| format!("<div>{part}</div>")).collect();
    if shown.is_empty() { facts } else { format!("{facts}<div class=\"tiles\">{}</div>", shown.concat()) }
}

fn facts(manifest: &DatasetManifest, counts: &Counts) -> String {
    let statistics = &manifest.statistics;
    let mut rows: Vec<(&str, String)> = Vec::new();
    for (table, name) in [(TRAIN, "training rows"), (VALIDATION, "validation rows")] {
        rows.extend(manifest.tables.get(table).map(|table| (name, grouped(table.rows))));
    }
    rows.extend(statistics.sequence_length.map(|length| ("tokens a row", grouped(u64::from(length)))));
    rows.extend(statistics.tokens.map(|tokens| ("training tokens", grouped(tokens))));
    let tokens = &counts.tokens;
    if tokens.documents > 0 {
        let mean = tokens.total as f64 / tokens.documents as f64;
        rows.push(("tokens a document", format!("{mean:.1} on average, {} at most", grouped(tokens.longest))));
    }
    rows.extend(
        manifest.tokenizer.as_ref().map(|tokenizer| ("vocabulary", format!("{} token ids", grouped(u64::from(tokenizer.vocabulary))))),
    );
    rows.extend(entropy(manifest).map(|text| ("unigram entropy", text)));
    rows.extend(padding(manifest).map(|text| ("padding", text)));
    let documents = counts.train.records + counts.validation.records;
    rows.extend(statistics.split_documents.map(|split| {
        let share = if documents > 0 { format!(", {} of the documents", percent(split, documents)) } else { String::new() };
        ("documents cut at the end of a row", format!("{}{share}", grouped(split)))
    }));
    if rows.is_empty() { String::new() } else { properties("In figures", &rows) }
}

fn entropy(manifest: &DatasetManifest) -> Option<String> {
    let nats = manifest.statistics.unigram_entropy_nats.filter(|nats| nats.is_finite())?;
    let mut text = format!(
        "{nats:.3} nats ({:.2} bits) a token: the loss of a model that knows only how often each token occurs",
        nats / std::f64::consts::LN_2
    );
    if let Some(tokenizer) = manifest.tokenizer.as_ref().filter(|tokenizer| tokenizer.vocabulary > 1) {
        let most = f64::from(tokenizer.vocabulary).ln();
        let _ = write!(text, "; at most {most:.3} with this vocabulary");
    }
    Some(text)
}

fn padding(manifest: &DatasetManifest) -> Option<String> {
    let padding = manifest.statistics.padding_tokens?;
    let rows: u64 = [TRAIN, VALIDATION].iter().filter_map(|name| manifest.tables.get(*name)).map(|table| table.rows).sum();
    let width = manifest.statistics.sequence_length.map_or(0, |length| u64::from(length) + 1);
    let share = match rows.saturating_mul(width) {
        0 => String::new(),
        all => format!(", {} of all places", percent(padding, all)),
    };
    Some(format!("{} tokens{share}", grouped(padding)))
}

fn sizes(modality: Modality, counts: &[u64]) -> String {
    let (unit, name): (_, fn(u64) -> String) = match modality {
        Modality::Text => ("characters", grouped),
        Modality::Images => ("bytes", size),
    };
    let range = |place: usize| match (1u64.checked_shl(place as u32), 1u64.checked_shl(place as u32 + 1)) {
        (Some(1), _) => "1".to_owned(),
        (Some(low), Some(high)) if modality == Modality::Text => format!("{} – {}", name(low), name(high - 1)),
        (Some(low), Some(high)) => format!("{} to {}", name(low), name(high)),
        _ => format!("2^{place} or more"),
    };
    histogram(&format!("Size of kept records, {unit}"), unit, "records", "kept", powers(counts, range))
}

fn tokens(tokens: &Tokens) -> String {
    histogram("Length of kept documents, tokens", "tokens", "documents", "kept", powers(&tokens.by_power, power_of_tokens))
}

fn power_of_tokens(place: usize) -> String {
    match place {
        0 => "0".to_owned(),
        1 => "1".to_owned(),
        place if place < 64 => format!("{} – {}", grouped(1 << (place - 1)), grouped((1 << place) - 1)),
        _ => format!("{} or more", grouped(1 << 63)),
    }
}

fn histogram(caption: &str, names: &str, counts: &str, class: &str, shown: Vec<Bar>) -> String {
    let whole = shown.iter().fold(0u64, |sum, bar| sum.saturating_add(bar.count));
    if whole == 0 { String::new() } else { bars(caption, names, counts, class, whole, &shown) }
}

/// Bars of named counts, the largest first.
fn named(caption: &str, names: &str, counts: &str, of: &BTreeMap<String, u64>) -> String {
    let mut shown: Vec<Bar> = of.iter().map(|(name, count)| Bar { name: name.clone(), count: *count }).collect();
    shown.sort_by(|a, b| b.count.cmp(&a.count).then(a.name.cmp(&b.name)));
    shown.truncate(CLASSES);
    histogram(caption, names, counts, "kept", shown)
}

fn channels(statistics: &Statistics) -> String {
    let (Some(mean), Some(deviation)) = (statistics.channel_mean, statistics.channel_std) else { return String::new() };
    let names = ["red", "green", "blue"];
    let rows: Vec<Vec<String>> = names
        .iter()
        .zip(mean.iter().zip(deviation))
        .map(|(name, (mean, deviation))| vec![(*name).to_owned(), format!("{mean:.4}"), format!("{deviation:.4}")])
        .collect();
    let columns = [("channel", Align::Left), ("mean", Align::Right), ("standard deviation", Align::Right)];
    let [red, green, blue] = mean.map(|channel| if channel.is_finite() { (255.0 * channel.clamp(0.0, 1.0)).round() } else { 0.0 });
    let title = format!("The mean colour of all training pixels: {red} {green} {blue} of 255");
    table("Channels over all training pixels, in 0 to 1", &columns, &rows)
        + &format!(
            "<figure class=\"swatch\"><svg viewBox=\"0 0 48 24\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\
             <rect width=\"48\" height=\"24\" fill=\"rgb({red} {green} {blue})\"/></svg><figcaption class=\"soft\">{title}</figcaption></figure>"
        )
}

fn classes(statistics: &Statistics) -> String {
    let (Some(names), Some(counts)) = (&statistics.classes, &statistics.class_counts) else { return String::new() };
    let mut sorted: Vec<(&String, u64)> = names.iter().zip(counts).map(|(name, count)| (name, *count)).collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let (Some(largest), Some(smallest)) = (sorted.first(), sorted.last()) else { return String::new() };
    let whole = counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
    let median = sorted[sorted.len() / 2].1;
    let skew = match (largest.1, smallest.1) {
        (_, 0) => format!("; {} have no training row", sorted.iter().filter(|class| class.1 == 0).count()),
        (most, least) => format!("; the largest class has {:.1} times the rows of the smallest", most as f64 / least as f64),
    };
    let mut html = format!(
        "<p class=\"lead\">{} classes of {} to {} training rows, half of them of at least {}{skew}.</p>",
        grouped(sorted.len() as u64),
        grouped(smallest.1),
        grouped(largest.1),
        grouped(median)
    );
    let bar = |(name, count): &(&String, u64)| Bar { name: (*name).clone(), count: *count };
    if sorted.len() <= CLASSES {
        let all: Vec<Bar> = sorted.iter().map(bar).collect();
        return html + &bars("Training rows by class", "class", "rows", "kept", whole, &all);
    }
    let half = CLASSES / 2;
    let ends: Vec<Bar> = sorted[..half].iter().chain(&sorted[sorted.len() - half..]).map(bar).collect();
    html += &bars(&format!("Training rows by class: the {half} largest and the {half} smallest"), "class", "rows", "kept", whole, &ends);
    let row = |(name, count): &(&String, u64)| vec![escape(&clip(name, 80)), grouped(*count), percent(*count, whole)];
    let rows: Vec<Vec<String>> = sorted.iter().take(MAX_CLASSES).map(row).collect();
    let which =
        if sorted.len() > MAX_CLASSES { format!("The {} largest classes", grouped(MAX_CLASSES as u64)) } else { "All classes".to_owned() };
    let columns = [("class", Align::Left), ("rows", Align::Right), ("share", Align::Right)];
    let _ = write!(html, "<details><summary>{which}</summary>{}</details>", table(&which, &columns, &rows));
    html
}
