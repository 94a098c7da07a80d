//! Keeping memory tidy: small batches become large ones that are packed and have an index.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lacuna_signal::SignalKind;

use crate::chunk::{Chunk, FULL_ROWS, LARGE_ROWS};
use crate::store::Shared;

/// Rows as received are joined when there are this many, or one batch of many…
const ENOUGH_ROWS: usize = FULL_ROWS;
/// …or as many batches…
const ENOUGH_CHUNKS: usize = 32;
/// …or after this long.
const IDLE: Duration = Duration::from_millis(500);
/// Cells of a joined chunk, null ones included: rows of several hundred columns are not held back by
/// this, a client that invents keys is. Joining them would cost more memory than it saves.
const MAX_CELLS: usize = 2 << 20;

impl Shared {
    /// The tidying thread.
    pub(crate) fn tidy_loop(self: Arc<Self>) {
        loop {
            let woken = self.tidy.wait(IDLE);
            for kind in SignalKind::ALL {
                while self.tidy_once(kind, woken.idle) {}
            }
            if woken.closing {
                return;
            }
        }
    }

    /// Joins one group of chunks of `kind`; whether there was one. With `all`, however small.
    pub(crate) fn tidy_once(&self, kind: SignalKind, all: bool) -> bool {
        let group = pick(&self.state.read().table(kind).active, all);
        let Some(first) = group.first() else { return false };
        let joined = match Chunk::pack(group.iter().map(Arc::as_ref)) {
            Ok(joined) => joined.map(Arc::new),
            Err(error) => {
                // The rows stay as they are, readable; only memory is not saved.
                tracing::error!(%error, kind = kind.name(), "cannot join batches in memory");
                return false;
            }
        };
        let mut state = self.state.write();
        let active = &mut state.table_mut(kind).active;
        // What has been frozen meanwhile is on its way to a segment, as it is.
        let Some(at) = active.iter().position(|chunk| Arc::ptr_eq(chunk, first)) else {
            return false;
        };
        let freed: usize = group.iter().map(|chunk| chunk.bytes()).sum();
        let added = joined.as_ref().map_or(0, |chunk| chunk.bytes());
        active.splice(at..at + group.len(), joined);
        for total in [&self.memory_bytes, &self.active_bytes] {
            total.fetch_add(added, Ordering::Relaxed);
            total.fetch_sub(freed, Ordering::Relaxed);
        }
        true
    }
}

/// The chunks to join next: those as received at the end, and packed ones before them that are
/// not much larger, so that a row is copied only about log(rows) times.
fn pick(active: &[Arc<Chunk>], all: bool) -> Vec<Arc<Chunk>> {
    let received = active.iter().rev().take_while(|chunk| !chunk.is_packed());
    let (mut count, mut rows, mut large) = (0, 0, false);
    for chunk in received {
        (count, rows) = (count + 1, rows + chunk.num_rows());
        large |= chunk.num_rows() >= LARGE_ROWS;
    }
    if count == 0 || !(all || large || rows >= ENOUGH_ROWS || count >= ENOUGH_CHUNKS) {
        return Vec::new();
    }
    let (mut start, mut rows) = (active.len() - count, rows);
    while let Some(before) = start.checked_sub(1).and_then(|i| active.get(i)) {
        let more = before.num_rows();
        if more >= LARGE_ROWS || more > rows.saturating_mul(2) {
            break;
        }
        start -= 1;
        rows += more;
    }
    // One packed chunk alone is as it should be.
    (start..active.len())
        .map(|start| bounded(&active[start..]))
        .find(|group| group.len() > 1 || group.first().is_some_and(|chunk| !chunk.is_packed()))
        .unwrap_or_default()
        .to_vec()
}

/// So many of the first of `chunks` that they become one full chunk, none after a large one, and no
/// more cells than are worth it; at least one.
fn bounded(chunks: &[Arc<Chunk>]) -> &[Arc<Chunk>] {
    let (mut rows, mut names, mut large) = (0, HashSet::new(), false);
    let fits = |chunk: &&Arc<Chunk>| {
        let open = rows < FULL_ROWS && !large;
        let first = rows == 0;
        rows += chunk.num_rows();
        large = chunk.num_rows() >= LARGE_ROWS;
        names.extend(chunk.schema().fields().iter().map(|field| field.name().clone()));
        open && (first || rows.saturating_mul(names.len()) <= MAX_CELLS)
    };
    let count = chunks.iter().take_while(fits).count();
    &chunks[..count]
}
