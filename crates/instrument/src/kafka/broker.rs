//! Where a Kafka client goes, for `server.address` and `server.port`.

use opentelemetry::KeyValue;
use std::sync::Arc;

/// The one broker of a `bootstrap.servers`. Of several, librdkafka does not tell which one took or
/// brought a message, so that there is no address then.
///
/// ```
/// use lacuna_instrument::kafka::Broker;
///
/// assert!(Broker::only_of("kafka:9092").is_some());
/// assert!(Broker::only_of("kafka-1:9092,kafka-2:9092").is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    // Shared text: every span takes a copy.
    address: Arc<str>,
    port: u16,
}

/// librdkafka's own, where the list names none.
const DEFAULT_PORT: u16 = 9092;

impl Broker {
    /// The broker of `bootstrap.servers`, if it is one.
    #[must_use]
    pub fn only_of(bootstrap_servers: &str) -> Option<Self> {
        let mut all = bootstrap_servers.split(',').map(str::trim).filter(|one| !one.is_empty());
        let (Some(only), None) = (all.next(), all.next()) else { return None };
        // `SSL://host:port` is a form that librdkafka takes, too.
        let place = only.split_once("://").map_or(only, |(_, place)| place);
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (place, DEFAULT_PORT),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then(|| Self { address: host.into(), port })
    }

    pub(super) fn describe(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("server.address", self.address.clone()));
        attributes.push(KeyValue::new("server.port", i64::from(self.port)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_broker_is_one_place() {
        let place = |list: &str| Broker::only_of(list).map(|b| (b.address.to_string(), b.port));
        assert_eq!(place("kafka:19092"), Some(("kafka".into(), 19092)));
        assert_eq!(place(" kafka "), Some(("kafka".into(), 9092)));
        assert_eq!(place("SSL://[::1]:9093,"), Some(("::1".into(), 9093)));
        assert_eq!(place("[::1]"), Some(("::1".into(), 9092)));
        for none in ["", "a:1,b:2", "a:port", ":9092"] {
            assert_eq!(place(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn no_list_panics(list in "\\PC{0,60}") {
            let _ = Broker::only_of(&list);
        }
    }
}
