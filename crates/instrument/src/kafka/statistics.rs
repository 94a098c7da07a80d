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
            let mut base = vec![KeyValue::new("messaging.client.id", statistics.client_id.clone())];
            // A producer has no group, whatever its context was named.
            if statistics.client_type == "consumer" {
                let group = client.group.clone();
                base.push(KeyValue::new("messaging.consumer.group.name", group));
            }
            each(statistics, &base);
        }
    }
}

fn with(base: &[KeyValue], more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
    base.iter().cloned().chain(more).collect()
}

/// Reads one number of each broker: of those that the cluster told of, or, while no broker was ever
/// reached, of those that the client was configured with.
fn brokers(
    s: &Statistics,
    base: &[KeyValue],
    mut each: impl FnMut(&rdkafka::statistics::Broker, Vec<KeyValue>),
) {
    let any_known = s.brokers.values().any(|b| b.nodeid >= 0);
    let is_shown = |b: &&rdkafka::statistics::Broker| {
        if any_known { b.nodeid >= 0 } else { b.source == "configured" }
    };
    for broker in s.brokers.values().filter(is_shown) {
        // `name` is `host:port/id`; `nodename` is empty until the broker was reached.
        let place = broker.name.rsplit_once('/').map_or(broker.name.as_str(), |(place, _)| place);
        let place = if broker.nodename.is_empty() { place } else { &broker.nodename };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<i64>().ok()),
            None => (place, None),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let address = KeyValue::new("server.address", host);
        let port = port.map(|p| KeyValue::new("server.port", p));
        each(broker, with(base, [Some(address), port].into_iter().flatten()));
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

/// How far the group is behind in a partition that is assigned here: librdkafka's own lag, from the
/// committed offset, or, where the group has committed none, from where the consumer stands: after the
/// last message that it took, else at the partition's beginning. A consumer that is stuck on its first
/// message has a lag too.
fn lag(partition: &rdkafka::statistics::Partition) -> Option<i64> {
    let told = |n: i64| (n >= 0).then_some(n);
    let is_assigned = !matches!(partition.fetch_state.as_str(), "none" | "stopping" | "stopped");
    told(partition.consumer_lag).or_else(|| {
        let from = told(partition.stored_offset).or(told(partition.lo_offset))?;
        let to = told(partition.hi_offset).filter(|_| is_assigned)?;
        Some((to - from).max(0))
    })
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
instrument!(gauge_of_seconds, f64, f64_observable_gauge);
instrument!(counter, u64, u64_observable_counter);

fn instruments(meter: &Meter, clients: &Arc<Clients>) {
    gauge(
        meter,
        clients,
        "lacuna.kafka.consumer.lag",
        "{message}",
        "Messages between the group's committed offset and the end of the partition; where none is \
         committed, from where the consumer stands",
        |s, base, o| {
            for (name, topic) in &s.topics {
                for (id, partition) in &topic.partitions {
                    // Partition -1 is librdkafka's own.
                    if let Some(lag) = lag(partition).filter(|_| *id >= 0) {
                        o.observe(lag, &partition_attributes(base, name, *id));
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
    gauge_of_seconds(
        meter,
        clients,
        "lacuna.kafka.broker.rtt",
        "s",
        "Average round trip to the broker in the last interval",
        |s, base, o| {
            brokers(s, base, |b, a| {
                if let Some(rtt) = b.rtt.as_ref().filter(|w| w.cnt > 0) {
                    o.observe(rtt.avg as f64 / 1e6, &a);
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

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::statistics::Partition;

    #[test]
    fn lag_is_from_the_committed_offset_else_from_where_the_consumer_stands() {
        let unknown = -1001;
        let partition = |state: &str, told: i64, stored: i64, lo: i64, hi: i64| {
            lag(&Partition {
                fetch_state: state.to_owned(),
                consumer_lag: told,
                stored_offset: stored,
                lo_offset: lo,
                hi_offset: hi,
                ..Partition::default()
            })
        };
        assert_eq!(partition("active", 7, 3, 0, 10), Some(7), "librdkafka's own");
        assert_eq!(partition("active", -1, 3, 0, 10), Some(7), "after the last that was taken");
        assert_eq!(partition("active", -1, unknown, 2, 10), Some(8), "none was taken");
        assert_eq!(partition("active", -1, unknown, unknown, 10), None, "nothing is known yet");
        assert_eq!(partition("active", -1, 3, 0, unknown), None);
        for gone in ["none", "stopping", "stopped"] {
            assert_eq!(partition(gone, -1, 3, 0, 10), None, "{gone}");
        }
    }
}
