//! What changed between two versions: records by content, inputs by key, settings by name.
//!
//! Records are counted in the ledger, whose ids are content digests, so the answer does not depend on how rows were
//! packed. Memory: 32 bytes a kept record of both versions.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use forebay_schemas::dataset::{DatasetManifest, ObjectRef};
use forebay_schemas::record::RECORDS;
use futures::TryStreamExt;
use serde_json::Value;

use super::{Dataset, VersionDiff};
use crate::error::{Error, Kind, Result};

pub(super) async fn diff(dataset: &Dataset, from: &DatasetManifest, to: &DatasetManifest) -> Result<VersionDiff> {
    let (before, after) = (kept(dataset, from).await?, kept(dataset, to).await?);
    let [removed, added, unchanged] = compare(&before, &after);
    let inputs = compare_inputs(&inputs(dataset, &from.inputs.list).await?, &inputs(dataset, &to.inputs.list).await?);
    Ok(VersionDiff {
        from: from.version,
        to: to.version,
        added,
        removed,
        unchanged,
        inputs,
        tallies: [from.tally.clone(), to.tally.clone()],
        config: compare_config(&from.config, &to.config),
    })
}

/// Sorted ids of the kept records.
async fn kept(dataset: &Dataset, manifest: &DatasetManifest) -> Result<Vec<[u8; 32]>> {
    let malformed = |what: &str| Error::new(Kind::Corrupt, format!("table `{RECORDS}` of version {}: {what}", manifest.version));
    let table = manifest.tables.get(RECORDS).ok_or_else(|| malformed("is missing"))?;
    let table = dataset.tables(table.format).open(table).await?;
    let mut rows = table.scan(&["id", "verdict"]).await?;
    let mut ids = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        let id = batch.column(0).as_fixed_size_binary_opt().ok_or_else(|| malformed("column `id` is not of digests"))?;
        let verdict = batch.column(1).as_string_opt::<i32>().ok_or_else(|| malformed("column `verdict` is not text"))?;
        for row in (0..batch.num_rows()).filter(|row| verdict.value(*row) == "kept") {
            let digest = id.is_valid(row).then(|| id.value(row).try_into().ok()).flatten();
            ids.push(digest.ok_or_else(|| malformed("a kept record has no id"))?);
        }
    }
    ids.sort_unstable();
    Ok(ids)
}

/// How often an element is only left, only right, in both; of sorted multisets.
fn compare<T: Ord>(left: &[T], right: &[T]) -> [u64; 3] {
    let (mut l, mut r, mut counts) = (0, 0, [0; 3]);
    while l < left.len() || r < right.len() {
        let order = match (left.get(l), right.get(r)) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        l += usize::from(order != Ordering::Greater);
        r += usize::from(order != Ordering::Less);
        counts[match order {
            Ordering::Less => 0,
            Ordering::Greater => 1,
            Ordering::Equal => 2,
        }] += 1;
    }
    counts
}

/// The list of input objects: key -> the rest of its line.
async fn inputs(dataset: &Dataset, list: &ObjectRef) -> Result<BTreeMap<String, Value>> {
    let bytes = dataset.get_object(list).await?;
    let malformed = |line: usize, what: &str| dataset.location().corrupt(&list.path, format!("line {}: {what}", line + 1));
    let mut objects = BTreeMap::new();
    for (line, text) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
        let mut object: Value = serde_json::from_slice(text).map_err(|error| malformed(line, &error.to_string()))?;
        let Some(Value::String(key)) = object.as_object_mut().and_then(|fields| fields.remove("key")) else {
            return Err(malformed(line, "expected an object with `key`"));
        };
        objects.insert(key, object);
    }
    Ok(objects)
}

fn compare_inputs(from: &BTreeMap<String, Value>, to: &BTreeMap<String, Value>) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = ["added", "removed", "changed", "unchanged"].map(|change| (change.to_owned(), 0)).into();
    let mut count = |change: &str| *counts.entry(change.to_owned()).or_default() += 1;
    for (key, object) in to {
        match from.get(key) {
            None => count("added"),
            Some(before) if before == object => count("unchanged"),
            Some(_) => count("changed"),
        }
    }
    from.keys().filter(|key| !to.contains_key(*key)).for_each(|_| count("removed"));
    counts
}

fn compare_config(from: &Value, to: &Value) -> BTreeMap<String, (Value, Value)> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("", from, &mut before);
    flatten("", to, &mut after);
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let value = |settings: &BTreeMap<String, Value>, key: &String| settings.get(key).cloned().unwrap_or(Value::Null);
    keys.into_iter().map(|key| (key.clone(), (value(&before, key), value(&after, key)))).filter(|(_, (from, to))| from != to).collect()
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&key, value, into);
            }
        }
        other => {
            into.insert(prefix.to_owned(), other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn counts_add_up_to_both_sides(mut left in prop::collection::vec(0u8..20, 0..40), mut right in prop::collection::vec(0u8..20, 0..40)) {
            left.sort_unstable();
            right.sort_unstable();
            let [removed, added, unchanged] = compare(&left, &right);
            prop_assert_eq!(removed + unchanged, left.len() as u64);
            prop_assert_eq!(added + unchanged, right.len() as u64);
            let both: u64 = (0u8..20).map(|x| left.iter().filter(|y| **y == x).count().min(right.iter().filter(|y| **y == x).count()) as u64).sum();
            prop_assert_eq!(unchanged, both);
        }
    }

    #[test]
    fn settings_that_differ_are_named_with_dots() {
        let changed = compare_config(&json!({"a": {"b": 1, "c": 2}, "d": [1]}), &json!({"a": {"b": 1, "c": 3}, "e": true}));
        let expected = [("a.c", (json!(2), json!(3))), ("d", (json!([1]), Value::Null)), ("e", (Value::Null, json!(true)))];
        assert_eq!(changed, expected.map(|(key, values)| (key.to_owned(), values)).into());
    }
}
