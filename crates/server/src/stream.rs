//! Changes of findings as server-sent events (WHATWG HTML, "Server-sent events").

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream::unfold;
use http::HeaderMap;
use lacuna_signal::finding::Finding;
use tokio::sync::broadcast::Receiver;

use crate::book::Change;
use crate::live::Live;

/// A comment goes out after so much silence, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a reader is sent.
enum Item {
    /// A finding as it is now, before any change.
    Now(u64, Box<Finding>),
    Change(Arc<Change>),
}

impl Item {
    fn event(self, base: &str) -> Event {
        let (id, name, finding) = match self {
            Self::Now(id, finding) => (id, "finding", *finding),
            Self::Change(change) => (change.id, change.kind.name(), change.finding.clone()),
        };
        let data = serde_json::to_string(&finding.linked(base)).unwrap_or_default();
        Event::default().id(id.to_string()).event(name).data(data)
    }
}

/// Changes after that which `Last-Event-ID` names. Without one, or if some of them are no longer
/// known, all findings as they are now come first, as events named `finding`. Links are to `base`.
pub fn changes(
    live: &Live,
    base: &Arc<str>,
    headers: &HeaderMap,
) -> Option<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>> {
    // In this order: what changes in between comes twice, and is told apart by its number.
    let changes = live.desk().subscribe()?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let missed = last.and_then(|last| live.desk().book().changes_after(last));
    let (first, after) = match (missed, last) {
        (Some(missed), Some(last)) => {
            let newest = missed.last().map_or(last, |change| change.id);
            (missed.into_iter().map(Item::Change).collect::<VecDeque<_>>(), newest)
        }
        _ => {
            let id = live.desk().book().last_change();
            let findings = live.findings().into_iter();
            (findings.map(|finding| Item::Now(id, Box::new(finding))).collect(), id)
        }
    };
    let reader = Reader { first, changes, after, base: Arc::clone(base) };
    let stream = unfold(reader, next);
    Some(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

struct Reader {
    first: VecDeque<Item>,
    changes: Receiver<Arc<Change>>,
    /// Changes up to this have been told.
    after: u64,
    base: Arc<str>,
}

async fn next(mut reader: Reader) -> Option<(Result<Event, Infallible>, Reader)> {
    if let Some(item) = reader.first.pop_front() {
        return Some((Ok(item.event(&reader.base)), reader));
    }
    loop {
        // A reader that is too slow is cut off; it comes back with the number of what it had.
        let change = reader.changes.recv().await.ok()?;
        if change.id > reader.after {
            return Some((Ok(Item::Change(change).event(&reader.base)), reader));
        }
    }
}
