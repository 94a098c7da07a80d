//! OTLP/gRPC: the three `Export` methods.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::{Buf, BufMut, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::Rejected;
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};

use crate::ingest::{Ingest, Refused, Room};
use crate::telemetry::Limit;

use super::response_bytes;

/// A codec that leaves messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
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

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

/// One of OTLP's three collector services.
macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $grpc_name:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            ingest: Ingest,
        }

        impl $name {
            /// A service that hands requests to `ingest`, within its limits.
            pub fn new(ingest: Ingest) -> Self {
                Self { ingest }
            }
        }

        impl NamedService for $name {
            const NAME: &'static str = $grpc_name;
        }

        impl tower::Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = std::pin::Pin<
                Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>,
            >;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Self::Future {
                let ingest = self.ingest.clone();
                Box::pin(async move {
                    let export = concat!("/", $grpc_name, "/Export");
                    if request.uri().path() != export {
                        let method = request.uri().path();
                        let message = format!("no method {method}: expected {export}");
                        return Ok(Status::unimplemented(message).into_http());
                    }
                    Ok(export_call(ingest, $kind, request).await)
                })
            }
        }
    };
}

service!(
    /// `TraceService`.
    TraceService,
    SignalKind::Spans,
    "opentelemetry.proto.collector.trace.v1.TraceService"
);
service!(
    /// `LogsService`.
    LogsService,
    SignalKind::Logs,
    "opentelemetry.proto.collector.logs.v1.LogsService"
);
service!(
    /// `MetricsService`.
    MetricsService,
    SignalKind::Points,
    "opentelemetry.proto.collector.metrics.v1.MetricsService"
);

async fn export_call(
    ingest: Ingest,
    kind: SignalKind,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let limits = ingest.limits();
    let too_large = Arc::new(AtomicBool::new(false));
    let taken = Arc::new(Mutex::new(Taken { room: Some(ingest.room()), refused: None }));
    let request = request.map(|body| limited(body, limits.body, Arc::clone(&too_large)));
    let request =
        request.map(|inner| Body::new(Metered { inner, read: 0, taken: Arc::clone(&taken) }));
    let mut grpc = Grpc::new(RawCodec)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .max_decoding_message_size(limits.decompressed);
    let response = grpc
        .unary(Export { ingest: ingest.clone(), kind, taken: Arc::clone(&taken) }, request)
        .await;
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if status.code() == Code::Ok {
        return response;
    }
    ingest.note_refused_request(kind);
    if let Some(refused) = taken.lock().refused.take() {
        return self::status(refused).into_http();
    }
    // OTLP's clients send again what is OUT_OF_RANGE, tonic's word for a message that is too large.
    // RESOURCE_EXHAUSTED without a `RetryInfo` tells them not to.
    if too_large.load(Ordering::Relaxed) {
        ingest.note_limit(kind, Limit::Body);
        let message = format!("the message has more than {} bytes", limits.body);
        return Status::resource_exhausted(format!("{message}: send smaller batches")).into_http();
    }
    let by_tonic = status.code() == Code::ResourceExhausted && status.details().is_empty();
    if by_tonic || status.code() == Code::OutOfRange {
        // It may have been over both; as it came is what its sender knows.
        let as_it_came = !by_tonic && limits.body <= limits.decompressed;
        ingest.note_limit(kind, if as_it_came { Limit::Body } else { Limit::Decompressed });
        return Status::resource_exhausted(status.message()).into_http();
    }
    response
}

/// `body`, ending in an error beyond `most` bytes of its message, which is noted in `too_large`.
fn limited(body: Body, most: usize, too_large: Arc<AtomicBool>) -> Body {
    // Before the message stand a flag and its length, together 5 bytes.
    let body = Limited::new(body, most.saturating_add(5)).map_err(move |error| {
        if error.is::<LengthLimitError>() {
            too_large.store(true, Ordering::Relaxed);
        }
        Status::from_error(error)
    });
    Body::new(body)
}

/// The room that a message has taken, until the message is whole.
struct Taken {
    room: Option<Room>,
    refused: Option<Refused>,
}

/// A body for which room is taken as it comes; it ends in an error where there is none.
struct Metered {
    inner: Body,
    read: usize,
    taken: Arc<Mutex<Taken>>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.read += data.len();
            let read = self.read;
            let mut taken = self.taken.lock();
            if let Some(Err(refused)) = taken.room.as_mut().map(|room| room.cover(read)) {
                taken.room = None;
                taken.refused = Some(refused);
                return Poll::Ready(Some(Err(Status::resource_exhausted("no room"))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

struct Export {
    ingest: Ingest,
    kind: SignalKind,
    taken: Arc<Mutex<Taken>>,
}

impl UnaryService<Bytes> for Export {
    type Response = Vec<u8>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Vec<u8>>, Status>> + Send>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (ingest, kind) = (self.ingest.clone(), self.kind);
        let room = self.taken.lock().room.take().unwrap_or_else(|| ingest.room());
        Box::pin(async move {
            let body = request.into_inner();
            let accepted = ingest.accept(kind, body, Rejected::default(), room).await;
            let accepted = accepted.map_err(status)?;
            Ok(Response::new(response_bytes(&accepted)))
        })
    }
}

/// The gRPC status of a refusal (OTLP specification, "Failures" and "OTLP/gRPC Throttling").
fn status(refused: Refused) -> Status {
    match refused {
        Refused::Unreadable(message) => Status::invalid_argument(message),
        Refused::TooLarge(message) => Status::resource_exhausted(message),
        Refused::Busy { message, retry_after } => {
            let details = retry_info(retry_after);
            Status::with_details(Code::ResourceExhausted, message, details)
        }
        Refused::Broken(message) => Status::unavailable(message),
    }
}

/// `google.rpc.Status` details with a `google.rpc.RetryInfo`: what tells an OTLP client that a
/// refusal for lack of room is to be tried again, and when.
fn retry_info(after: std::time::Duration) -> Bytes {
    #[derive(prost::Message)]
    struct Duration {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Duration>,
    }
    #[derive(prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    use prost::Message;
    let delay = Duration {
        seconds: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        nanos: after.subsec_nanos() as i32,
    };
    let info = Any {
        type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
        value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
    };
    let status = RpcStatus { code: Code::ResourceExhausted as i32, details: vec![info] };
    Bytes::from(status.encode_to_vec())
}
