//! The `OTEL_*` variables: what they may say, and what they say.
//!
//! The SDK falls back to a default on most malformed values without a word, and takes some that make
//! no sense (a delay of zero). What it takes is therefore given to it from here, read with the same
//! tests with which [`check`] finds what to warn of.

mod checks;

pub(crate) use checks::{Malformed, check, unsupported};

use checks::{MOST_MILLIS, MOST_RECORDS, is_ratio};
use opentelemetry_sdk::trace::Sampler;
use std::collections::HashMap;
use std::time::Duration;

/// Looks a variable up; a seam for tests, since the process's environment is shared.
pub(crate) trait Lookup {
    /// The value, if set and not empty (the specification treats empty as unset).
    fn get(&self, name: &str) -> Option<String>;
}

/// The process's environment.
pub(crate) struct ProcessEnv;

impl Lookup for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        // A value that is not Unicode is not absent: it is malformed, and `check` must see it.
        let value = std::env::var_os(name)?.to_string_lossy().trim().to_owned();
        (!value.is_empty()).then_some(value)
    }
}

impl Lookup for HashMap<&str, &str> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).map(|v| (*v).to_owned()).filter(|v| !v.is_empty())
    }
}

/// Transport of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    HttpProtobuf,
    HttpJson,
}

impl Protocol {
    fn parse(value: &str) -> Option<Self> {
        match value {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::HttpProtobuf),
            "http/json" => Some(Self::HttpJson),
            _ => None,
        }
    }

    /// Where an exporter sends without any endpoint.
    fn base(self) -> &'static str {
        match self {
            Self::Grpc => "http://localhost:4317",
            Self::HttpProtobuf | Self::HttpJson => "http://localhost:4318",
        }
    }

    /// The endpoint that the specification gives for a signal (`v1/traces`, …) when none is set.
    pub(crate) fn default_endpoint(self, path: &str) -> String {
        match self {
            Self::Grpc => self.base().to_owned(),
            Self::HttpProtobuf | Self::HttpJson => format!("{}/{path}", self.base()),
        }
    }
}

/// A signal's part of a variable name, `TRACES` in `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
pub(crate) const SIGNALS: [&str; 3] = ["TRACES", "LOGS", "METRICS"];

/// The transport of `signal`, by its own variable, the general one, or the default.
pub(crate) fn protocol(env: &impl Lookup, signal: &str) -> Protocol {
    [format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".into()]
        .iter()
        .filter_map(|name| env.get(name))
        .find_map(|value| Protocol::parse(&value))
        .unwrap_or(Protocol::HttpProtobuf)
}

/// False when `OTEL_<signal>_EXPORTER=none`.
pub(crate) fn exports(env: &impl Lookup, signal: &str) -> bool {
    env.get(&format!("OTEL_{signal}_EXPORTER")).as_deref() != Some("none")
}

/// True when `OTEL_SDK_DISABLED=true`.
pub(crate) fn disabled(env: &impl Lookup) -> bool {
    env.get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"))
}

/// Where `signal` is sent, and the values that are not used: endpoints that mean nothing to its
/// protocol. A malformed one of the signal's own gives way to the general one; the default is what is
/// left.
pub(crate) fn endpoint(
    env: &impl Lookup,
    signal: &str,
    protocol: Protocol,
    path: &str,
) -> (String, Vec<Malformed>) {
    let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
    let mut malformed = vec![];
    let mut used = None;
    for (name, is_own) in [(own.as_str(), true), (ENDPOINT, false)] {
        let Some(value) = env.get(name) else { continue };
        match is_endpoint(&value, protocol) {
            Ok(()) => {
                used = Some((value, is_own));
                break;
            }
            Err(accepted) => {
                let (name, default) = (name.to_owned(), String::new());
                malformed.push(Malformed { name, value, accepted, default });
            }
        }
    }
    let url = match used {
        None => protocol.default_endpoint(path),
        Some((value, is_own)) => match protocol {
            // The SDK reads a missing scheme as https.
            Protocol::Grpc if !value.contains("://") => format!("http://{value}"),
            Protocol::Grpc => value,
            // A signal's own endpoint is used as it is; the general one is a base.
            _ if is_own => value,
            _ => format!("{}/{path}", value.strip_suffix('/').unwrap_or(&value)),
        },
    };
    for malformed in &mut malformed {
        malformed.default.clone_from(&url);
        // The general one is not only this signal's.
        if malformed.name == ENDPOINT {
            malformed.default = protocol.base().to_owned();
        }
    }
    (url, malformed)
}

/// The general endpoint.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A whole number of records above 0, or the default.
pub(crate) fn records(env: &impl Lookup, name: &str, default: usize) -> usize {
    let known = env.get(name).and_then(|v| v.parse().ok());
    known.filter(|n| (1..=MOST_RECORDS).contains(n)).unwrap_or(default)
}

/// A time above 0, by the first of the variables that has one, or the default.
pub(crate) fn millis<const N: usize>(
    env: &impl Lookup,
    names: [&str; N],
    default: u64,
) -> Duration {
    let known = names.iter().find_map(|name| {
        env.get(name)?.parse().ok().filter(|n: &u64| (1..=MOST_MILLIS).contains(n))
    });
    Duration::from_millis(known.unwrap_or(default))
}

/// The sampler that `OTEL_TRACES_SAMPLER` and its argument name.
pub(crate) fn sampler(env: &impl Lookup) -> Sampler {
    let ratio = || {
        let argument = env.get("OTEL_TRACES_SAMPLER_ARG").filter(|v| is_ratio(v));
        Sampler::TraceIdRatioBased(argument.and_then(|v| v.parse().ok()).unwrap_or(1.0))
    };
    let name = env.get("OTEL_TRACES_SAMPLER").unwrap_or_default();
    let based = |sampler| Sampler::ParentBased(Box::new(sampler));
    match name.as_str() {
        "always_on" => Sampler::AlwaysOn,
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => ratio(),
        "parentbased_always_off" => based(Sampler::AlwaysOff),
        "parentbased_traceidratio" => based(ratio()),
        _ => based(Sampler::AlwaysOn),
    }
}

/// What was wrong is said by what would have been right.
pub(crate) fn is_endpoint(value: &str, protocol: Protocol) -> Result<(), &'static str> {
    let accepted = match protocol {
        Protocol::Grpc => {
            "host:port, or a URL with http:// (with the crate feature `tls`: https://)"
        }
        Protocol::HttpProtobuf | Protocol::HttpJson => {
            "a URL with http:// (with the crate feature `tls`: https://)"
        }
    };
    let rest = match value.split_once("://") {
        Some(("http", rest)) => Some(rest),
        Some(("https", rest)) if cfg!(feature = "tls") => Some(rest),
        Some(("https", _)) => return Err("http://, since this build has no crate feature `tls`"),
        Some(_) => None,
        None if protocol == Protocol::Grpc => Some(value),
        None => None,
    };
    let Some(rest) = rest else { return Err(accepted) };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port_ok = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            port.parse::<u16>().is_ok()
        }
        Some((host, _)) => !host.is_empty(),
        None => value.contains("://"),
    };
    if authority.is_empty() || !port_ok || value.contains(char::is_whitespace) {
        return Err(accepted);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_signals_own_protocol_wins_and_a_bad_one_falls_through() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "carrier pigeon"),
        ]);
        assert_eq!(protocol(&env, "TRACES"), Protocol::Grpc);
        assert_eq!(protocol(&env, "LOGS"), Protocol::HttpJson);
        assert_eq!(protocol(&env, "METRICS"), Protocol::Grpc);
    }

    #[test]
    fn an_endpoint_is_read_by_its_protocol() {
        let at = |value, protocol| {
            let env = HashMap::from([(ENDPOINT, value)]);
            let (url, malformed) = endpoint(&env, "TRACES", protocol, "v1/traces");
            (url, !malformed.is_empty())
        };
        let bare = "collector:4317";
        assert_eq!(at(bare, Protocol::Grpc), ("http://collector:4317".into(), false));
        assert_eq!(at(bare, Protocol::HttpJson), ("http://localhost:4318/v1/traces".into(), true));
        let base = "http://collector:4318/";
        assert_eq!(
            at(base, Protocol::HttpProtobuf),
            ("http://collector:4318/v1/traces".into(), false)
        );
        let env = HashMap::from([
            (ENDPOINT, "http://general:4318"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://own:9/as/it/is"),
        ]);
        let own = endpoint(&env, "LOGS", Protocol::HttpProtobuf, "v1/logs").0;
        assert_eq!(own, "http://own:9/as/it/is");
        assert_eq!(
            endpoint(&HashMap::new(), "LOGS", Protocol::Grpc, "").0,
            "http://localhost:4317"
        );
    }

    #[test]
    fn a_signals_malformed_endpoint_gives_way_to_the_general_one() {
        let env = HashMap::from([
            (ENDPOINT, "http://general:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "carrier pigeon"),
        ]);
        let (url, malformed) = endpoint(&env, "TRACES", Protocol::HttpProtobuf, "v1/traces");
        assert_eq!(url, "http://general:4318/v1/traces");
        assert_eq!(malformed.len(), 1);
        assert_eq!(malformed[0].name, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        assert_eq!(malformed[0].default, url, "what is used instead");
        let env = HashMap::from([(ENDPOINT, "x y"), ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "z")]);
        let (url, malformed) = endpoint(&env, "LOGS", Protocol::HttpProtobuf, "v1/logs");
        assert_eq!(url, "http://localhost:4318/v1/logs");
        let told: Vec<_> = malformed.iter().map(|m| m.default.as_str()).collect();
        assert_eq!(told, ["http://localhost:4318/v1/logs", "http://localhost:4318"]);
    }

    #[test]
    fn https_is_an_endpoint_where_tls_is_linked() {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let env = HashMap::from([(ENDPOINT, "https://collector:4318")]);
            let (url, malformed) = endpoint(&env, "TRACES", protocol, "v1/traces");
            assert_eq!(malformed.is_empty(), cfg!(feature = "tls"));
            assert_eq!(url.starts_with("https://"), cfg!(feature = "tls"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_the_default() {
        let env = HashMap::from([
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "-0.5"),
        ]);
        assert_eq!(check(&env).len(), 4);
        assert_eq!(millis(&env, ["OTEL_BSP_SCHEDULE_DELAY"], 5000), Duration::from_secs(5));
        assert_eq!(records(&env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512), 512);
        assert_eq!(records(&env, "OTEL_BSP_MAX_QUEUE_SIZE", 2048), 2048);
        assert!(matches!(sampler(&env), Sampler::TraceIdRatioBased(r) if r == 1.0));
        let env = HashMap::from([
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        assert!(format!("{:?}", sampler(&env)).contains("0.25"));
    }

    proptest! {
        #[test]
        fn urls_with_a_host_and_port_are_endpoints(host in "[a-z][a-z0-9.-]{0,20}", port in 1u16..) {
            let url = format!("http://{host}:{port}/v1/traces");
            let bare = format!("{host}:{port}");
            prop_assert!(is_endpoint(&url, Protocol::HttpJson).is_ok());
            prop_assert!(is_endpoint(&url, Protocol::Grpc).is_ok());
            prop_assert!(is_endpoint(&bare, Protocol::Grpc).is_ok());
            prop_assert!(is_endpoint(&bare, Protocol::HttpJson).is_err());
        }

        #[test]
        fn no_endpoint_panics(value in "\\PC{0,60}") {
            let env = HashMap::from([(ENDPOINT, value.as_str())]);
            for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
                let (url, _) = endpoint(&env, "TRACES", protocol, "v1/traces");
                prop_assert!(url.starts_with("http"));
            }
        }
    }
}
