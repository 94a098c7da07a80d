//! What can stop a measurement.

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file, a socket or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The server refused an export over gRPC.
    #[error("the server refused an export: {0}")]
    Grpc(Box<tonic::Status>),
    /// A connection could not be made or kept.
    #[error("connection: {0}")]
    Transport(String),
    /// The server answered with something that the measurement cannot stand on.
    #[error("{0}")]
    Wrong(String),
}

impl BenchError {
    /// For `map_err`: names what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

impl From<tonic::Status> for BenchError {
    fn from(status: tonic::Status) -> Self {
        Self::Grpc(Box::new(status))
    }
}

impl From<tonic::transport::Error> for BenchError {
    fn from(error: tonic::transport::Error) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Transport(text)
    }
}

impl From<hyper::Error> for BenchError {
    fn from(error: hyper::Error) -> Self {
        Self::Transport(error.to_string())
    }
}

impl From<std::io::Error> for BenchError {
    fn from(source: std::io::Error) -> Self {
        Self::Io { what: "input or output".to_owned(), source }
    }
}
