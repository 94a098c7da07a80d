//! OTLP/HTTP: `POST /v1/traces`, `/v1/logs`, `/v1/metrics`, protobuf or JSON.

use axum::Router;
use axum::body::Body;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use lacuna_signal::SignalKind;
use lacuna_signal::otlp;
use prost::Message;

use crate::ingest::{Accepted, Ingest, Refused, Room};
use crate::telemetry::Limit;

use super::body::{self, BodyError, Compression};
use super::{response, response_bytes, signal_name};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// When a client is to come again after something failed here.
const BROKEN_RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Bytes of a body beyond the limit that are read before it is given up.
const MAX_DISCARDED: usize = 64 << 20;

#[derive(Clone)]
struct Receiver {
    ingest: Ingest,
}

/// The receiver's routes.
pub fn router(ingest: Ingest) -> Router {
    let receiver = Receiver { ingest };
    SignalKind::ALL
        .into_iter()
        .fold(Router::new(), |router, kind| {
            let export = move |State(receiver): State<Receiver>, headers: HeaderMap, body: Body| {
                receive(receiver, kind, headers, body)
            };
            let path = format!("/v1/{}", signal_name(kind));
            // Written with a slash at the end, an endpoint is the same to most who configure it.
            router.route(&path, post(export)).route(&format!("{path}/"), post(export))
        })
        .layer(DefaultBodyLimit::disable())
        .with_state(receiver)
}

/// The two encodings of OTLP/HTTP.
#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Protobuf,
    Json,
}

/// A refusal with its HTTP status (OTLP specification, "OTLP/HTTP Response").
struct Failure {
    status: StatusCode,
    message: String,
    retry_after: Option<std::time::Duration>,
    /// The limit that it is for.
    limit: Option<Limit>,
}

impl Failure {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, limit: None }
    }

    fn retry(status: StatusCode, message: String, after: std::time::Duration) -> Self {
        Self { retry_after: Some(after), ..Self::new(status, message) }
    }
}

async fn receive(receiver: Receiver, kind: SignalKind, headers: HeaderMap, body: Body) -> Response {
    // Also where the headers are wrong already: see there.
    let mut room = receiver.ingest.room();
    let body = read_body(body, receiver.ingest.limits().body, &mut room).await;
    let (encoding, done) = match encoding(&headers) {
        Ok(encoding) => (encoding, accept(&receiver, kind, encoding, &headers, body, room).await),
        Err(failure) => (Encoding::Protobuf, Err(failure)),
    };
    match done {
        Ok(accepted) => success_response(encoding, kind, &accepted),
        Err(failure) => {
            receiver.ingest.note_refused_request(kind);
            if let Some(limit) = failure.limit {
                receiver.ingest.note_limit(kind, limit);
            }
            failure_response(encoding, failure)
        }
    }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match value.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        PROTOBUF | "application/protobuf" => Ok(Encoding::Protobuf),
        JSON => Ok(Encoding::Json),
        other => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Type is `{other}`: expected {PROTOBUF} or {JSON}"),
        )),
    }
}

async fn accept(
    receiver: &Receiver,
    kind: SignalKind,
    encoding: Encoding,
    headers: &HeaderMap,
    body: Result<Bytes, Failure>,
    room: Room,
) -> Result<Accepted, Failure> {
    let (body, max) = (body?, receiver.ingest.limits().decompressed);
    let compression = compression(headers)?;
    let plain = encoding == Encoding::Protobuf && compression == Compression::Identity;
    let prepare = move || -> Result<_, Failure> {
        let mut room = room;
        let body = compression.open(body, max, &mut room)?;
        let (body, rejected) = match encoding {
            Encoding::Protobuf => (body, otlp::Rejected::default()),
            Encoding::Json => otlp::decode_json(kind, &body)
                .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?,
        };
        Ok((body, rejected, room))
    };
    let (body, rejected, room) = if plain {
        prepare()?
    } else {
        let stopped = |error| BodyError::Stopped(format!("the decoder stopped: {error}"));
        tokio::task::spawn_blocking(prepare).await.map_err(stopped)??
    };
    Ok(receiver.ingest.accept(kind, body, rejected, room).await?)
}

impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(limit, max) => {
                let message = body::too_large(limit, max);
                Self { limit: Some(limit), ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, message) }
            }
            BodyError::Invalid(message) => Self::new(StatusCode::BAD_REQUEST, message),
            BodyError::Refused(refused) => refused.into(),
            BodyError::Stopped(message) => {
                Self::retry(StatusCode::SERVICE_UNAVAILABLE, message, BROKEN_RETRY)
            }
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unreadable(message) => Self::new(StatusCode::BAD_REQUEST, message),
            Refused::TooLarge(message) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            Refused::Busy { message, retry_after } => {
                Self::retry(StatusCode::TOO_MANY_REQUESTS, message, retry_after)
            }
            Refused::Broken(message) => {
                Self::retry(StatusCode::SERVICE_UNAVAILABLE, message, BROKEN_RETRY)
            }
        }
    }
}

/// Reads a body of at most `max` bytes, for which it takes room as they come.
///
/// What is too large, or finds no room, is read on and thrown away, within reason: a client that is still sending when
/// the answer comes, and the connection ends, sees a broken connection, not the answer, and tries
/// again.
async fn read_body(body: Body, max: usize, room: &mut Room) -> Result<Bytes, Failure> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut busy = if announced > max { None } else { room.cover(announced).err() };
    let mut whole =
        BytesMut::with_capacity(if busy.is_some() || announced > max { 0 } else { announced });
    let mut size = 0usize;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let message = format!("the body could not be read: {error}");
            Failure::new(StatusCode::BAD_REQUEST, message)
        })?;
        size = size.saturating_add(chunk.len());
        if busy.is_none() && announced <= max && size <= max {
            match room.cover(size) {
                Ok(()) => whole.extend_from_slice(&chunk),
                Err(refused) => (busy, whole) = (Some(refused), BytesMut::new()),
            }
        } else if size.saturating_sub(max) > MAX_DISCARDED {
            break;
        }
    }
    match busy {
        _ if size > max => Err(BodyError::TooLarge(Limit::Body, max).into()),
        Some(refused) => Err(refused.into()),
        None => Ok(whole.freeze()),
    }
}

fn compression(headers: &HeaderMap) -> Result<Compression, Failure> {
    let name = headers.get(CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?"));
    Compression::named(name).ok_or_else(|| {
        let message = format!("Content-Encoding is `{name}`: expected gzip, zstd or deflate");
        Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    })
}

fn success_response(encoding: Encoding, kind: SignalKind, accepted: &Accepted) -> Response {
    match encoding {
        Encoding::Protobuf => {
            ([(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF))], response_bytes(accepted))
                .into_response()
        }
        Encoding::Json => {
            let field = match kind {
                SignalKind::Spans => "rejectedSpans",
                SignalKind::Logs => "rejectedLogRecords",
                SignalKind::Points => "rejectedDataPoints",
            };
            let body = match response(accepted).partial_success {
                None => serde_json::json!({}),
                // 64-bit integers are strings in protobuf's JSON mapping.
                Some(partial) => serde_json::json!({"partialSuccess": {
                    field: partial.rejected_spans.to_string(),
                    "errorMessage": partial.error_message,
                }}),
            };
            axum::Json(body).into_response()
        }
    }
}

/// `google.rpc.Status` in the request's own encoding.
fn failure_response(encoding: Encoding, failure: Failure) -> Response {
    #[derive(prost::Message)]
    struct RpcStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let code = match failure.status {
        StatusCode::TOO_MANY_REQUESTS => tonic::Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => tonic::Code::Unavailable,
        _ => tonic::Code::InvalidArgument,
    } as i32;
    let mut response = match encoding {
        Encoding::Protobuf => {
            let status = RpcStatus { code, message: failure.message };
            ([(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF))], status.encode_to_vec())
                .into_response()
        }
        Encoding::Json => axum::Json(serde_json::json!({"code": code, "message": failure.message}))
            .into_response(),
    };
    *response.status_mut() = failure.status;
    if let Some(after) = failure.retry_after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}
