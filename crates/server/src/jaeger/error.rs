//! Errors of the query API and the two shapes in which they go out.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::source::SourceError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// A parameter cannot be read or makes no sense.
    #[error("{0}")]
    Bad(String),
    /// Nothing has that id.
    #[error("{0}")]
    NotFound(String),
    /// The feature is not there.
    #[error("{0}")]
    NotImplemented(String),
    /// The request body is too large.
    #[error("{0}")]
    TooLarge(String),
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The worker of the request ended without an answer.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ApiError {
    /// A request that is wrong.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::Bad(message.into())
    }

    /// The HTTP status that says so.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Source(SourceError::Busy(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Source(SourceError::TooMuch(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Source(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error as v1 sends it: the usual envelope with null data and one error.
    pub fn into_v1(self) -> Response {
        let status = self.log();
        let errors = vec![StructuredError::new(status, self.to_string())];
        error_response(status, &Envelope::<()> { errors: Some(errors), ..Envelope::of(None) })
    }

    /// The error as v3 sends it: `{"error":{"httpCode":…,"message":…}}`.
    pub fn into_v3(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Details,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Details {
            http_code: u16,
            message: String,
        }
        let status = self.log();
        let error = Details { http_code: status.as_u16(), message: self.to_string() };
        error_response(status, &Body { error })
    }

    fn log(&self) -> StatusCode {
        let status = self.status();
        let expected = [StatusCode::NOT_IMPLEMENTED, StatusCode::SERVICE_UNAVAILABLE];
        if status.is_server_error() && !expected.contains(&status) {
            tracing::error!(error = %self, "Jaeger query failed");
        }
        status
    }
}

/// Jaeger sends its error objects through Go's `http.Error`: JSON that calls itself plain text and
/// ends with a newline.
fn error_response(status: StatusCode, body: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(body).unwrap_or_default();
    body.push(b'\n');
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What every v1 answer but the metrics is wrapped in.
#[derive(Debug, Serialize)]
pub struct Envelope<T> {
    /// The answer.
    pub data: Option<T>,
    /// Number of items where Jaeger counts them: services and operations; 0 elsewhere.
    pub total: usize,
    /// Always 0.
    pub limit: usize,
    /// Always 0.
    pub offset: usize,
    /// What went wrong beside the answer, or instead of it.
    pub errors: Option<Vec<StructuredError>>,
}

impl<T> Envelope<T> {
    /// An envelope without errors.
    pub fn of(data: Option<T>) -> Self {
        Self { data, total: 0, limit: 0, offset: 0, errors: None }
    }

    /// The same with what the answer lacks among its errors, without a code: those are for what
    /// failed.
    #[must_use]
    pub fn noting(self, warnings: Vec<String>) -> Self {
        let notes: Vec<_> = warnings.into_iter().map(StructuredError::note).collect();
        Self { errors: (!notes.is_empty()).then_some(notes), ..self }
    }
}

impl<T> Envelope<Vec<T>> {
    /// An envelope around a counted list, and what is missing from it.
    pub fn listed(items: Vec<T>, warnings: Vec<String>) -> Self {
        Self { total: items.len(), ..Self::of(Some(items)) }.noting(warnings)
    }
}

/// One error in an [`Envelope`].
#[derive(Debug, Serialize)]
pub struct StructuredError {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    msg: String,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl StructuredError {
    fn new(status: StatusCode, msg: String) -> Self {
        Self { code: Some(status.as_u16()), msg, trace_id: None }
    }

    /// A part of the request is wrong; the rest is answered.
    pub fn bad_request(msg: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, msg)
    }

    /// Something is missing from the answer.
    pub fn note(msg: String) -> Self {
        Self { code: None, msg, trace_id: None }
    }

    /// One of several traces that were asked for is not there.
    pub fn trace_not_found(trace_id: String) -> Self {
        Self { code: None, msg: TRACE_NOT_FOUND.to_owned(), trace_id: Some(trace_id) }
    }
}

/// Jaeger's words for an unknown trace id in v1.
pub const TRACE_NOT_FOUND: &str = "trace not found";
