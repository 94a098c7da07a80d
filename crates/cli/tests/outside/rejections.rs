//! A webhook that answers that it will not take a finding, as one does in a deployment gone wrong.

use serde_json::json;

use crate::channels::{CONTRACT, Place, await_open, lose};
use crate::support::eventually;
use crate::support::otlp::{SECOND, now};
use crate::support::receiver::{Mood, Receiver};

/// Scenario: the receiver rejects one contract's finding with 422 and takes another's; the server is
/// killed and started; then the receiver takes everything.
/// Guarantees: the other finding does not wait for the rejected one; the rejected one is told again
/// while it is open, also after the restart, and arrives once, under its key; rejections are counted.
#[tokio::test]
async fn an_open_finding_is_told_again_after_a_rejection() {
    let place = Place::new();
    let other = CONTRACT.replace("taken-then-done", "other-one").replace("take", "other");
    std::fs::write(place.path().join("b.yaml"), other).unwrap();
    let receiver = Receiver::start(Mood::Takes).await;
    receiver.will_not_take("taken-then-done");
    let hook = format!("{}/hook", receiver.url);
    let server = place.start(&["--webhook", &hook]);
    let start = now() - 100 * SECOND;
    lose(&server, 1, "a", start).await;
    eventually("a rejection", || async { (receiver.refused() > 0).then_some(()) }).await;
    crate::channels::send(
        &server,
        vec![
            crate::channels::event(5, "other", "b", start + 10 * SECOND),
            crate::channels::event(6, "tick", "x", start + 30 * SECOND),
        ],
    )
    .await;
    let taken = receiver.await_taken(1).await;
    assert_eq!(taken[0].body["source"], json!("contract/other-one"));
    eventually("another try", || async { (receiver.refused() > 2).then_some(()) }).await;
    let target = receiver.url.trim_start_matches("http://").to_owned();
    let labels = format!("{{channel=\"webhook\",target=\"{target}\"}}");
    let rejected = server.metric(&format!("lacuna_notifications_rejected_total{labels}")).await;
    assert!(rejected >= 2.0, "{rejected}");
    server.kill();

    let server = place.start(&["--webhook", &hook]);
    let before = receiver.refused();
    eventually("a try after", || async { (receiver.refused() > before).then_some(()) }).await;
    assert_eq!(receiver.taken().len(), 1);
    receiver.will_take_all();
    let taken = receiver.await_taken(2).await;
    assert_eq!(taken[1].body["source"], json!("contract/taken-then-done"));
    assert!(taken[1].key.ends_with("-1-open"), "{}", taken[1].key);
    await_open(&server, 2).await;
    eventually("nothing pending", || async {
        let pending = server.metric(&format!("lacuna_notifications_pending{labels}")).await;
        (pending == 0.0).then_some(())
    })
    .await;
    assert_eq!(receiver.taken().len(), 2);
}
