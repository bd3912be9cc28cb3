//! What the coordinator of a run writes in its journal, so that any other can go on from there.

use serde::{Deserialize, Serialize};

use crate::checkpoint::DatasetVersionRef;
use crate::id::Digest;
use crate::run::Run;

/// Format version of the journal; a reader refuses a larger one. In the first, no entry named the order.
pub const FORMAT: u32 = 2;

/// One entry of a run's journal. Entry 0 is [`JournalEntry::Run`]; who misses an entry is fenced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum JournalEntry {
    /// The run began.
    Run {
        /// [`FORMAT`].
        format: u32,
        /// Settings.
        run: Box<Run>,
        /// Digest of those that decide the weights.
        config_digest: Digest,
        /// The dataset version, for good.
        dataset: DatasetVersionRef,
    },
    /// The first replica said in which order it would be fed: that of the run, for good.
    Order {
        /// [`crate::wire::Join::order`].
        order: Digest,
    },
    /// A coordinator took over; generations below `generation` are history.
    Coordinator {
        /// The first generation that it may use.
        generation: u64,
        /// When, milliseconds since 1970 UTC.
        unix_ms: u64,
        /// Where replicas reach it: those that lost the coordinator before it look here. Empty in journals that
        /// were written before it was kept.
        #[serde(default)]
        url: String,
    },
    /// A generation was formed.
    Generation {
        /// Which.
        generation: u64,
        /// Names of its members by rank.
        members: Vec<String>,
        /// The step of the state that it began with: what was applied after it in earlier generations is abandoned.
        step: u64,
    },
    /// A checkpoint is about to be published.
    Checkpoint {
        /// Generation of the coordinator's group at that time.
        generation: u64,
        /// Step of the checkpoint.
        step: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(entry: &JournalEntry, golden: &str) {
        assert_eq!(serde_json::to_string(entry).expect("json"), golden);
        assert_eq!(&serde_json::from_str::<JournalEntry>(golden).expect("entry"), entry);
        assert!(serde_json::from_str::<JournalEntry>(&golden.replacen('{', "{\"surprise\":1,", 1)).is_err());
    }

    #[test]
    fn entries_are_written_byte_for_byte() {
        check(
            &JournalEntry::Coordinator { generation: 4, unix_ms: 5, url: "u".to_owned() },
            r#"{"kind":"coordinator","generation":4,"unix_ms":5,"url":"u"}"#,
        );
        check(
            &JournalEntry::Generation { generation: 4, members: vec!["a".to_owned()], step: 9 },
            r#"{"kind":"generation","generation":4,"members":["a"],"step":9}"#,
        );
        check(&JournalEntry::Checkpoint { generation: 4, step: 9 }, r#"{"kind":"checkpoint","generation":4,"step":9}"#);
        let order = Digest::from_bytes([0x11; 32]);
        check(&JournalEntry::Order { order }, &format!(r#"{{"kind":"order","order":"{}"}}"#, "11".repeat(32)));
    }
}
