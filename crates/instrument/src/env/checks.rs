//! Finding what must be warned of: malformed values, and variables that nothing here reads.

use super::{Lookup, Protocol, SIGNALS};

/// Most records that a queue or a batch may have: the SDK makes room for all of them at start.
pub(super) const MOST_RECORDS: usize = 100_000;
/// Most milliseconds that a delay or a timeout may have, a day.
pub(super) const MOST_MILLIS: u64 = 86_400_000;

const MILLIS: &str = "milliseconds, a whole number from 1 to 86400000";
const RECORDS: &str = "records, a whole number from 1 to 100000";

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
    pub(crate) default: String,
}

/// A variable of the specification that is set and has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unsupported {
    /// The variable.
    pub(crate) name: String,
    /// What to use for the same purpose.
    pub(crate) instead: &'static str,
}

fn is_pairs(value: &str) -> bool {
    value
        .split(',')
        .map(str::trim)
        .filter(|p| !p.is_empty())
        .all(|pair| pair.split_once('=').is_some_and(|(k, _)| !k.trim().is_empty()))
}

fn is_millis(value: &str) -> bool {
    value.parse().is_ok_and(|n| (1..=MOST_MILLIS).contains(&n))
}

fn is_records(value: &str) -> bool {
    value.parse().is_ok_and(|n| (1..=MOST_RECORDS).contains(&n))
}

pub(super) fn is_ratio(value: &str) -> bool {
    value.parse::<f64>().is_ok_and(|r| (0.0..=1.0).contains(&r))
}

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// A check of one variable: name, test, what is accepted, what is used instead. Endpoints are checked
/// where they are read, because what they may be depends on the protocol.
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
    let is_compression: fn(&str) -> bool =
        |v| v.eq_ignore_ascii_case("gzip") || v.eq_ignore_ascii_case("none");
    let is_temporality: fn(&str) -> bool =
        |v| ["cumulative", "delta", "lowmemory"].iter().any(|t| v.eq_ignore_ascii_case(t));

    add("OTEL_SDK_DISABLED", is_bool, "true, false", "false");
    add(
        "OTEL_TRACES_SAMPLER",
        |v| SAMPLERS.contains(&v),
        "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
        "parentbased_always_on",
    );
    add("OTEL_TRACES_SAMPLER_ARG", is_ratio, "a number from 0 to 1", "1");
    add(
        "OTEL_PROPAGATORS",
        |v| v.split(',').all(|p| matches!(p.trim(), "tracecontext" | "baggage" | "none")),
        "a list of tracecontext, baggage, or none",
        "those of the list that are known; tracecontext,baggage where none is",
    );
    add("OTEL_RESOURCE_ATTRIBUTES", is_pairs, "key=value,key=value", "the well-formed pairs only");
    for (processor, delay) in [("BSP", "5000"), ("BLRP", "1000")] {
        let name = |suffix: &str| format!("OTEL_{processor}_{suffix}");
        add(&name("SCHEDULE_DELAY"), is_millis, MILLIS, delay);
        add(&name("MAX_QUEUE_SIZE"), is_records, RECORDS, "2048");
        add(&name("MAX_EXPORT_BATCH_SIZE"), is_records, RECORDS, "512");
    }
    add("OTEL_METRIC_EXPORT_INTERVAL", is_millis, MILLIS, "60000");
    add(
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        is_temporality,
        "cumulative, delta, lowmemory",
        "cumulative",
    );
    for limit in ["ATTRIBUTE", "EVENT", "LINK"] {
        add(
            &format!("OTEL_SPAN_{limit}_COUNT_LIMIT"),
            |v| v.parse::<u32>().is_ok(),
            "a whole number",
            "128",
        );
    }
    for signal in SIGNALS {
        add(&format!("OTEL_{signal}_EXPORTER"), is_exporter, "otlp, none", "otlp");
    }
    for infix in ["", "TRACES_", "LOGS_", "METRICS_"] {
        let name = |suffix: &str| format!("OTEL_EXPORTER_OTLP_{infix}{suffix}");
        add(&name("PROTOCOL"), is_protocol, "grpc, http/protobuf, http/json", "http/protobuf");
        add(&name("TIMEOUT"), is_millis, MILLIS, "10000");
        add(&name("COMPRESSION"), is_compression, "gzip, none", "none");
        add(&name("HEADERS"), is_pairs, "key=value,key=value", "the well-formed pairs only");
    }
    checks
}

/// The general value that a signal's own falls back to, where that is set and can be used.
fn general(env: &impl Lookup, name: &str, ok: fn(&str) -> bool) -> Option<String> {
    let rest = name.strip_prefix("OTEL_EXPORTER_OTLP_")?;
    let of_signal = |signal| rest.strip_prefix(signal)?.strip_prefix('_');
    let suffix = SIGNALS.into_iter().find_map(of_signal)?;
    // Of headers, the well-formed pairs are used.
    let falls_back = matches!(suffix, "PROTOCOL" | "TIMEOUT" | "COMPRESSION");
    let name = format!("OTEL_EXPORTER_OTLP_{suffix}");
    env.get(&name).filter(|value| falls_back && ok(value))
}

/// Every set variable whose value will not be used, endpoints aside.
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
            let default = general(env, &name, ok).unwrap_or_else(|| default.to_owned());
            Some(Malformed { name, value, accepted, default })
        })
        .collect()
}

/// Every set variable of the specification that has no effect.
pub(crate) fn unsupported(env: &impl Lookup) -> Vec<Unsupported> {
    const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT, which bounds each request";
    const SCHEME: &str = "the endpoint's scheme, http:// or https://";
    const ROOTS: &str = "the system's certificates, or SSL_CERT_FILE";
    const NOTHING: &str = "nothing: there is no such setting";
    let mut names: Vec<(String, &'static str)> = [
        ("OTEL_BSP_EXPORT_TIMEOUT", TIMEOUT),
        ("OTEL_BLRP_EXPORT_TIMEOUT", TIMEOUT),
        ("OTEL_METRIC_EXPORT_TIMEOUT", TIMEOUT),
        ("OTEL_LOG_LEVEL", "RUST_LOG"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", NOTHING),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", NOTHING),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", NOTHING),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", NOTHING),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", NOTHING),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", NOTHING),
        ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", NOTHING),
        ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", NOTHING),
        ("OTEL_CONFIG_FILE", "the other variables"),
        ("OTEL_EXPERIMENTAL_CONFIG_FILE", "the other variables"),
    ]
    .map(|(name, instead)| (name.to_owned(), instead))
    .into();
    for infix in ["", "TRACES_", "LOGS_", "METRICS_"] {
        for (suffix, instead) in [
            ("INSECURE", SCHEME),
            ("CERTIFICATE", ROOTS),
            ("CLIENT_CERTIFICATE", NOTHING),
            ("CLIENT_KEY", NOTHING),
        ] {
            names.push((format!("OTEL_EXPORTER_OTLP_{infix}{suffix}"), instead));
        }
    }
    names
        .into_iter()
        .filter(|(name, _)| env.get(name).is_some())
        .map(|(name, instead)| Unsupported { name, instead })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn good_values_pass() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d"),
            ("OTEL_EXPORTER_OTLP_HEADERS", ""),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
        ]);
        assert_eq!(check(&env), vec![]);
        assert_eq!(unsupported(&env), vec![]);
    }

    #[test]
    fn each_bad_value_is_named_with_what_is_accepted() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "either"),
            ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ]);
        let found = check(&env);
        assert_eq!(found.len(), 9, "{found:?}");
        assert!(found.iter().all(|m| !m.accepted.is_empty() && !m.default.is_empty()));
        let propagators = found.iter().find(|m| m.name == "OTEL_PROPAGATORS").unwrap();
        assert!(propagators.default.contains("that are known"), "{propagators:?}");
    }

    #[test]
    fn a_signals_bad_value_is_told_with_the_general_one_that_is_used() {
        let env = HashMap::from([
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3s"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lz4"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "lz4"),
        ]);
        let found = check(&env);
        let told = |name: &str| {
            let name = format!("OTEL_EXPORTER_OTLP_{name}");
            found.iter().find(|m| m.name == name).unwrap().default.as_str()
        };
        assert_eq!(told("TRACES_TIMEOUT"), "3000");
        assert_eq!(told("LOGS_PROTOCOL"), "grpc");
        assert_eq!(told("METRICS_COMPRESSION"), "none", "the general one is no better");
        assert_eq!(told("COMPRESSION"), "none");
        let used = [("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT"];
        assert_eq!(crate::env::millis(&env, used, 10_000).as_millis(), 3_000);
    }

    #[test]
    fn a_variable_without_effect_is_told() {
        let env = HashMap::from([
            ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
            ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", "true"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
        ]);
        let found = unsupported(&env);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].instead.contains("OTEL_EXPORTER_OTLP_TIMEOUT"));
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "\\PC{0,60}") {
            let value = value.as_str();
            for (_, ok, _, _) in checks() {
                let _ = ok(value);
            }
        }
    }
}
