//! OTLP/gRPC: the three `Export` methods.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::Rejected;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};

use crate::ingest::{Accepted, Ingest, Refused, Room};
use crate::telemetry::Limit;

use super::body::{self, BodyError, Compression};
use super::response_bytes;

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

/// A refusal, and the limit that it is for.
struct Failure {
    status: Status,
    limit: Option<Limit>,
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, limit: None }
    }
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            // RESOURCE_EXHAUSTED without a `RetryInfo` tells clients not to send it again.
            BodyError::TooLarge(limit, max) => Self {
                status: Status::resource_exhausted(body::too_large(limit, max)),
                limit: Some(limit),
            },
            BodyError::Invalid(message) => Status::invalid_argument(message).into(),
            BodyError::Refused(refused) => status(refused).into(),
            BodyError::Stopped(message) => Status::unavailable(message).into(),
        }
    }
}

async fn export_call(
    ingest: Ingest,
    kind: SignalKind,
    request: http::Request<Body>,
) -> http::Response<Body> {
    match export(&ingest, kind, request).await {
        Ok(accepted) => success(&response_bytes(&accepted)),
        Err(Failure { status, limit }) => {
            ingest.note_refused_request(kind);
            if let Some(limit) = limit {
                ingest.note_limit(kind, limit);
            }
            status.into_http()
        }
    }
}

async fn export(
    ingest: &Ingest,
    kind: SignalKind,
    request: http::Request<Body>,
) -> Result<Accepted, Failure> {
    let limits = ingest.limits();
    let compression = compression(request.headers())?;
    let mut room = ingest.room();
    let (compressed, message) = read_message(request.into_body(), limits.body, &mut room).await?;
    let max = limits.decompressed;
    let (message, room) = match (compressed, compression) {
        (false, _) => (Compression::Identity.open(message, max, &mut room)?, room),
        (true, Compression::Identity) => {
            let why = "the message says that it is compressed, and grpc-encoding does not say how";
            return Err(Status::internal(why).into());
        }
        // Not on a thread that serves connections.
        (true, compression) => {
            let open = move || (compression.open(message, max, &mut room), room);
            let stopped = |error| BodyError::Stopped(format!("the decoder stopped: {error}"));
            let (message, room) = tokio::task::spawn_blocking(open).await.map_err(stopped)?;
            (message?, room)
        }
    };
    Ok(ingest.accept(kind, message, Rejected::default(), room).await.map_err(status)?)
}

/// The encodings of messages that are taken.
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

fn compression(headers: &HeaderMap) -> Result<Compression, Status> {
    let name = headers.get("grpc-encoding").map_or("", |value| value.to_str().unwrap_or("?"));
    let known = Compression::named(name).filter(|found| *found != Compression::Deflate);
    known.ok_or_else(|| {
        let mut metadata = HeaderMap::new();
        metadata.insert("grpc-accept-encoding", ENCODINGS);
        let message = format!("grpc-encoding is `{name}`: expected gzip or zstd");
        let metadata = MetadataMap::from_headers(metadata);
        Status::with_metadata(Code::Unimplemented, message, metadata)
    })
}

/// Before a message stand a flag, whether it is compressed, and its length in 4 bytes (gRPC over
/// HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// The one message of a request, of at most `max` bytes, for which room is taken as they come;
/// whether it is compressed.
async fn read_message(body: Body, max: usize, room: &mut Room) -> Result<(bool, Bytes), Failure> {
    let internal = |why: &str| Failure::from(Status::internal(why));
    let mut body = body.into_data_stream();
    let mut read = BytesMut::new();
    let mut whole = None;
    while let Some(chunk) = body.next().await {
        read.extend_from_slice(&chunk?);
        if let (None, Some((_, length))) = (whole, prefix(&read)) {
            if length > max {
                return Err(BodyError::TooLarge(Limit::Body, max).into());
            }
            let length = whole.insert(PREFIX + length);
            // It takes memory when bytes come, not before.
            read.reserve(length.saturating_sub(read.len()));
        }
        if whole.is_some_and(|whole| read.len() > whole) {
            return Err(internal("there is more than one message in the request"));
        }
        room.cover(read.len()).map_err(BodyError::from)?;
    }
    let (flag, _) = prefix(&read).ok_or_else(|| internal("there is no message in the request"))?;
    if whole != Some(read.len()) {
        return Err(internal("the request ends within its message"));
    }
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(internal("the flag before the message is neither 0 nor 1")),
    };
    Ok((compressed, read.freeze().split_off(PREFIX)))
}

/// The flag and the length before a message.
fn prefix(read: &[u8]) -> Option<(u8, usize)> {
    let [flag, length @ ..] = *read.first_chunk::<PREFIX>()?;
    Some((flag, u32::from_be_bytes(length) as usize))
}

/// A call that succeeded with `message`.
fn success(message: &[u8]) -> http::Response<Body> {
    let mut framed = Vec::with_capacity(PREFIX + message.len());
    framed.push(0);
    // Answers are a few kilobytes at most.
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
    let frames = futures::stream::iter(frames.map(Ok::<_, Infallible>));
    let mut response = http::Response::new(Body::new(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", ENCODINGS);
    response
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
