//! How many heavy questions are answered at once.
//!
//! A search that reads thousands of traces, or a service graph over millions of spans, takes memory
//! while it runs. Each by itself is bounded; a dashboard that asks twenty at a time would take twenty
//! times as much. So they stand in a queue, and a few run at a time. Look-ups by id do not wait here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Heavy questions that are answered at once.
pub const AT_ONCE: usize = 4;

/// The gate before heavy questions. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Gate {
    /// Waits for a place among those that run. It is to be held by the thread that works, not by the
    /// request: a client that goes away makes no room for another before its work has ended.
    pub async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_few_at_once_and_the_next_when_one_has_ended() {
        let gate = Gate::default();
        let mut inside = Vec::new();
        for _ in 0..AT_ONCE {
            inside.push(gate.enter().now_or_never().unwrap().unwrap());
        }
        assert!(gate.enter().now_or_never().is_none());
        inside.pop();
        assert!(gate.clone().enter().now_or_never().is_some());
    }
}
