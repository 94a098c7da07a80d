//! Where the pipeline's services and databases are, and what keeps two runs apart.

use clap::Args;

use crate::error::Error;

/// The servers that everything stands on. `eval "$(scripts/services env)"` sets all three.
#[derive(Clone, Debug, Args)]
pub struct Backends {
    /// Redis.
    #[arg(long, env = "REDIS_URL")]
    pub redis_url: String,
    /// PostgreSQL.
    #[arg(long, env = "DATABASE_URL")]
    pub database_url: String,
    /// Kafka's bootstrap servers, separated by commas.
    #[arg(long, env = "KAFKA_BROKERS")]
    pub kafka_brokers: String,
    #[command(flatten)]
    pub namespace: NamespaceArg,
}

/// See [`Namespace`].
#[derive(Clone, Debug, Args)]
pub struct NamespaceArg {
    /// Keeps runs on the same servers apart: a prefix of topics, consumer groups and the schema.
    #[arg(long = "namespace", env = "PIPELINE_NAMESPACE", default_value = "", value_parser = Namespace::parse)]
    pub namespace: Namespace,
}

/// A prefix of topics, consumer groups and of the PostgreSQL schema; empty in the default run.
/// Redis needs none: every key holds a random id.
#[derive(Clone, Debug, Default)]
pub struct Namespace(String);

impl Namespace {
    /// Lower-case letters, digits and `_`, at most 40, so that it fits names of all three servers.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let fits = text.len() <= 40
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Usage(format!("namespace '{text}': up to 40 of a-z, 0-9 and _")))
        }
    }

    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic of an event type.
    pub fn topic(&self, event_type: &str) -> String {
        self.dotted(event_type)
    }

    /// The consumer group of a service's part.
    pub fn group(&self, name: &str) -> String {
        self.dotted(name)
    }

    /// The PostgreSQL schema.
    pub fn schema(&self) -> String {
        if self.0.is_empty() { "huleedu".to_owned() } else { format!("huleedu_{}", self.0) }
    }

    fn dotted(&self, name: &str) -> String {
        if self.0.is_empty() { name.to_owned() } else { format!("{}.{name}", self.0) }
    }
}

/// Where a service listens, and how a supervisor talks to it.
#[derive(Clone, Debug, Args)]
pub struct Listen {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: std::net::IpAddr,
    /// Port; 0 takes a free one.
    #[arg(long)]
    pub port: Option<u16>,
    /// Writes the base URL to this file once the service is ready.
    #[arg(long)]
    pub ready_file: Option<std::path::PathBuf>,
    /// Stops when standard input ends, so that the service cannot outlive who started it.
    #[arg(long)]
    pub stop_on_stdin_close: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_run_has_the_published_names() {
        let plain = Namespace::parse("").unwrap();
        assert_eq!(plain.topic("a.b.v1"), "a.b.v1");
        assert_eq!(plain.schema(), "huleedu");
        let named = Namespace::parse("t1").unwrap();
        assert_eq!(named.topic("a.b.v1"), "t1.a.b.v1");
        assert_eq!(named.schema(), "huleedu_t1");
    }

    #[test]
    fn a_namespace_cannot_leave_its_names() {
        for bad in ["A", "a-b", "a;drop", "ä", &"x".repeat(41)] {
            assert!(Namespace::parse(bad).is_err(), "{bad}");
        }
    }
}
