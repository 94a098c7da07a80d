//! Servers that keep nothing: what transport, and transport with decoding, cost by themselves.

use std::net::Ipv4Addr;

use bytes::Bytes;
use clap::ValueEnum;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::error::BenchError;
use crate::grpc::Raw;
use crate::print;

/// What the sink does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SinkKind {
    /// Decodes it with prost, as tonic's generated service does, and drops it.
    Prost,
    /// Drops the bytes.
    Raw,
}

const LARGEST: usize = 64 << 20;

/// Serves until killed; prints the port first.
pub async fn serve(kind: SinkKind) -> Result<(), BenchError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    print::line(&listener.local_addr()?.port().to_string());
    let incoming = TcpListenerStream::new(listener);
    // As `lacuna serve` has them: the comparison is about what comes after transport.
    let mut server = Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .tcp_nodelay(true);
    match kind {
        SinkKind::Prost => {
            let service = TraceServiceServer::new(Decoder)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(LARGEST);
            server.add_service(service).serve_with_incoming(incoming).await?;
        }
        SinkKind::Raw => {
            server.add_service(RawService).serve_with_incoming(incoming).await?;
        }
    }
    Ok(())
}

struct Decoder;

#[tonic::async_trait]
impl TraceService for Decoder {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[derive(Clone)]
struct RawService;

impl NamedService for RawService {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl tonic::codegen::Service<http::Request<Body>> for RawService {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(LARGEST);
            Ok(grpc.unary(Forget, request).await)
        })
    }
}

struct Forget;

impl UnaryService<Bytes> for Forget {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        std::hint::black_box(request.into_inner());
        std::future::ready(Ok(Response::new(Bytes::new())))
    }
}
