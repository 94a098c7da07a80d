//! The monitor's thread: batches as they come, the clock in between, and what happens if it breaks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use lacuna_contract::ContractSet;

use super::Shared;
use super::checkpoint::Checkpointer;
use super::past::Past;
use super::queue::Popped;
use super::reload::{Reading, Reload};
use crate::telemetry::{SharedTelemetry, Telemetry};

/// How often the clock moves deadlines when nothing arrives, and findings are told.
const TICK: Duration = Duration::from_millis(200);
/// Telling what was found takes at most this share of the time: one part in so many.
const SHARE: u32 = 10;

/// Runs the monitor's thread. If it breaks down, it is told and nobody waits for it any more:
/// telemetry is taken as before, and the next start reads from the store what was not watched.
pub(super) fn supervise(shared: &Shared, telemetry: &Telemetry, run: impl FnOnce()) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return };
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let why = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    tracing::error!(
        "the contract monitor has broken down: {why}. Telemetry is taken as before, but no contract \
         is watched until the next start, which reads what it has missed"
    );
    let _ = shared.failure.set(why.to_owned());
    telemetry.set_ready(false);
    shared.queue.abandon();
    shared.ready.send_replace(true);
}

/// What the monitor's thread works with.
pub(super) struct Loop {
    pub(super) shared: Arc<Shared>,
    pub(super) past: Past,
    pub(super) reload: Option<Reload>,
    checkpointer: Checkpointer,
    /// Whether there is anything new to write down.
    pub(super) changed: bool,
    /// Contracts that are not in use yet, since some of them are still being shown history.
    pub(super) reading: Option<Reading>,
    next_told: Instant,
    telemetry: SharedTelemetry,
}

impl Loop {
    pub(super) fn new(
        shared: Arc<Shared>,
        past: Past,
        reload: Option<Reload>,
        checkpointer: Checkpointer,
        telemetry: &SharedTelemetry,
    ) -> Self {
        Self {
            shared,
            past,
            reload,
            checkpointer,
            changed: true,
            reading: None,
            next_told: Instant::now(),
            telemetry: Arc::clone(telemetry),
        }
    }

    pub(super) fn run(mut self, contracts: &ContractSet) {
        let queue = &self.shared.queue;
        if self.reload.is_none() {
            // Without contracts there is nothing to watch. What a process with contracts has
            // written down stays for the next one, and its findings are not taken for resolved.
            self.shared.ready.send_replace(true);
            return self.telemetry.set_ready(true);
        }
        let mut monitor = self.past.on_start(contracts, queue);
        if queue.is_closed() {
            // What it knows is not whole: what the last process wrote down stays.
            return;
        }
        if let Some(watermark) = self.shared.desk.book().watermark() {
            // What somebody has been told was settled must not be open again.
            monitor.settle_up_to(watermark);
        }
        self.shared.resume(&mut monitor);
        *self.shared.monitor.lock() = monitor;
        self.shared.tell();
        self.telemetry.set_ready(true);
        self.shared.ready.send_replace(true);
        let mut next_tick = Instant::now() + TICK;
        loop {
            match self.shared.queue.pop(next_tick) {
                Popped::Batch(batch) => {
                    let mut monitor = self.shared.monitor.lock();
                    // What it says of the future is to be seen as that.
                    monitor.tell_wall_clock(Timestamp::now());
                    monitor.observe(&batch);
                    drop(monitor);
                    self.changed = true;
                }
                Popped::Closed => break,
                Popped::Nothing => {}
            }
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + TICK;
            }
            let (store, queue) = (&self.shared.store, &self.shared.queue);
            self.checkpointer.run(&mut self.changed, store, queue, &self.shared.monitor);
        }
        self.shared.tell();
        if let Some(position) = self.shared.queue.closed_at() {
            self.checkpointer.finish(position, &self.shared.monitor);
        }
    }

    fn tick(&mut self) {
        let start = Instant::now();
        {
            let mut monitor = self.shared.monitor.lock();
            monitor.advance_wall_clock(Timestamp::now());
            self.changed |= monitor.take_changed();
        }
        if start >= self.next_told {
            self.shared.tell();
            self.next_told = Instant::now() + start.elapsed() * SHARE;
        }
        self.look_for_changes();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use axum::body::Body;
    use http::{Request, StatusCode};
    use http_body_util::BodyExt;
    use lacuna_signal::SignalKind;
    use lacuna_store::Store;
    use parking_lot::Mutex;
    use tower::ServiceExt;

    use super::*;
    use crate::config::Config;
    use crate::ingest::Observer;
    use crate::live::Live;

    async fn get(live: &Arc<Live>, store: &Store, path: &str) -> (StatusCode, String) {
        let telemetry = Arc::new(Telemetry::default());
        let router =
            crate::api::router(store.clone(), Arc::clone(live), telemetry, "http://x", None);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn live(dir: &Path) -> (Arc<Live>, Store, SharedTelemetry) {
        let config = Config::new(dir.to_owned());
        let store = Store::open(dir, config.store_options()).unwrap();
        let telemetry = Arc::new(Telemetry::default());
        let shared = Shared::new(&config, &ContractSet::default(), &store);
        let live = Arc::new(Live { shared: Arc::new(shared), thread: Mutex::new(None) });
        (live, store, telemetry)
    }

    /// Scenario: the monitor's thread panics while batches wait for it and one more is being pushed.
    /// Guarantees: nobody waits for it; it is told why by `/readyz`, `/metrics` and the API.
    #[tokio::test]
    async fn a_monitor_that_breaks_down_is_told_and_holds_nothing_up() {
        let dir = tempfile::tempdir().unwrap();
        let (live, store, telemetry) = live(dir.path());
        let empty =
            || lacuna_signal::otlp::decode(SignalKind::Spans, bytes::Bytes::new()).unwrap().batch;
        live.shared.queue.open();
        live.observe(empty(), 1 << 30);
        let pushing = {
            let (live, batch) = (Arc::clone(&live), empty());
            std::thread::spawn(move || live.observe(batch, 1 << 30))
        };
        supervise(&live.shared, &telemetry, || panic!("no such key"));
        pushing.join().unwrap();
        live.observe(empty(), 1 << 30);
        assert_eq!(live.queue_bytes(), 0);
        live.ready().await;
        assert!(!live.is_ready());
        let (status, body) = get(&live, &store, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains("broken down: no such key"), "{body}");
        let (_, metrics) = get(&live, &store, "/metrics").await;
        assert!(metrics.contains("lacuna_monitor_failed 1"), "{metrics}");
        let (_, contracts) = get(&live, &store, "/api/v1/contracts").await;
        assert!(contracts.contains("\"failure\":\"no such key\""), "{contracts}");
        live.stop();
    }
}
