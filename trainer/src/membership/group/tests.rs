//! Single decisions of the group; what they come to together is in `simulation`.

use forebay_schemas::Digest;
use forebay_schemas::wire::{MicroBatchReport, Ready, Restore, Salvage, Timings};

use super::*;

const STEPS: u64 = 12;
const LEASE_MS: u64 = 1_000;
const SETTINGS: Settings =
    Settings { micro_batches: 5, steps: STEPS, every_steps: 4, min_replicas: 2, expected: 2, gather_ms: 500, lease_ms: LEASE_MS };

fn identity(name: &str) -> Identity {
    Identity { name: name.to_owned(), host: "h".to_owned(), pid: 1, device: "cpu".to_owned(), door: format!("{name}:1") }
}

/// A member asks for its place after generation `after`, with the state of `have` (generation, step) and these gradients.
fn ready(member: u64, after: u64, have: Option<(u64, u64)>, held: &[u32]) -> Event {
    let have = have.map(|(generation, step)| Mark { step, generation });
    // Later questions are of later generations here.
    Event::Ready(Ready { member, turn: after + 1, have, held: held.to_vec(), reached: vec![], unreached: vec![] })
}

/// Two members in generation 1, both at step 0.
fn two() -> (Group, u64, u64) {
    let mut group = Group::new(SETTINGS, History::default());
    let (a, b) = (group.join(0, identity("a")), group.join(0, identity("b")));
    group.apply(0, ready(a, 0, None, &[]));
    group.apply(0, ready(b, 0, None, &[]));
    assert_eq!(group.running(), Some(1));
    (group, a, b)
}

fn report(member: u64, generation: u64, step: u64, indices: std::ops::Range<u32>) -> Event {
    let micro_batches = indices.map(|index| MicroBatchReport { index, loss: Some(1.0), samples: Digest::of(b"") }).collect();
    Event::Finished(Finish { member, generation, step, micro_batches, state: Digest::of(b""), timings: Timings::default() })
}

#[test]
fn a_report_of_an_old_generation_commits_nothing() {
    let (mut group, a, b) = two();
    group.apply(1, report(a, 1, 0, 0..3));
    group.apply(2, Event::Disconnected { member: b });
    let late = group.apply(3, report(a, 1, 0, 0..3));
    assert!(matches!(late[..], [Decision::Answer { verdict: Verdict::Retry, .. }]), "{late:?}");
    assert!(group.apply(4, report(b, 1, 0, 3..5)).is_empty(), "who is out is not even answered here");
    assert_eq!(group.state().step, 0);
}

#[test]
fn a_repeated_report_gets_the_same_answer_and_commits_once() {
    let (mut group, a, b) = two();
    group.apply(1, report(a, 1, 0, 0..3));
    group.apply(2, report(b, 1, 0, 3..5));
    assert_eq!(group.state().step, 1);
    let again = group.apply(3, report(b, 1, 0, 3..5));
    assert!(matches!(again[..], [Decision::Answer { verdict: Verdict::Committed { regroup: false, .. }, .. }]), "{again:?}");
    assert_eq!(group.state().step, 1);
}

#[test]
fn a_report_over_the_wrong_micro_batches_ends_the_generation() {
    let (mut group, a, _) = two();
    let decisions = group.apply(1, report(a, 1, 0, 0..2));
    let Some(Decision::Over { reason, .. }) = decisions.first() else { panic!("{decisions:?}") };
    assert_eq!(reason, "replica a: reported micro-batches [0, 1], expected [0, 1, 2]");
}

#[test]
fn a_joiner_is_let_in_at_the_next_step_and_gets_the_state_from_a_peer() {
    let (mut group, a, b) = two();
    let c = group.join(1, identity("c"));
    group.apply(1, ready(c, 0, None, &[]));
    group.apply(2, report(a, 1, 0, 0..3));
    let committed = group.apply(3, report(b, 1, 0, 3..5));
    assert!(
        committed.iter().any(|decision| matches!(decision, Decision::Answer { verdict: Verdict::Committed { regroup: true, .. }, .. }))
    );
    group.apply(4, ready(a, 1, Some((1, 1)), &[]));
    let formed = group.apply(5, ready(b, 1, Some((1, 1)), &[]));
    let restores: Vec<Restore> = formed
        .iter()
        .filter_map(|decision| match decision {
            Decision::Next { next: Next::Train { assignment }, .. } => Some(assignment.restore),
            _ => None,
        })
        .collect();
    assert_eq!(restores, [Restore::Current, Restore::Current, Restore::Peer { rank: 0 }]);
}

#[test]
fn a_coordinator_that_was_frozen_itself_blames_nobody() {
    let (mut group, ..) = two();
    group.apply(20, Event::Tick);
    assert!(group.apply(60_000, Event::Tick).is_empty());
    assert_eq!(group.members(60_000).count(), 2);
}

#[test]
fn endless_failure_is_given_up_with_its_reason() {
    let (mut group, a, b) = two();
    let mut stuck = None;
    for generation in 1..=MAX_FRUITLESS_GENERATIONS as u64 {
        group.apply(1, Event::Failed { member: a, generation, reason: "no route to host".to_owned() });
        group.apply(1, ready(a, generation, None, &[]));
        stuck = group.apply(1, ready(b, generation, None, &[])).pop();
    }
    let Some(Decision::Stuck { reason }) = stuck else { panic!("{stuck:?}") };
    assert!(reason.contains("no route to host"), "{reason}");
}

/// Commits all steps; the answer tells `a` to write the last checkpoint.
fn all_committed() -> (Group, u64, u64) {
    let (mut group, a, b) = two();
    for step in 0..STEPS {
        group.apply(1, report(a, 1, step, 0..3));
        group.apply(1, report(b, 1, step, 3..5));
    }
    assert_eq!(group.state().step, STEPS);
    (group, a, b)
}

fn writer(decisions: &[Decision]) -> Option<u64> {
    decisions.iter().find_map(|decision| match decision {
        Decision::Next { member, next: Next::Train { assignment } } if assignment.checkpoint => Some(*member),
        _ => None,
    })
}

#[test]
fn if_the_writer_of_the_last_checkpoint_dies_another_one_writes_it() {
    let (mut group, a, b) = all_committed();
    let c = group.join(2, identity("c"));
    group.apply(2, ready(c, 0, None, &[]));
    group.apply(2, ready(b, 1, Some((1, STEPS)), &[]));
    assert!(!group.is_done());
    let formed = group.apply(3, Event::Disconnected { member: a });
    assert_eq!(writer(&formed), Some(b), "{formed:?}");
    // Who waits does not end the generation of the one who writes.
    assert!(group.apply(4, ready(c, 2, Some((1, STEPS)), &[])).is_empty());
    let done = group.apply(5, Event::Published { state: Mark { step: STEPS, generation: 1 } });
    assert!(matches!(done[0], Decision::Done) && group.is_done());
}

#[test]
fn a_writer_that_gives_up_is_asked_again() {
    let (mut group, a, b) = all_committed();
    group.apply(2, ready(b, 1, Some((1, STEPS)), &[]));
    let formed = group.apply(3, ready(a, 1, Some((1, STEPS)), &[]));
    assert_eq!((writer(&formed), group.running()), (Some(a), Some(2)));
    group.apply(4, ready(b, 2, Some((1, STEPS)), &[]));
    let again = group.apply(5, ready(a, 2, Some((1, STEPS)), &[]));
    assert_eq!((writer(&again), group.running()), (Some(a), Some(3)));
}

fn places(decisions: &[Decision]) -> Vec<&Assignment> {
    let place = |decision| match decision {
        &Decision::Next { next: Next::Train { ref assignment }, .. } => Some(assignment),
        _ => None,
    };
    decisions.iter().filter_map(place).collect()
}

#[test]
fn survivors_keep_what_they_computed_and_share_the_rest() {
    let (mut group, a, b) = two();
    let c = group.join(0, identity("c"));
    group.apply(0, ready(c, 0, None, &[]));
    group.apply(1, report(a, 1, 0, 0..3));
    group.apply(1, report(b, 1, 0, 3..5));
    let state = Some((1, 1));
    group.apply(2, ready(a, 1, state, &[]));
    let formed = group.apply(2, ready(b, 1, state, &[]));
    assert_eq!(places(&formed).iter().map(|place| place.micro_batches.clone()).collect::<Vec<_>>(), [vec![0, 1], vec![2, 3], vec![4]]);
    group.apply(3, Event::Disconnected { member: a });
    group.apply(4, ready(b, 2, state, &[2, 3]));
    let formed = group.apply(4, ready(c, 2, state, &[]));
    let salvage: Vec<_> = places(&formed).iter().map(|place| place.salvage.clone().unwrap()).collect();
    assert_eq!(salvage, [Salvage { keep: vec![2, 3], compute: vec![0, 1] }, Salvage { keep: vec![], compute: vec![4] }]);
    assert!(group.apply(5, report(b, 3, 1, 0..4)).is_empty());
    let committed = group.apply(5, report(c, 3, 1, 4..5));
    assert!(matches!(committed.last(), Some(Decision::Committed(_))), "{committed:?}");
    // From then on the usual split is due.
    group.apply(6, report(b, 3, 2, 0..3));
    assert!(matches!(group.apply(6, report(c, 3, 2, 3..5)).last(), Some(Decision::Committed(_))));
}

#[test]
fn gradients_of_another_state_or_of_somebody_else_too_do_not_count() {
    let (mut group, a, b) = two();
    let c = group.join(1, identity("c"));
    group.apply(1, Event::Failed { member: a, generation: 1, reason: "x".to_owned() });
    group.apply(1, ready(c, 0, None, &[0, 1]));
    group.apply(2, ready(a, 1, Some((0, 0)), &[0, 1]));
    let formed = group.apply(2, ready(b, 1, Some((0, 0)), &[1, 2]));
    let keeps: Vec<_> = places(&formed).iter().map(|place| place.salvage.clone().unwrap().keep).collect();
    assert_eq!(keeps, [vec![0, 1], vec![], vec![]]);
}

#[test]
fn who_differs_from_the_majority_is_named_and_takes_the_state_of_the_others() {
    let (mut group, a, b) = two();
    let c = group.join(0, identity("c"));
    group.apply(0, ready(c, 0, None, &[]));
    group.apply(1, report(a, 1, 0, 0..3));
    group.apply(1, report(b, 1, 0, 3..5));
    for member in [a, b] {
        group.apply(2, ready(member, 1, Some((1, 1)), &[]));
    }
    let flipped = |event| match event {
        Event::Finished(finish) => Event::Finished(Finish { state: Digest::of(b"flipped"), ..finish }),
        other => other,
    };
    group.apply(3, report(a, 2, 1, 0..2));
    group.apply(3, flipped(report(b, 2, 1, 2..4)));
    let decisions = group.apply(3, report(c, 2, 1, 4..5));
    let [Decision::Diverged { member, detail, .. }, Decision::Answer { verdict: Verdict::Diverged, .. }, ..] = &decisions[..] else {
        panic!("{decisions:?}")
    };
    assert!(*member == b && detail.contains("that of the others"), "{detail}");
    assert_eq!(group.state().step, 1, "nothing is committed");
    // It claims its state in vain.
    group.apply(4, ready(b, 2, Some((1, 1)), &[2, 3]));
    group.apply(4, ready(a, 2, Some((1, 1)), &[0, 1]));
    let formed = group.apply(4, ready(c, 2, Some((1, 1)), &[4]));
    let restores: Vec<_> = places(&formed).iter().map(|place| place.restore).collect();
    assert_eq!(restores, [Restore::Current, Restore::Current, Restore::Peer { rank: 0 }]);
}

#[test]
fn without_a_majority_nobody_is_believed() {
    let (mut group, a, b) = two();
    group.apply(0, Event::Published { state: Mark { step: 0, generation: 0 } });
    group.apply(1, report(a, 1, 0, 0..3));
    let Event::Finished(finish) = report(b, 1, 0, 3..5) else { panic!("a report") };
    let decisions = group.apply(1, Event::Finished(Finish { state: Digest::of(b"flipped"), ..finish }));
    assert_eq!(decisions.iter().filter(|decision| matches!(decision, Decision::Diverged { .. })).count(), 2, "{decisions:?}");
}

#[test]
fn a_slower_member_gets_less_within_20_steps_and_all_hear_of_it_together() {
    let settings = Settings { micro_batches: 14, steps: 100, ..SETTINGS };
    let mut group = Group::new(settings, History::default());
    let members = [group.join(0, identity("a")), group.join(0, identity("b"))];
    let formed: Vec<Decision> = members.iter().flat_map(|&member| group.apply(0, ready(member, 0, None, &[]))).collect();
    let mut shares: Vec<Vec<u32>> = places(&formed).iter().map(|place| place.micro_batches.clone()).collect();
    assert_eq!(shares.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7]);
    for step in 0..40 {
        let pace = |rank| if rank == 1 && step >= 20 { 0.02 } else { 0.01 };
        let finishes = (0..2).map(|rank| {
            let Event::Finished(mut finish) = report(members[rank], 1, step, 0..0) else { panic!("a report") };
            finish.micro_batches =
                shares[rank].iter().map(|&index| MicroBatchReport { index, loss: None, samples: Digest::of(b"") }).collect();
            finish.timings.compute = pace(rank) * shares[rank].len() as f64;
            Event::Finished(finish)
        });
        let decisions: Vec<Decision> = finishes.collect::<Vec<_>>().into_iter().flat_map(|finish| group.apply(step, finish)).collect();
        let splits: Vec<_> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Answer { verdict: Verdict::Committed { micro_batches, .. }, .. } => Some(micro_batches.clone()),
                _ => None,
            })
            .collect();
        assert!(splits.len() == 2 && splits[0].is_some() == splits[1].is_some());
        if let [Some(first), Some(second)] = &splits[..] {
            shares = vec![first.clone(), second.clone()];
            assert_eq!(shares.concat(), (0..14).collect::<Vec<_>>());
        }
    }
    assert!(shares[1].len() <= 5, "{shares:?}");
}

#[test]
fn a_question_that_arrives_after_a_later_one_is_not_heard() {
    let (mut group, a, b) = two();
    group.apply(1, Event::Failed { member: a, generation: 1, reason: "x".to_owned() });
    let old = group.apply(1, Event::Ready(Ready { member: b, turn: 0, have: None, held: vec![], reached: vec![], unreached: vec![] }));
    assert!(old.is_empty() && group.apply(1, ready(a, 1, Some((0, 0)), &[])).is_empty(), "b has not come yet");
    assert_eq!(places(&group.apply(1, ready(b, 1, Some((0, 0)), &[]))).len(), 2);
}

#[test]
fn a_new_coordinator_goes_on_with_the_newest_state_of_the_members() {
    let mut history = History { checkpoint: Some(Mark { step: 4, generation: 2 }), ..History::default() };
    for (generation, step) in [(1, 0), (2, 3), (5, 4)] {
        history.take(&JournalEntry::Generation { generation, members: vec![String::new(); 2], step });
    }
    let mut group = Group::new(Settings { expected: 9, ..SETTINGS }, history);
    let (a, b) = (group.join(0, identity("a")), group.join(0, identity("b")));
    // Generation 5 began with step 4, so what generation 2 committed after that is no longer of the run.
    group.apply(0, ready(a, 0, Some((2, 6)), &[]));
    let formed = group.apply(0, ready(b, 0, Some((5, 5)), &[1]));
    let places = places(&formed);
    assert_eq!((places[0].generation, places[0].state), (6, Mark { step: 5, generation: 5 }));
    assert_eq!(places.iter().map(|place| place.restore).collect::<Vec<_>>(), [Restore::Current, Restore::Peer { rank: 0 }]);
}

#[test]
fn a_new_coordinator_does_not_begin_anew_before_those_with_a_state_could_come() {
    let mut history = History::default();
    history.take(&JournalEntry::Generation { generation: 1, members: vec![String::new(); 3], step: 0 });
    let mut group = Group::new(Settings { min_replicas: 1, ..SETTINGS }, history);
    let fresh = group.join(0, identity("fresh"));
    group.apply(0, ready(fresh, 0, None, &[]));
    let mut renew = |now_ms| group.apply(now_ms, Event::Renewed { member: fresh });
    assert!((1..10).all(|turn| renew(turn * SETTINGS.gather_ms).is_empty()));
    let survivor = group.join(TAKE_OVER_MS - 1, identity("survivor"));
    let formed = group.apply(TAKE_OVER_MS - 1, ready(survivor, 0, Some((1, 7)), &[]));
    assert_eq!(places(&formed)[0].state.step, 7);
}

/// Three members in generation 1, at step 0.
fn three(min_replicas: usize) -> (Group, [u64; 3]) {
    let mut group = Group::new(Settings { min_replicas, expected: 3, ..SETTINGS }, History::default());
    let members = ["a", "b", "c"].map(|name| group.join(0, identity(name)));
    members.iter().for_each(|&member| drop(group.apply(0, ready(member, 0, None, &[]))));
    assert_eq!(group.running(), Some(1));
    (group, members)
}

/// The same, having knocked at doors.
fn knocked(member: u64, after: u64, have: Option<(u64, u64)>, reached: &[&str], unreached: &[&str]) -> Event {
    let Event::Ready(ready) = ready(member, after, have, &[]) else { panic!("a question") };
    let doors = |doors: &[&str]| doors.iter().map(|&door| door.to_owned()).collect();
    Event::Ready(Ready { reached: doors(reached), unreached: doors(unreached), ..ready })
}

fn cut_off(member: u64, after: u64, have: Option<(u64, u64)>, doors: &[&str]) -> Event {
    knocked(member, after, have, &[], doors)
}

fn is_told_to_knock(decisions: &[Decision], whom: u64, at: &str) -> bool {
    let told = |decision: &Decision| matches!(decision, Decision::Next { member, next: Next::Knock { doors } } if *member == whom && doors == &[at]);
    decisions.iter().any(told)
}

fn seated(decisions: &[Decision]) -> Vec<u64> {
    let seat = |decision: &Decision| match decision {
        Decision::Next { member, next: Next::Train { .. } } => Some(*member),
        _ => None,
    };
    decisions.iter().filter_map(seat).collect()
}

#[test]
fn two_between_whom_a_line_is_cut_are_not_in_one_generation_and_the_other_comes_back_when_it_is_mended() {
    let (mut group, [a, b, c]) = three(2);
    let failed = |member| Event::Failed { member, generation: 1, reason: "nothing acknowledged".to_owned() };
    group.apply(1, failed(a));
    group.apply(1, cut_off(a, 1, Some((1, 0)), &["b:1"]));
    group.apply(1, ready(c, 1, Some((1, 0)), &[]));
    // The other side may not have noticed it.
    let formed = group.apply(1, ready(b, 1, Some((1, 0)), &[]));
    assert_eq!(seated(&formed), [a, c], "{formed:?}");
    assert!(is_told_to_knock(&formed, b, "a:1"), "{formed:?}");
    assert!(
        formed.iter().any(|decision| matches!(decision, Decision::Formed { reason, .. } if reason.contains("without b"))),
        "{formed:?}"
    );
    // As long as the line is cut, its asking ends nothing, nor while it has not knocked.
    let again = group.apply(2, ready(b, 1, Some((1, 0)), &[]));
    assert!(is_told_to_knock(&again, b, "a:1"), "{again:?}");
    group.apply(2, cut_off(b, 1, Some((1, 0)), &["a:1"]));
    group.apply(2, report(a, 2, 0, 0..3));
    let committed = group.apply(2, report(c, 2, 0, 3..5));
    assert!(
        committed.iter().any(|decision| matches!(decision, Decision::Answer { verdict: Verdict::Committed { regroup: false, .. }, .. }))
    );
    group.apply(3, knocked(b, 1, Some((1, 0)), &["a:1"], &[]));
    group.apply(3, report(a, 2, 1, 0..3));
    let committed = group.apply(3, report(c, 2, 1, 3..5));
    assert!(
        committed.iter().any(|decision| matches!(decision, Decision::Answer { verdict: Verdict::Committed { regroup: true, .. }, .. }))
    );
    group.apply(4, ready(a, 2, Some((2, 2)), &[]));
    assert_eq!(seated(&group.apply(4, ready(c, 2, Some((2, 2)), &[]))), [a, c, b]);
}

#[test]
fn whoever_has_the_newest_state_stays_even_if_nobody_else_reaches_it() {
    let (mut group, [a, b, c]) = three(1);
    group.apply(1, report(a, 1, 0, 0..2));
    group.apply(1, report(b, 1, 0, 2..4));
    group.apply(1, report(c, 1, 0, 4..5));
    assert_eq!(group.state().step, 1);
    // Only c has heard of the commit and holds the state after it.
    group.apply(2, Event::Failed { member: c, generation: 1, reason: "cut".to_owned() });
    group.apply(2, cut_off(c, 1, Some((1, 1)), &["a:1", "b:1"]));
    group.apply(2, ready(a, 1, None, &[]));
    let formed = group.apply(2, ready(b, 1, None, &[]));
    assert_eq!(seated(&formed), [c], "{formed:?}");
    assert_eq!(group.state().step, 1, "no committed step is lost to a cut line");
}

#[test]
fn whoever_does_not_reach_itself_is_not_left_out() {
    let (mut group, [a, b, c]) = three(1);
    group.apply(1, Event::Failed { member: a, generation: 1, reason: "broken".to_owned() });
    group.apply(1, cut_off(a, 1, Some((1, 0)), &["a:1"]));
    group.apply(1, ready(b, 1, None, &[]));
    let formed = group.apply(1, ready(c, 1, None, &[]));
    assert_eq!(seated(&formed), [a, b, c], "{formed:?}");
}
