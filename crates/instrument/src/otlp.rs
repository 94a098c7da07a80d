//! OTLP exporters by the standard variables: http/protobuf, http/json and gRPC.

use crate::env::{self, Lookup, Protocol};
use crate::telemetry::InitError;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol as OtlpProtocol, SpanExporter,
    WithExportConfig,
};
use tokio::runtime::Runtime;

/// Builds exporters and keeps what they need to live.
#[derive(Debug)]
pub(crate) struct Parts {
    /// gRPC needs a runtime. It gets one of its own, so that exporting neither depends on the
    /// service's runtime being alive at shutdown nor competes with its tasks.
    runtime: Option<Runtime>,
}

macro_rules! build {
    ($self:ident, $env:ident, $exporter:ident, $signal:literal, $name:literal, $path:literal) => {{
        let protocol = env::protocol($env, $signal);
        let endpoint =
            env::endpoint_is_malformed($env, $signal).then(|| protocol.default_endpoint($path));
        let _guard = $self.enter(protocol)?;
        let built: Result<$exporter, ExporterBuildError> = match protocol {
            Protocol::Grpc => {
                let builder = $exporter::builder().with_tonic();
                match endpoint {
                    Some(endpoint) => builder.with_endpoint(endpoint).build(),
                    None => builder.build(),
                }
            }
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                let wire = if protocol == Protocol::HttpJson {
                    OtlpProtocol::HttpJson
                } else {
                    OtlpProtocol::HttpBinary
                };
                let builder = $exporter::builder().with_http().with_protocol(wire);
                match endpoint {
                    Some(endpoint) => builder.with_endpoint(endpoint).build(),
                    None => builder.build(),
                }
            }
        };
        built.map_err(|source| InitError::Exporter { signal: $name, source })
    }};
}

impl Parts {
    pub(crate) fn new() -> Self {
        Self { runtime: None }
    }

    fn enter(
        &mut self,
        protocol: Protocol,
    ) -> Result<Option<tokio::runtime::EnterGuard<'_>>, InitError> {
        if protocol != Protocol::Grpc {
            return Ok(None);
        }
        if self.runtime.is_none() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("lacuna.otlp")
                .enable_all()
                .build()
                .map_err(InitError::Thread)?;
            self.runtime = Some(runtime);
        }
        Ok(self.runtime.as_ref().map(Runtime::enter))
    }

    pub(crate) fn spans(&mut self, env: &impl Lookup) -> Result<SpanExporter, InitError> {
        build!(self, env, SpanExporter, "TRACES", "traces", "v1/traces")
    }

    pub(crate) fn logs(&mut self, env: &impl Lookup) -> Result<LogExporter, InitError> {
        build!(self, env, LogExporter, "LOGS", "logs", "v1/logs")
    }

    pub(crate) fn metrics(&mut self, env: &impl Lookup) -> Result<MetricExporter, InitError> {
        build!(self, env, MetricExporter, "METRICS", "metrics", "v1/metrics")
    }

    pub(crate) fn into_runtime(self) -> Option<Runtime> {
        self.runtime
    }
}
