//! OTLP exporters by the standard variables: http/protobuf, http/json and gRPC.

use crate::env::{self, Lookup, Malformed, Protocol};
use crate::telemetry::InitError;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol as OtlpProtocol, SpanExporter,
    WithExportConfig,
};
use tokio::runtime::Runtime;

/// gRPC with the system's certificates, which tonic uses only when it is told to.
#[cfg(feature = "tls")]
macro_rules! trusting {
    ($builder:ident, $secure:ident) => {{
        use opentelemetry_otlp::WithTonicConfig;
        use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
        if $secure {
            $builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots())
        } else {
            $builder
        }
    }};
}

/// HTTP by a client of our own where the endpoint is https.
#[cfg(feature = "tls")]
macro_rules! secured {
    ($builder:ident, $secure:ident, $runtime:expr, $timeout:ident) => {{
        use crate::https::HttpsClient;
        use opentelemetry_otlp::WithHttpConfig;
        match $runtime.filter(|_| $secure) {
            Some(runtime) => HttpsClient::new(runtime.handle().clone(), $timeout)
                .map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))
                .and_then(|client| $builder.with_http_client(client).build()),
            None => $builder.build(),
        }
    }};
}

/// Without TLS, no endpoint gets here that would need it.
#[cfg(not(feature = "tls"))]
macro_rules! secured {
    ($builder:ident, $secure:ident, $runtime:expr, $timeout:ident) => {{
        let _ = $secure;
        $builder.build()
    }};
}

/// As above.
#[cfg(not(feature = "tls"))]
macro_rules! trusting {
    ($builder:ident, $secure:ident) => {{
        let _ = $secure;
        $builder
    }};
}

/// Builds exporters and keeps what they need to live.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// gRPC and https need a runtime. They get one of their own, so that exporting neither depends on the
    /// service's runtime being alive at shutdown nor competes with its tasks.
    runtime: Option<Runtime>,
    /// What was wrong on the way, to be told when there is somebody to listen.
    pub(crate) problems: Vec<Problem>,
}

/// Something of the environment that an exporter could not take.
#[derive(Debug)]
pub(crate) enum Problem {
    /// An endpoint that is not used.
    Endpoint(Malformed),
    /// What an exporter's builder said, and where the signal goes instead, if anywhere.
    Exporter { signal: &'static str, error: ExporterBuildError, instead: Option<String> },
}

macro_rules! build {
    ($self:ident, $env:ident, $exporter:ident, $signal:literal, $name:literal, $path:literal) => {{
        let protocol = env::protocol($env, $signal);
        let (endpoint, malformed) = env::endpoint($env, $signal, protocol, $path);
        let default = protocol.default_endpoint($path);
        // Two signals share the general endpoint: one warning is enough.
        for malformed in malformed {
            let is_it = |p: &Problem| matches!(p, Problem::Endpoint(known) if known.name == malformed.name);
            if !$self.problems.iter().any(is_it) {
                $self.problems.push(Problem::Endpoint(malformed));
            }
        }
        let own = concat!("OTEL_EXPORTER_OTLP_", $signal, "_TIMEOUT");
        let timeout = env::millis($env, [own, "OTEL_EXPORTER_OTLP_TIMEOUT"], 10_000);
        let secure = endpoint.starts_with("https://");
        if secure || protocol == Protocol::Grpc {
            $self.start_runtime()?;
        }
        provide_cryptography();
        let _guard = $self.runtime.as_ref().map(Runtime::enter);
        let build = |endpoint: String| match protocol {
            Protocol::Grpc => {
                let secure = endpoint.starts_with("https://");
                let builder = $exporter::builder().with_tonic();
                let builder = builder.with_endpoint(endpoint).with_timeout(timeout);
                trusting!(builder, secure).build()
            }
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                let wire = if protocol == Protocol::HttpJson {
                    OtlpProtocol::HttpJson
                } else {
                    OtlpProtocol::HttpBinary
                };
                let secure = endpoint.starts_with("https://");
                let builder = $exporter::builder().with_http().with_protocol(wire);
                let builder = builder.with_endpoint(endpoint).with_timeout(timeout);
                secured!(builder, secure, $self.runtime.as_ref(), timeout)
            }
        };
        // Whatever the builder finds wrong, the service starts.
        let (built, failed) = match build(endpoint) {
            Ok(exporter) => (Some(exporter), None),
            Err(error) => (build(default.clone()).ok(), Some(error)),
        };
        if let Some(error) = failed {
            let instead = built.is_some().then_some(default);
            $self.problems.push(Problem::Exporter { signal: $name, error, instead });
        }
        Ok(built)
    }};
}

/// Gives gRPC a provider, unless the service chose its own.
fn provide_cryptography() {
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Parts {
    fn start_runtime(&mut self) -> Result<(), InitError> {
        if self.runtime.is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("lacuna.otlp")
                .enable_all()
                .build()
                .map_err(InitError::Thread)?;
            self.runtime = Some(runtime);
        }
        Ok(())
    }

    pub(crate) fn spans(&mut self, env: &impl Lookup) -> Result<Option<SpanExporter>, InitError> {
        build!(self, env, SpanExporter, "TRACES", "traces", "v1/traces")
    }

    pub(crate) fn logs(&mut self, env: &impl Lookup) -> Result<Option<LogExporter>, InitError> {
        build!(self, env, LogExporter, "LOGS", "logs", "v1/logs")
    }

    pub(crate) fn metrics(
        &mut self,
        env: &impl Lookup,
    ) -> Result<Option<MetricExporter>, InitError> {
        build!(self, env, MetricExporter, "METRICS", "metrics", "v1/metrics")
    }

    pub(crate) fn into_runtime(self) -> Option<Runtime> {
        self.runtime
    }
}
