//! OTLP/gRPC with messages that are encoded already.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::error::BenchError;

/// A codec that leaves messages as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Exporter {
    grpc: Grpc<Channel>,
}

/// The path of the trace service's `Export`.
pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// The path of the log service's `Export`.
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
/// The path of the metrics service's `Export`.
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

impl Exporter {
    /// Connects to a port of this machine. With `gzip`, messages are compressed as they are sent.
    pub async fn connect(port: u16, gzip: bool) -> Result<Self, BenchError> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        let mut grpc = Grpc::new(endpoint.connect().await?);
        if gzip {
            grpc = grpc.send_compressed(tonic::codec::CompressionEncoding::Gzip);
        }
        Ok(Self { grpc })
    }

    /// Sends one export request and waits for its success.
    pub async fn export(&mut self, path: &'static str, body: Bytes) -> Result<Bytes, BenchError> {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static(path);
        let response = self.grpc.unary(Request::new(body), path, Raw).await?;
        Ok(response.into_inner())
    }
}
