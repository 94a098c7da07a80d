//! Any HTTP endpoint: one POST a change, whose body is the finding.

use super::{Attempt, Channel};

/// Tells a webhook what the book has for it, one after the other.
pub(super) async fn run(mut channel: Channel) {
    let mut waker = channel.live.desk().waker();
    loop {
        waker.mark_unchanged();
        let next = channel.live.desk().book().waiting(&channel.name).next().cloned();
        let Some(notice) = next else {
            if waker.changed().await.is_err() {
                return;
            }
            continue;
        };
        // There is nothing in a finding that JSON cannot hold.
        let key = notice.key();
        let finding = notice.entry.finding.linked(&channel.base);
        let body = serde_json::to_vec(&finding).unwrap_or_default();
        let about = Some(finding.fingerprint.as_str());
        match channel.post(channel.url.clone(), Some(&key), body, 1, about).await {
            Attempt::Delivered | Attempt::Rejected => channel.told(vec![notice.id]).await,
            Attempt::Failed => tokio::time::sleep(channel.pause()).await,
        }
    }
}
