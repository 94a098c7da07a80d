//! Database client metrics, by the conventions.

use super::pool::Shared;
use crate::metrics::{CLIENT_SECONDS, meter};
use crate::switch::{self, Part};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Counter, Histogram, Meter};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

pub(crate) struct Metrics {
    pub(crate) operation: Histogram<f64>,
    pub(crate) wait: Histogram<f64>,
    pub(crate) used: Histogram<f64>,
    pub(crate) timeouts: Counter<u64>,
    pub(crate) transaction: Histogram<f64>,
    pools: Arc<Pools>,
}

type Pools = Mutex<Vec<Weak<Shared>>>;

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
            operation: seconds(
                "db.client.operation.duration",
                "Duration of database client operations",
            ),
            wait: seconds(
                "db.client.connection.wait_time",
                "Time to obtain a connection from the pool",
            ),
            used: seconds(
                "db.client.connection.use_time",
                "Time between borrowing a connection and its return",
            ),
            transaction: seconds(
                "lacuna.db.transaction.duration",
                "Time from BEGIN to the end of a transaction",
            ),
            timeouts: meter
                .u64_counter("db.client.connection.timeouts")
                .with_unit("{timeout}")
                .with_description("Waits for a connection that ran out of time")
                .build(),
            pools,
        }
    })
}

/// Makes a pool's gauges visible as long as it lives.
pub(crate) fn register(pool: &Arc<Shared>) {
    let mut pools = metrics().pools.lock().unwrap_or_else(PoisonError::into_inner);
    pools.retain(|p| p.strong_count() > 0);
    pools.push(Arc::downgrade(pool));
}

fn gauge(
    meter: &Meter,
    pools: &Arc<Pools>,
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    read: fn(&Shared, KeyValue, &dyn AsyncInstrument<i64>),
) {
    let pools = pools.clone();
    let callback = move |observer: &dyn AsyncInstrument<i64>| {
        if !switch::metrics(Part::Postgres) {
            return;
        }
        let live: Vec<_> = pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for pool in live {
            read(&pool, pool.name_attribute(), observer);
        }
    };
    let builder =
        meter.i64_observable_up_down_counter(name).with_unit(unit).with_description(about);
    let _ = builder.with_callback(callback).build();
}

fn observe(meter: &Meter, pools: &Arc<Pools>) {
    gauge(
        meter,
        pools,
        "db.client.connection.count",
        "{connection}",
        "Connections by state",
        |p, name, o| {
            let idle = i64::try_from(p.pool.num_idle()).unwrap_or(i64::MAX);
            let used = i64::from(p.pool.size()).saturating_sub(idle).max(0);
            for (state, n) in [("idle", idle), ("used", used)] {
                o.observe(n, &[name.clone(), KeyValue::new("db.client.connection.state", state)]);
            }
        },
    );
    gauge(
        meter,
        pools,
        "db.client.connection.max",
        "{connection}",
        "Most open connections allowed",
        |p, name, o| {
            o.observe(i64::from(p.pool.options().get_max_connections()), &[name]);
        },
    );
    // sqlx keeps any number idle, up to the maximum.
    gauge(
        meter,
        pools,
        "db.client.connection.idle.max",
        "{connection}",
        "Most idle connections allowed",
        |p, name, o| {
            o.observe(i64::from(p.pool.options().get_max_connections()), &[name]);
        },
    );
    gauge(
        meter,
        pools,
        "db.client.connection.idle.min",
        "{connection}",
        "Fewest connections kept open",
        |p, name, o| {
            o.observe(i64::from(p.pool.options().get_min_connections()), &[name]);
        },
    );
    gauge(
        meter,
        pools,
        "db.client.connection.pending_requests",
        "{request}",
        "Waits for a connection",
        |p, name, o| {
            o.observe(p.pending(), &[name]);
        },
    );
}
