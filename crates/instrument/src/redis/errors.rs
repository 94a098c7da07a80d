//! What an answer says of a call: its error's type and words, without the server's own.

use opentelemetry::StringValue;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use std::borrow::Cow;

/// What a call can be answered with.
pub(crate) trait Answer {
    /// The server's error inside the answer.
    fn error(&self) -> Option<RedisError>;
}

impl Answer for () {
    fn error(&self) -> Option<RedisError> {
        None
    }
}

impl Answer for Value {
    fn error(&self) -> Option<RedisError> {
        match self {
            Value::ServerError(e) => Some(e.clone().into()),
            _ => None,
        }
    }
}

impl Answer for Vec<Value> {
    /// The first error of a pipeline, or of the `EXEC` at its end.
    fn error(&self) -> Option<RedisError> {
        self.iter().find_map(|value| match value {
            Value::Array(items) => items.iter().find_map(Answer::error),
            value => value.error(),
        })
    }
}

impl Answer for Option<Vec<Value>> {
    fn error(&self) -> Option<RedisError> {
        self.as_ref().and_then(Answer::error)
    }
}

/// The server's error prefix: `WRONGTYPE`. For a pipeline or an `EXEC`, that of the first command
/// which failed.
pub(crate) fn server_code(error: &RedisError) -> Option<String> {
    if let Some(errors) = error.clone().into_server_errors() {
        return errors.first().map(|(_, e)| e.code().to_owned());
    }
    error.code().map(str::to_owned)
}

/// What went wrong, without the server's message: that quotes arguments (an unknown command's).
pub(crate) fn describe(error: &RedisError) -> Cow<'static, str> {
    let kind = error_type(error);
    let category = match error.kind() {
        // redis-rs takes it for a script's.
        ErrorKind::Server(ServerErrorKind::ExecAbort) => "refused, and EXEC with it",
        _ => error.category(),
    };
    match category {
        category if category == kind.as_str() => kind.as_str().to_owned().into(),
        category => format!("{}: {category}", kind.as_str()).into(),
    }
}

/// `error.type`: the server's error prefix, or what happened to the connection.
pub(crate) fn error_type(error: &RedisError) -> StringValue {
    if error.is_timeout() {
        "timeout".into()
    } else if error.is_connection_dropped() || error.is_io_error() {
        "connection_lost".into()
    } else if let Some(code) = server_code(error) {
        code.into()
    } else {
        error.category().to_owned().into()
    }
}
