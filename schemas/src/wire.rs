//! Messages between a replica and the coordinator, as JSON over HTTP.
//!
//! Every request carries `Authorization: Bearer TOKEN`. A member is one stay of a replica in the group: a replica that
//! was put out and comes back is another member, so a message of an earlier stay is recognised and refused.
//! Deliberately absent: weights and gradients, which go from replica to replica, and bytes of checkpoints, which go to
//! the object store.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{CheckpointManifest, DatasetVersionRef};
use crate::id::Digest;
use crate::run::Run;
use crate::waits::Waits;

/// Version of the protocol; both sides must speak the same.
pub const PROTOCOL: u32 = 4;

/// `GET /v1/run`: all that a replica needs to know to begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// [`PROTOCOL`] of the coordinator.
    pub protocol: u32,
    /// The run's settings.
    pub run: Run,
    /// Digest of those that decide the weights.
    pub config_digest: Digest,
    /// The dataset version, resolved when the run began.
    pub dataset: DatasetVersionRef,
}

/// Who a replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Name in reports.
    pub name: String,
    /// Address under which the other replicas reach it.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// What it computes on.
    pub device: String,
    /// Where it answers when another replica knocks, `address:port`; a new one whenever it is started.
    pub door: String,
}

/// `POST /v1/join`: a replica asks to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// [`PROTOCOL`] of the replica.
    pub protocol: u32,
    /// Who it is.
    pub identity: Identity,
    /// Digest of the settings that it would train with.
    pub config_digest: Digest,
    /// Names the order in which it would be fed: all replicas of a run, for good, have the same.
    pub order: Digest,
}

/// Answer to [`Join`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joined {
    /// The number of this stay.
    pub member: u64,
    /// Silent for so long, it is out.
    pub lease_ms: u64,
}

/// `POST /v1/renew` and `POST /v1/leave`: a member is alive, or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// [`Joined::member`].
    pub member: u64,
}

/// One line of `GET /v1/presence?member=N`, which stays open as long as the member lives: its end is the member's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Presence {
    /// The coordinator is alive.
    Beat,
    /// A generation is over: abort its collectives, drop the step, ask for the next assignment.
    Over {
        /// Which.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// The member is out.
    Out {
        /// Why.
        reason: String,
    },
}

/// Names a state of the run, which is weights, buffers and optimizer together: all that have it have the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Steps that were applied.
    pub step: u64,
    /// The generation that committed the last of them; 0 for the initial weights.
    pub generation: u64,
}

/// `POST /v1/assignment`: a member is ready for the next generation. Held open; `204` means ask again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// [`Joined::member`].
    pub member: u64,
    /// Counts what this member asks, from 1. Asked again with the same number it gets the same answer; with a larger one it
    /// has done with its last assignment; one that arrives after a larger one is not heard.
    pub turn: u64,
    /// The state that it has, if any.
    pub have: Option<Mark>,
    /// Micro-batches of the step after that state whose gradients it still has, ascending.
    pub held: Vec<u32>,
    /// Doors of other replicas at which it knocked just now, and that answered.
    pub reached: Vec<String>,
    /// Those at which it knocked in vain.
    pub unreached: Vec<String>,
}

/// Answer to [`Ready`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Next {
    /// A place in a generation.
    Train {
        /// Which.
        assignment: Assignment,
    },
    /// Others do not reach this member: it shall knock at these doors and ask again, under the same number.
    Knock {
        /// Which.
        doors: Vec<String>,
    },
    /// The run is done and its last checkpoint published.
    Done,
}

/// A member's place in a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// The fencing number: grows, never used twice.
    pub generation: u64,
    /// This member's number in the generation.
    pub rank: u32,
    /// All members, by rank.
    pub members: Vec<Identity>,
    /// The state that all begin with. Its `step` is the next to compute; the run's number of steps if only its last
    /// checkpoint is missing.
    pub state: Mark,
    /// Where this member's weights come from.
    pub restore: Restore,
    /// The lowest rank that has the state; it sends it to those whose `restore` is [`Restore::Peer`]. None if nobody has.
    pub source: Option<u32>,
    /// Whether any member takes the state from `source`, so that all take part in sending it.
    pub transfer: bool,
    /// The micro-batches that this rank computes in a step, ascending, until a [`Verdict`] says otherwise.
    pub micro_batches: Vec<u32>,
    /// What it does instead in the first step, if any member still has gradients of it.
    pub salvage: Option<Salvage>,
    /// This member is to write the checkpoint of `step` once it has the state.
    pub checkpoint: bool,
}

/// The first step of a generation, where part of it was computed in one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Salvage {
    /// Micro-batches whose gradients this member has and that count: all of [`Ready::held`], or none.
    pub keep: Vec<u32>,
    /// Missing micro-batches that it computes.
    pub compute: Vec<u32>,
}

/// Where a member's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Restore {
    /// Initial weights, a function of the seed.
    Fresh,
    /// The published checkpoint of this step.
    Checkpoint {
        /// Its step.
        step: u64,
    },
    /// From the member of this rank.
    Peer {
        /// Its rank.
        rank: u32,
    },
    /// It has them already.
    Current,
}

/// `POST /v1/finish`: a member has the summed gradient of a step and waits whether to apply it. Held open; `204` means
/// send it again, which is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// [`Joined::member`].
    pub member: u64,
    /// Of its assignment.
    pub generation: u64,
    /// Which step.
    pub step: u64,
    /// One entry for each micro-batch whose gradient it brought into the sum, ascending.
    pub micro_batches: Vec<MicroBatchReport>,
    /// Digest of its state and of the summed gradient; members that agree have the same.
    pub state: Digest,
    /// Where its time went.
    pub timings: Timings,
}

/// What a micro-batch was and gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MicroBatchReport {
    /// Its index in the step, from 0.
    pub index: u32,
    /// Mean loss of its samples; none if it is not a finite number.
    pub loss: Option<f64>,
    /// Digest of its samples.
    pub samples: Digest,
}

/// Seconds of a step by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// Waiting for the loader.
    pub data: f64,
    /// The same by what was waited for.
    #[serde(default)]
    pub waits: Waits,
    /// Forward and backward passes.
    pub compute: f64,
    /// Waiting for the all-reduce after the last gradient was ready.
    pub reduce: f64,
    /// Digest of the state and waiting for the commit, of the step before this one.
    pub commit: f64,
    /// Clipping and the optimizer, in the step before this one.
    pub apply: f64,
}

/// Answer to [`Finish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// Every member of the generation has reported: apply the step.
    Committed {
        /// After it, ask for the next assignment: somebody joins, or there is nothing left to compute.
        regroup: bool,
        /// This member is to write the checkpoint of the new state.
        checkpoint: bool,
        /// From the next step on it computes these micro-batches, ascending; none if nothing changes.
        micro_batches: Option<Vec<u32>>,
    },
    /// The generation is over and nobody applies the step: keep the gradients, ask for the next assignment.
    Retry,
    /// This member's state is not that of the others: drop it and ask for the next assignment.
    Diverged,
}

/// `POST /v1/fail`: a collective of a generation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fail {
    /// [`Joined::member`].
    pub member: u64,
    /// Of its assignment.
    pub generation: u64,
    /// What failed.
    pub reason: String,
}

/// `POST /v1/checkpoint`: a member has written the objects of a checkpoint and asks to publish it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// [`Joined::member`].
    pub member: u64,
    /// The manifest.
    pub manifest: CheckpointManifest,
}

/// Answer to [`Publish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// False if a checkpoint of this or a later step is there already.
    pub published: bool,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What the replica should do: `invalid`, `unauthorized`, `fenced`, `over`, `unavailable`.
    pub kind: String,
    /// What is wrong.
    pub message: String,
}

/// `GET /v1/status`: for people and tests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Name of the run.
    pub run: String,
    /// Current or last generation.
    pub generation: u64,
    /// Committed steps.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Step of the newest published checkpoint.
    pub checkpoint: Option<u64>,
    /// Mean loss of the last committed step.
    pub loss: Option<f64>,
    /// Everybody who is in.
    pub members: Vec<MemberStatus>,
}

/// One member in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberStatus {
    /// [`Joined::member`].
    pub member: u64,
    /// Who it is.
    pub identity: Identity,
    /// Its number in the current generation; none if it is not in it.
    pub rank: Option<u32>,
    /// Time since its last sign of life.
    pub silent_ms: u64,
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;

    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T, golden: &str) {
        assert_eq!(serde_json::to_string(message).expect("json"), golden);
        assert_eq!(&serde_json::from_str::<T>(golden).expect("message"), message);
        let unknown = golden.replacen('{', "{\"surprise\":1,", 1);
        assert!(
            golden == "{\"kind\":\"beat\"}"
                || golden.contains("\"retry\"")
                || golden.contains("\"diverged\"")
                || serde_json::from_str::<T>(&unknown).is_err(),
            "{unknown}"
        );
    }

    fn identity() -> Identity {
        Identity { name: "a".to_owned(), host: "h".to_owned(), pid: 7, device: "cpu".to_owned(), door: "h:1".to_owned() }
    }

    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn requests_are_written_byte_for_byte() {
        let zero = Digest::from_bytes([0; 32]);
        check(
            &Join { protocol: 4, identity: identity(), config_digest: zero, order: zero },
            &format!(
                r#"{{"protocol":4,"identity":{{"name":"a","host":"h","pid":7,"device":"cpu","door":"h:1"}},"config_digest":"{ZERO}","order":"{ZERO}"}}"#
            ),
        );
        check(&Member { member: 3 }, r#"{"member":3}"#);
        check(
            &Ready { member: 3, turn: 1, have: None, held: vec![], reached: vec![], unreached: vec![] },
            r#"{"member":3,"turn":1,"have":null,"held":[],"reached":[],"unreached":[]}"#,
        );
        check(
            &Ready {
                member: 3,
                turn: 2,
                have: Some(Mark { step: 9, generation: 1 }),
                held: vec![0, 2],
                reached: vec!["h:2".to_owned()],
                unreached: vec!["h:1".to_owned()],
            },
            r#"{"member":3,"turn":2,"have":{"step":9,"generation":1},"held":[0,2],"reached":["h:2"],"unreached":["h:1"]}"#,
        );
        check(&Fail { member: 3, generation: 2, reason: "x".to_owned() }, r#"{"member":3,"generation":2,"reason":"x"}"#);
        let micro_batches = vec![MicroBatchReport { index: 1, loss: Some(0.5), samples: zero }];
        check(
            &Finish { member: 3, generation: 2, step: 9, micro_batches, state: zero, timings: Timings::default() },
            &format!(
                r#"{{"member":3,"generation":2,"step":9,"micro_batches":[{{"index":1,"loss":0.5,"samples":"{ZERO}"}}],"state":"{ZERO}","timings":{{"data":0.0,"waits":{{"request":0.0,"bandwidth":0.0,"decompress":0.0,"queue":0.0,"decode":0.0,"augment":0.0,"collate":0.0,"wake":0.0,"copy":0.0}},"compute":0.0,"reduce":0.0,"commit":0.0,"apply":0.0}}}}"#
            ),
        );
    }

    #[test]
    fn answers_are_written_byte_for_byte() {
        check(&Joined { member: 3, lease_ms: 2000 }, r#"{"member":3,"lease_ms":2000}"#);
        check(&Presence::Beat, r#"{"kind":"beat"}"#);
        check(&Presence::Over { generation: 2, reason: "x".to_owned() }, r#"{"kind":"over","generation":2,"reason":"x"}"#);
        check(&Presence::Out { reason: "x".to_owned() }, r#"{"kind":"out","reason":"x"}"#);
        check(
            &Verdict::Committed { regroup: true, checkpoint: false, micro_batches: Some(vec![1]) },
            r#"{"kind":"committed","regroup":true,"checkpoint":false,"micro_batches":[1]}"#,
        );
        check(&Verdict::Retry, r#"{"kind":"retry"}"#);
        check(&Verdict::Diverged, r#"{"kind":"diverged"}"#);
        check(&Published { published: true }, r#"{"published":true}"#);
        check(&Refusal { kind: "fenced".to_owned(), message: "x".to_owned() }, r#"{"kind":"fenced","message":"x"}"#);
        check(&Next::Knock { doors: vec!["h:1".to_owned()] }, r#"{"kind":"knock","doors":["h:1"]}"#);
        assert_eq!(serde_json::to_string(&Next::Done).expect("json"), r#"{"kind":"done"}"#);
        let assignment = Assignment {
            generation: 2,
            rank: 1,
            members: vec![identity()],
            state: Mark { step: 9, generation: 1 },
            restore: Restore::Peer { rank: 0 },
            source: Some(0),
            transfer: true,
            micro_batches: vec![2, 3],
            salvage: Some(Salvage { keep: vec![2], compute: vec![] }),
            checkpoint: false,
        };
        check(
            &Next::Train { assignment },
            r#"{"kind":"train","assignment":{"generation":2,"rank":1,"members":[{"name":"a","host":"h","pid":7,"device":"cpu","door":"h:1"}],"state":{"step":9,"generation":1},"restore":{"kind":"peer","rank":0},"source":0,"transfer":true,"micro_batches":[2,3],"salvage":{"keep":[2],"compute":[]},"checkpoint":false}}"#,
        );
        for (restore, golden) in [
            (Restore::Fresh, r#"{"kind":"fresh"}"#),
            (Restore::Current, r#"{"kind":"current"}"#),
            (Restore::Checkpoint { step: 5 }, r#"{"kind":"checkpoint","step":5}"#),
        ] {
            assert_eq!(serde_json::to_string(&restore).expect("json"), golden);
        }
        let member = MemberStatus { member: 3, identity: identity(), rank: None, silent_ms: 1 };
        check(
            &Status { run: "r".to_owned(), generation: 2, step: 9, steps: 10, checkpoint: None, loss: None, members: vec![member] },
            r#"{"run":"r","generation":2,"step":9,"steps":10,"checkpoint":null,"loss":null,"members":[{"member":3,"identity":{"name":"a","host":"h","pid":7,"device":"cpu","door":"h:1"},"rank":null,"silent_ms":1}]}"#,
        );
    }
}
