//! Raw text with planted duplicates: what must be kept is known before anything is run.
//!
//! Two states: the first files, and those that are added later and repeat some of the first. Bulky records that are
//! refused by their size part the input into several tasks. Deliberately absent: text that means anything.

use std::collections::BTreeMap;

use crate::chance::Chance;
use crate::lake::Lake;

/// The raw bytes from which a task is full.
const TASK_BYTES: u64 = 32 << 20;

/// Some raw files by name, and how many records of each fate are in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) distinct: u64,
    pub(crate) exact: u64,
    pub(crate) near: u64,
    pub(crate) short: u64,
    pub(crate) bad: u64,
}

/// The files of both states.
pub(crate) fn states() -> [Corpus; 2] {
    let mut chance = Chance::new(1);
    let old: Vec<String> = (0..110).map(|_| document(&mut chance)).collect();
    let new: Vec<String> = (0..50).map(|_| document(&mut chance)).collect();
    let mut first = Corpus { distinct: 110, exact: 25, near: 35, ..Corpus::default() };
    let mut records = old.clone();
    records.extend(old[..25].iter().cloned());
    records.extend(old[20..55].iter().map(|document| varied(document, &mut chance)));
    first.lay("first", records, &mut chance);
    let mut second = Corpus { distinct: 50, exact: 20, near: 30, ..Corpus::default() };
    let mut records = new.clone();
    records.extend(old[90..100].iter().chain(&new[..10]).cloned());
    records.extend(old[60..80].iter().chain(&new[20..30]).map(|document| varied(document, &mut chance)));
    second.lay("second", records, &mut chance);
    [first, second]
}

impl Corpus {
    /// Spreads records over JSON lines and plain files, and adds some that no rule lets pass.
    fn lay(&mut self, folder: &str, mut records: Vec<String>, chance: &mut Chance) {
        for at in (1..records.len()).rev() {
            records.swap(at, chance.below(at + 1));
        }
        let plain = records.split_off(records.len() - 24);
        for (part, records) in records.chunks(records.len().div_ceil(4)).enumerate() {
            let lines: Vec<String> = records.iter().map(|text| serde_json::json!({"text": text}).to_string() + "\n").collect();
            self.files.insert(format!("{folder}-{part}/lines.jsonl"), lines.concat().into_bytes());
        }
        for (at, text) in plain.into_iter().enumerate() {
            self.files.insert(format!("{folder}-{}/{at:02}.txt", at % 4), text.into_bytes());
        }
        self.files.insert(format!("{folder}-1/latin1.txt"), b"caf\xe9 is not UTF-8, whatever else this file may say of it".to_vec());
        self.files.insert(format!("{folder}-2/cut.jsonl"), b"{\"text\": \"a line that ends in the midd\n".to_vec());
        self.files.insert(format!("{folder}-3/short.txt"), b"too short".to_vec());
        (self.bad, self.short) = (2, 1);
    }

    /// Writes the files as raw files of a lake.
    pub(crate) fn write(&self, lake: &Lake) {
        self.files.iter().for_each(|(name, bytes)| lake.write(&format!("raw/{name}"), bytes));
    }

    /// Deletes them again.
    pub(crate) fn delete(&self, lake: &Lake) {
        self.files.keys().for_each(|name| drop(std::fs::remove_file(lake.path(&format!("raw/{name}")))));
    }
}

/// Writes files too large to be a record, each of which fills a task of cleaning: so many more tasks there are.
pub(crate) fn write_boulders(lake: &Lake) -> u64 {
    for part in 0..3 {
        // Sparse: it takes no room, and is refused before it is read.
        lake.write(&format!("raw/first-{part}/zz.txt"), b"");
        let file = std::fs::OpenOptions::new().write(true).open(lake.path(&format!("raw/first-{part}/zz.txt"))).expect("boulder");
        file.set_len(TASK_BYTES).expect("boulder");
    }
    3
}

fn document(chance: &mut Chance) -> String {
    let words = 40 + chance.below(50);
    (0..words).map(|_| format!("w{:03}", chance.below(900))).collect::<Vec<_>>().join(" ")
}

/// A near duplicate: more than 9 of 10 shingles are the same.
fn varied(document: &str, chance: &mut Chance) -> String {
    format!("{document} v{} v{}", chance.below(1 << 20), chance.below(1 << 20))
}
