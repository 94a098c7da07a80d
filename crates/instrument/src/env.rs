//! The `OTEL_*` variables: what they may say, and a warning for what they must not.
//!
//! The SDK falls back to a default on most malformed values without a word. [`check`] says the word.

use std::collections::HashMap;

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

/// A variable whose value is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// The variable.
    pub(crate) name: String,
    /// Its value as found.
    pub(crate) value: String,
    /// What it may be.
    pub(crate) accepted: &'static str,
    /// What is used instead.
    pub(crate) default: &'static str,
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

    /// The endpoint that the specification gives for a signal (`v1/traces`, …) when none is set.
    pub(crate) fn default_endpoint(self, path: &str) -> String {
        match self {
            Self::Grpc => "http://localhost:4317".into(),
            Self::HttpProtobuf | Self::HttpJson => format!("http://localhost:4318/{path}"),
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

/// True when the signal's endpoint is set and is not a URL, so the default must be given outright.
pub(crate) fn endpoint_is_malformed(env: &impl Lookup, signal: &str) -> bool {
    let own = env.get(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    own.or_else(|| env.get("OTEL_EXPORTER_OTLP_ENDPOINT")).is_some_and(|v| !is_endpoint(&v))
}

/// A whole number from a variable, or the default.
pub(crate) fn number(env: &impl Lookup, name: &str, default: usize) -> usize {
    env.get(name).and_then(|v| v.parse().ok()).filter(|n| *n > 0).unwrap_or(default)
}

fn is_endpoint(value: &str) -> bool {
    // gRPC endpoints may be a bare host:port; anything else needs a scheme.
    let rest = match value.split_once("://") {
        Some(("http" | "https", rest)) => rest,
        Some(_) => return false,
        None => value,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let port_ok = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.ends_with(']') => {
            port.parse::<u16>().is_ok()
        }
        Some((host, _)) => !host.is_empty(),
        None => value.contains("://"),
    };
    !authority.is_empty() && port_ok && !value.contains(char::is_whitespace)
}

fn is_pairs(value: &str) -> bool {
    value
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .all(|pair| pair.split_once('=').is_some_and(|(k, _)| !k.trim().is_empty()))
}

fn is_number(value: &str) -> bool {
    value.parse::<u64>().is_ok()
}

fn is_positive(value: &str) -> bool {
    value.parse::<u64>().is_ok_and(|n| n > 0)
}

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A check of one variable: name, test, what is accepted, what is used instead.
type Check = (String, fn(&str) -> bool, &'static str, &'static str);

fn checks() -> Vec<Check> {
    let mut checks: Vec<Check> = Vec::new();
    let mut add = |name: &str, ok: fn(&str) -> bool, accepted, default| {
        checks.push((name.to_owned(), ok, accepted, default));
    };
    let is_bool: fn(&str) -> bool =
        |v| v.eq_ignore_ascii_case("true") || v.eq_ignore_ascii_case("false");
    let is_protocol: fn(&str) -> bool = |v| Protocol::parse(v).is_some();
    let is_exporter: fn(&str) -> bool = |v| matches!(v, "otlp" | "none");
    let is_compression: fn(&str) -> bool = |v| matches!(v, "gzip" | "none");

    add("OTEL_SDK_DISABLED", is_bool, "true, false", "false");
    add(
        "OTEL_TRACES_SAMPLER",
        |v| SAMPLERS.contains(&v),
        "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
        "parentbased_always_on",
    );
    add(
        "OTEL_TRACES_SAMPLER_ARG",
        |v| v.parse::<f64>().is_ok_and(|r| (0.0..=1.0).contains(&r)),
        "a number from 0 to 1",
        "1",
    );
    add(
        "OTEL_PROPAGATORS",
        |v| v.split(',').all(|p| matches!(p.trim(), "tracecontext" | "baggage" | "none")),
        "a list of tracecontext, baggage, or none",
        "tracecontext,baggage",
    );
    add("OTEL_RESOURCE_ATTRIBUTES", is_pairs, "key=value,key=value", "the well-formed pairs only");
    for (processor, delay) in [("BSP", "5000"), ("BLRP", "1000")] {
        add(
            &format!("OTEL_{processor}_SCHEDULE_DELAY"),
            is_number,
            "milliseconds, a whole number",
            delay,
        );
        add(
            &format!("OTEL_{processor}_EXPORT_TIMEOUT"),
            is_number,
            "milliseconds, a whole number",
            "30000",
        );
        add(
            &format!("OTEL_{processor}_MAX_QUEUE_SIZE"),
            is_positive,
            "records, a whole number above 0",
            "2048",
        );
        add(
            &format!("OTEL_{processor}_MAX_EXPORT_BATCH_SIZE"),
            is_positive,
            "records, a whole number above 0",
            "512",
        );
    }
    add("OTEL_METRIC_EXPORT_INTERVAL", is_number, "milliseconds, a whole number", "60000");
    add("OTEL_METRIC_EXPORT_TIMEOUT", is_number, "milliseconds, a whole number", "30000");
    for signal in SIGNALS {
        add(&format!("OTEL_{signal}_EXPORTER"), is_exporter, "otlp, none", "otlp");
    }
    for infix in ["", "TRACES_", "LOGS_", "METRICS_"] {
        let name = |suffix: &str| format!("OTEL_EXPORTER_OTLP_{infix}{suffix}");
        add(
            &name("ENDPOINT"),
            is_endpoint,
            "a URL with http:// or https:// (gRPC: also host:port)",
            "http://localhost:4318, with grpc http://localhost:4317",
        );
        add(&name("PROTOCOL"), is_protocol, "grpc, http/protobuf, http/json", "http/protobuf");
        add(&name("TIMEOUT"), is_number, "milliseconds, a whole number", "10000");
        add(&name("COMPRESSION"), is_compression, "gzip, none", "none");
        add(&name("HEADERS"), is_pairs, "key=value,key=value", "the well-formed pairs only");
    }
    checks
}

/// Every set variable whose value will not be used.
pub(crate) fn check(env: &impl Lookup) -> Vec<Malformed> {
    checks()
        .into_iter()
        .filter_map(|(name, ok, accepted, default)| {
            let value = env.get(&name)?;
            if ok(&value) {
                return None;
            }
            // Headers carry keys to the backend; they must not end up in a log.
            let value = if name.ends_with("_HEADERS") { "(not shown)".into() } else { value };
            Some(Malformed { name, value, accepted, default })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_values_pass() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://otel.example.org/v1/traces"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://[::1]:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d"),
            ("OTEL_EXPORTER_OTLP_HEADERS", ""),
        ]);
        assert_eq!(check(&env), vec![]);
    }

    #[test]
    fn each_bad_value_is_named_with_what_is_accepted() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost port 4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
        ]);
        let found = check(&env);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.iter().all(|m| !m.accepted.is_empty() && !m.default.is_empty()));
        assert_eq!(protocol(&env, "TRACES"), Protocol::HttpProtobuf);
        assert!(endpoint_is_malformed(&env, "TRACES"));
    }

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

    proptest! {
        #[test]
        fn no_value_panics(value in "\\PC{0,60}") {
            let value = value.as_str();
            for (_, ok, _, _) in checks() {
                let _ = ok(value);
            }
        }

        #[test]
        fn urls_with_a_host_and_port_are_endpoints(host in "[a-z][a-z0-9.-]{0,20}", port in 1u16..) {
            let https = format!("https://{host}:{port}/v1/traces");
            let bare = format!("{host}:{port}");
            prop_assert!(is_endpoint(&https));
            prop_assert!(is_endpoint(&bare));
        }
    }
}
