//! Any HTTP endpoint: one POST a change, whose body is the finding.

use std::collections::BTreeMap;
use std::time::Duration;

use lacuna_signal::finding::Status;
use tokio::time::Instant;

use super::{Attempt, Channel, pause};
use crate::book::Notice;

/// The longest pause before a finding that was rejected is told again.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// That one is over is told again so often after a rejection, for about an hour and a half; that one
/// is open, for as long as it is.
const MAX_REJECTIONS: u32 = 20;

/// A notice that the receiver rejected.
#[derive(Debug, Clone, Copy)]
struct Rejected {
    times: u32,
    again: Instant,
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
enum Next {
    /// To tell this.
    Tell(Box<Notice>),
    /// To take these off the book: they were rejected, and a newer state of the finding waits.
    Forget(Vec<u64>),
    /// To wait for a change, and no longer than this.
    Wait(Option<Instant>),
}

/// The oldest notice that may be told now. One that was rejected makes way for the others: a receiver
/// that finds fault with it today, by a deployment gone wrong perhaps, may take it tomorrow.
fn next(waiting: &[Notice], rejected: &BTreeMap<u64, Rejected>, now: Instant) -> Next {
    let newest: BTreeMap<&str, u64> =
        waiting.iter().map(|notice| (fingerprint(notice), notice.id)).collect();
    let over = |notice: &&Notice| newest.get(fingerprint(notice)) != Some(&notice.id);
    let old: Vec<u64> = waiting
        .iter()
        .filter(|notice| rejected.contains_key(&notice.id))
        .filter(over)
        .map(|notice| notice.id)
        .collect();
    if !old.is_empty() {
        return Next::Forget(old);
    }
    let mut first: Option<Instant> = None;
    for notice in waiting {
        match rejected.get(&notice.id) {
            Some(rejected) if rejected.again > now => {
                first = Some(first.map_or(rejected.again, |first| first.min(rejected.again)));
            }
            _ => return Next::Tell(Box::new(notice.clone())),
        }
    }
    Next::Wait(first)
}

fn fingerprint(notice: &Notice) -> &str {
    &notice.entry.finding.fingerprint
}

/// Tells a webhook what the book has for it, one after the other.
pub(super) async fn run(mut channel: Channel) {
    let mut waker = channel.live.desk().waker();
    let mut rejected: BTreeMap<u64, Rejected> = BTreeMap::new();
    loop {
        waker.mark_unchanged();
        let waiting: Vec<Notice> =
            channel.live.desk().book().waiting(&channel.name).cloned().collect();
        rejected.retain(|id, _| waiting.iter().any(|notice| notice.id == *id));
        let notice = match next(&waiting, &rejected, Instant::now()) {
            Next::Tell(notice) => notice,
            Next::Forget(old) => {
                channel.told(old).await;
                continue;
            }
            Next::Wait(until) => {
                let later = async {
                    match until {
                        Some(until) => tokio::time::sleep_until(until).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = waker.changed() => if changed.is_err() { return },
                    () = later => {}
                }
                continue;
            }
        };
        // There is nothing in a finding that JSON cannot hold.
        let key = notice.key();
        let finding = notice.entry.finding.linked(&channel.base);
        let body = serde_json::to_vec(&finding).unwrap_or_default();
        let about = Some(finding.fingerprint.as_str());
        match channel.post(channel.url.clone(), Some(&key), body, 1, about).await {
            Attempt::Delivered => channel.told(vec![notice.id]).await,
            Attempt::Rejected => {
                let times = rejected.get(&notice.id).map_or(1, |rejected| rejected.times + 1);
                if finding.status == Status::Resolved && times > MAX_REJECTIONS {
                    channel.told(vec![notice.id]).await;
                    continue;
                }
                let again = Instant::now() + pause(times, LONGEST_PAUSE);
                rejected.insert(notice.id, Rejected { times, again });
            }
            Attempt::Failed => tokio::time::sleep(channel.pause()).await,
        }
    }
}
