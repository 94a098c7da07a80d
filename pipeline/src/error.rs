//! One error for the whole pipeline.

/// What can go wrong in a service, the load generator or the supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PostgreSQL refused, or is not there.
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] sqlx::Error),
    /// Redis refused, or is not there.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Kafka refused, or is not there.
    #[error("Kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// An event that this service cannot read.
    #[error("event: {0}")]
    Event(String),
    /// Another service's HTTP endpoint did not do what was asked.
    #[error("{url}: {reason}")]
    Call {
        /// What was called.
        url: String,
        /// Status or transport error.
        reason: String,
    },
    /// A file or a socket.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path or address.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Telemetry could not be started or flushed.
    #[error("telemetry: {0}")]
    Telemetry(String),
    /// Wrong use: an option that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Something did not happen in time.
    #[error("{0}")]
    Timeout(String),
    /// A transient state that the next attempt is expected to get past.
    #[error("{0}")]
    TryAgain(String),
}

impl Error {
    /// Names the file or address that an I/O error is about.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
