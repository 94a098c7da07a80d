//! librdkafka's statistics as metrics: lag, brokers, queues.
//!
//! The values are read when metrics are collected, from the latest statistics of every live client,
//! so that a partition which was taken away or a client which is gone has no stale series.

use crate::metrics::meter;
use crate::switch::{self, Part};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use rdkafka::Statistics;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// The latest statistics of one client.
#[derive(Debug)]
pub(crate) struct Latest {
    group: String,
    statistics: Mutex<Option<Box<Statistics>>>,
}

impl Latest {
    pub(crate) fn set(&self, statistics: Statistics) {
        *self.statistics.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Box::new(statistics));
    }
}

type Clients = Mutex<Vec<Weak<Latest>>>;

/// Makes a place for a client's statistics. It is gone when the client is.
pub(crate) fn register(group: String) -> Arc<Latest> {
    static CLIENTS: OnceLock<Arc<Clients>> = OnceLock::new();
    let latest = Arc::new(Latest { group, statistics: Mutex::new(None) });
    let clients = CLIENTS.get_or_init(|| {
        let clients = Arc::<Clients>::default();
        instruments(&meter(), &clients);
        clients
    });
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    clients.retain(|c| c.strong_count() > 0);
    clients.push(Arc::downgrade(&latest));
    latest
}

/// Calls `each` with every client's latest statistics and the attributes that name the client.
fn for_each(clients: &Clients, mut each: impl FnMut(&Statistics, &[KeyValue])) {
    if !switch::metrics(Part::Kafka) {
        return;
    }
    let live: Vec<_> = clients
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .iter()
        .filter_map(Weak::upgrade)
        .collect();
    for client in live {
        let statistics = client.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statistics) = statistics.as_deref() {
            let base = [
                KeyValue::new("messaging.client.id", statistics.client_id.clone()),
                KeyValue::new("messaging.consumer.group.name", client.group.clone()),
            ];
            each(statistics, &base);
        }
    }
}

fn with(base: &[KeyValue], more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
    base.iter().cloned().chain(more).collect()
}

/// Reads one number of each broker that is a real one (not librdkafka's own or a bootstrap entry
/// that has been resolved).
fn brokers(
    s: &Statistics,
    base: &[KeyValue],
    mut each: impl FnMut(&rdkafka::statistics::Broker, Vec<KeyValue>),
) {
    for broker in s.brokers.values().filter(|b| b.nodeid >= 0) {
        each(broker, with(base, [KeyValue::new("server.address", broker.nodename.clone())]));
    }
}

fn partition_attributes(base: &[KeyValue], topic: &str, partition: i32) -> Vec<KeyValue> {
    with(
        base,
        [
            KeyValue::new("messaging.destination.name", topic.to_owned()),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
        ],
    )
}

/// What reads an instrument's values from a client's statistics.
type Read<T> = fn(&Statistics, &[KeyValue], &dyn AsyncInstrument<T>);

/// Defines a function that makes an instrument whose values are read from all clients' statistics.
macro_rules! instrument {
    ($name:ident, $value:ty, $builder:ident) => {
        fn $name(
            meter: &Meter,
            clients: &Arc<Clients>,
            name: &'static str,
            unit: &'static str,
            about: &'static str,
            read: Read<$value>,
        ) {
            let clients = clients.clone();
            let callback = move |o: &dyn AsyncInstrument<$value>| {
                for_each(&clients, |s, base| read(s, base, o));
            };
            let builder = meter.$builder(name).with_unit(unit).with_description(about);
            let _ = builder.with_callback(callback).build();
        }
    };
}

instrument!(gauge, i64, i64_observable_gauge);
instrument!(counter, u64, u64_observable_counter);

fn instruments(meter: &Meter, clients: &Arc<Clients>) {
    gauge(
        meter,
        clients,
        "lacuna.kafka.consumer.lag",
        "{message}",
        "Messages between the consumer's position and the end of the partition",
        |s, base, o| {
            for (name, topic) in &s.topics {
                for (id, partition) in &topic.partitions {
                    // -1: not assigned here, or not known yet. Partition -1 is librdkafka's own.
                    if *id >= 0 && partition.consumer_lag >= 0 {
                        o.observe(partition.consumer_lag, &partition_attributes(base, name, *id));
                    }
                }
            }
        },
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.broker.up",
        // No unit: "1" would name it a ratio on `/metrics`.
        "",
        "1 while the connection to the broker is up, else 0",
        |s, base, o| brokers(s, base, |b, a| o.observe(i64::from(b.state == "UP"), &a)),
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.broker.rtt",
        "us",
        "Average round trip to the broker in the last interval",
        |s, base, o| {
            brokers(s, base, |b, a| {
                if let Some(rtt) = b.rtt.as_ref().filter(|w| w.cnt > 0) {
                    o.observe(rtt.avg, &a);
                }
            })
        },
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.broker.queue.requests",
        "{request}",
        "Requests that wait to be sent or for their answer",
        |s, base, o| brokers(s, base, |b, a| o.observe(b.outbuf_cnt + b.waitresp_cnt, &a)),
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.client.queue.messages",
        "{message}",
        "Messages in the producer's queue",
        |s, base, o| o.observe(i64::try_from(s.msg_cnt).unwrap_or(i64::MAX), base),
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.client.queue.size",
        "By",
        "Bytes in the producer's queue",
        |s, base, o| o.observe(i64::try_from(s.msg_size).unwrap_or(i64::MAX), base),
    );
    gauge(
        meter,
        clients,
        "lacuna.kafka.consumer.assigned_partitions",
        "{partition}",
        "Partitions assigned to the consumer",
        |s, base, o| {
            if let Some(group) = &s.cgrp {
                o.observe(i64::from(group.assignment_size), base);
            }
        },
    );
    counter(
        meter,
        clients,
        "lacuna.kafka.broker.retries",
        "{request}",
        "Requests that were sent again",
        |s, base, o| brokers(s, base, |b, a| o.observe(b.txretries, &a)),
    );
    counter(
        meter,
        clients,
        "lacuna.kafka.broker.timeouts",
        "{request}",
        "Requests that timed out",
        |s, base, o| brokers(s, base, |b, a| o.observe(b.req_timeouts, &a)),
    );
    counter(
        meter,
        clients,
        "lacuna.kafka.broker.disconnects",
        "{connection}",
        "Connections to the broker that ended",
        |s, base, o| {
            brokers(s, base, |b, a| {
                o.observe(b.disconnects.and_then(|n| u64::try_from(n).ok()).unwrap_or(0), &a);
            })
        },
    );
}
