//! Pools of connections, by the database conventions: their gauges, and the waits for a connection.

use crate::metrics::{CLIENT_SECONDS, meter};
use crate::span::{Cancel, Guard, Leaf};
use crate::switch::{self, Part};
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter};
use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A pool, as its gauges read it.
pub(crate) trait Pooled: Send + Sync {
    /// The part that it belongs to.
    fn part(&self) -> Part;
    /// `db.client.connection.pool.name`.
    fn name(&self) -> KeyValue;
    /// How it stands.
    fn now(&self) -> Standing;
}

/// How a pool stands: numbers of connections, and of callers that wait for one.
pub(crate) struct Standing {
    pub(crate) idle: i64,
    pub(crate) used: i64,
    pub(crate) max: i64,
    pub(crate) idle_min: i64,
    pub(crate) pending: i64,
}

/// The attribute that names a pool.
pub(crate) fn name(name: Arc<str>) -> KeyValue {
    KeyValue::new("db.client.connection.pool.name", name)
}

type Pools = Mutex<Vec<Weak<dyn Pooled>>>;

pub(crate) struct Metrics {
    wait: Histogram<f64>,
    used: Histogram<f64>,
    create: Histogram<f64>,
    timeouts: Counter<u64>,
    pools: Arc<Pools>,
}

pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        let seconds = |name: &'static str, about: &'static str| {
            let builder = meter.f64_histogram(name).with_unit("s").with_description(about);
            builder.with_boundaries(CLIENT_SECONDS.to_vec()).build()
        };
        let pools = Arc::<Pools>::default();
        observe(&meter, &pools);
        Metrics {
            wait: seconds(
                "db.client.connection.wait_time",
                "Time to obtain a connection from the pool",
            ),
            used: seconds(
                "db.client.connection.use_time",
                "Time between borrowing a connection and its return",
            ),
            create: seconds("db.client.connection.create_time", "Time to open a connection"),
            timeouts: meter
                .u64_counter("db.client.connection.timeouts")
                .with_unit("{timeout}")
                .with_description("Waits for a connection that ran out of time")
                .build(),
            pools,
        }
    })
}

impl Metrics {
    /// A connection was used since `taken` and is given back.
    pub(crate) fn used(&self, taken: Instant, name: KeyValue) {
        self.used.record(taken.elapsed().as_secs_f64(), &[name]);
    }

    /// A connection was waited for, or was at hand.
    pub(crate) fn waited(&self, for_it: Duration, name: KeyValue) {
        self.wait.record(for_it.as_secs_f64(), &[name]);
    }

    /// A connection was opened. Not for PostgreSQL: `sqlx` has no hook around connecting.
    #[cfg_attr(not(feature = "redis"), allow(dead_code))]
    pub(crate) fn opened(&self, took: Duration, name: &KeyValue) {
        self.create.record(took.as_secs_f64(), std::slice::from_ref(name));
    }
}

/// Makes a pool's gauges visible as long as it lives.
pub(crate) fn register<P: Pooled + 'static>(pool: &Arc<P>) {
    let pool: Arc<dyn Pooled> = pool.clone();
    let mut pools = metrics().pools.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|p| p.strong_count() > 0);
    pools.push(Arc::downgrade(&pool));
}

fn observe(meter: &Meter, pools: &Arc<Pools>) {
    type Read = fn(&Standing, KeyValue, &dyn AsyncInstrument<i64>);
    let gauge = |name: &'static str, unit: &'static str, about: &'static str, read: Read| {
        let pools = pools.clone();
        let callback = move |observer: &dyn AsyncInstrument<i64>| {
            let live: Vec<_> = pools
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .filter_map(Weak::upgrade)
                .filter(|pool| switch::metrics(pool.part()))
                .collect();
            for pool in live {
                read(&pool.now(), pool.name(), observer);
            }
        };
        let builder =
            meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
        let _ = builder.with_callback(callback).build();
    };
    gauge(
        "db.client.connection.count",
        "{connection}",
        "Connections by state",
        |now, name, observer| {
            for (state, n) in [("idle", now.idle), ("used", now.used)] {
                let state = KeyValue::new("db.client.connection.state", state);
                observer.observe(n, &[name.clone(), state]);
            }
        },
    );
    gauge(
        "db.client.connection.max",
        "{connection}",
        "Most open connections allowed",
        |now, name, observer| observer.observe(now.max, &[name]),
    );
    // Both kinds of pool keep any number idle, up to the maximum.
    gauge(
        "db.client.connection.idle.max",
        "{connection}",
        "Most idle connections allowed",
        |now, name, observer| observer.observe(now.max, &[name]),
    );
    gauge(
        "db.client.connection.idle.min",
        "{connection}",
        "Fewest connections kept open",
        |now, name, observer| observer.observe(now.idle_min, &[name]),
    );
    gauge(
        "db.client.connection.pending_requests",
        "{request}",
        "Waits for a connection",
        |now, name, observer| observer.observe(now.pending, &[name]),
    );
}

/// A wait for a connection: a span, a duration, and one more that waits for as long as it lives. It
/// ends also when nobody waits for its end.
pub(crate) struct Wait<'p> {
    pool: &'p dyn Pooled,
    pending: &'p AtomicI64,
    span: Option<Leaf>,
    started: Option<Instant>,
}

impl<'p> Wait<'p> {
    /// Starts a wait in a span `span`, with the attributes of the server.
    pub(crate) fn start(
        pool: &'p dyn Pooled,
        pending: &'p AtomicI64,
        span: &'static str,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Guard<Self> {
        let part = pool.part();
        let span = switch::spans(part).then(|| {
            let mut attributes = attributes();
            attributes.push(pool.name());
            Context::map_current(|cx| Leaf::start(span, SpanKind::Internal, attributes, cx))
        });
        let started = switch::metrics(part).then(Instant::now);
        pending.fetch_add(1, Ordering::Relaxed);
        Guard::new(Self { pool, pending, span, started })
    }

    /// Ends the wait. `failed` says on the span what went wrong, if something did.
    pub(crate) fn finish(&mut self, timed_out: bool, failed: Option<impl FnOnce(&mut Leaf)>) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
        if let Some(started) = self.started {
            if timed_out {
                metrics().timeouts.add(1, &[self.pool.name()]);
            }
            metrics().waited(started.elapsed(), self.pool.name());
        }
        if let (Some(span), Some(failed)) = (&mut self.span, failed) {
            failed(span);
        }
    }
}

impl Cancel for Wait<'_> {
    fn cancel(&mut self, why: &'static str) {
        let failed = |span: &mut Leaf| {
            span.fail(why, "the wait for a connection was given up by its caller");
        };
        self.finish(false, Some(failed));
    }
}
