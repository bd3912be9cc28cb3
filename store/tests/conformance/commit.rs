//! The commit rule and the journal.

use bytes::Bytes;
use forebay_store::commit::{put_if_absent, require_put_if_absent};
use forebay_store::{Journal, Outcome};
use futures::{StreamExt, TryStreamExt};

use crate::place::{Place, on_every_store};

on_every_store!(
    of_sixteen_racing_writers_exactly_one_wins,
    a_repeat_of_the_winner_is_committed,
    a_journal_fences_who_missed_an_entry,
    an_honest_store_passes_the_probe_and_keeps_nothing_of_it,
);

async fn of_sixteen_racing_writers_exactly_one_wins(place: Place) {
    let location = place.location().await;
    for round in 0..8 {
        let name = format!("race/{round}");
        let racers: Vec<_> = (0..16)
            .map(|racer| {
                let (location, name) = (location.clone(), name.clone());
                tokio::spawn(async move { put_if_absent(&location, &name, Bytes::from(format!("racer {racer}"))).await.expect("answer") })
            })
            .collect();
        let outcomes: Vec<Outcome> = futures::future::try_join_all(racers).await.expect("racers");
        let winners: Vec<usize> = (0..16).filter(|racer| outcomes[*racer] == Outcome::Committed).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        assert_eq!(location.get(&name).await.expect("get"), format!("racer {}", winners[0]));
    }
}

async fn a_repeat_of_the_winner_is_committed(place: Place) {
    let location = place.location().await;
    let put = |bytes: &'static str| put_if_absent(&location, "x", Bytes::from(bytes));
    assert_eq!(put("mine").await.expect("put"), Outcome::Committed);
    assert_eq!(put("theirs").await.expect("put"), Outcome::Lost);
    assert_eq!(put("mine").await.expect("put"), Outcome::Committed);
}

async fn a_journal_fences_who_missed_an_entry(place: Place) {
    let journal = Journal::new(place.location().await.child("journal"));
    assert!(journal.numbers().await.expect("numbers").is_empty());
    assert_eq!(journal.append(1, Bytes::from("old, 1")).await.expect("append"), Outcome::Committed);
    assert_eq!(journal.append(2, Bytes::from("new, 2")).await.expect("append"), Outcome::Committed);
    // The old one does not know of entry 2.
    assert_eq!(journal.append(2, Bytes::from("old, 2")).await.expect("append"), Outcome::Lost);
    for number in [10, 9] {
        journal.append(number, Bytes::from("later")).await.expect("append");
    }
    journal.location().put("not a number.json", Bytes::from("x")).await.expect("put");
    assert_eq!(journal.numbers().await.expect("numbers"), [1, 2, 9, 10]);
    assert_eq!(journal.get(2).await.expect("get").expect("there"), "new, 2");
    assert!(journal.get(3).await.expect("get").is_none());
}

async fn an_honest_store_passes_the_probe_and_keeps_nothing_of_it(place: Place) {
    let location = place.location().await;
    let probes = futures::stream::iter((0..4).map(|_| require_put_if_absent(&location))).buffer_unordered(4);
    probes.try_collect::<()>().await.expect("probes");
    let left: Vec<_> = location.list("").try_collect().await.expect("list");
    assert!(left.is_empty(), "{left:?}");
}
