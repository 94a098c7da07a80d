//! What a transaction leaves behind: its span, with how it ended, and its duration.

use super::classify::{Failure, attributes, classify, describe, error_type, leaves_doubt};
use super::metrics::metrics;
use crate::span::{self, CANCELLED};
use crate::switch::{self, Part};
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use sqlx::Error;
use std::borrow::Cow;
use std::time::Instant;

/// What was sent to the server and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Nothing,
    Begin,
    Statement,
    Commit,
    Rollback,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) cx: Context,
    spans: bool,
    started: Instant,
    pub(crate) statements: i64,
    /// A statement failed, and the transaction or the connection with it.
    failed: Option<Failure>,
    sent: Sent,
    /// A statement's end was not seen: it may have failed.
    unsettled: bool,
}

/// Why a transaction ended as it did, beside a statement that failed in it.
enum Cause<'e> {
    Purpose,
    Error(&'e Error),
    Cancelled(&'static str),
}

impl Record {
    pub(crate) fn start(attributes: impl FnOnce() -> Vec<KeyValue>) -> Self {
        let spans = switch::spans(Part::Postgres);
        let cx = Context::map_current(|parent| match spans {
            true => span::start("db.transaction", SpanKind::Internal, attributes(), parent),
            false => parent.clone(),
        });
        Self {
            cx,
            spans,
            started: Instant::now(),
            statements: 0,
            failed: None,
            sent: Sent::Nothing,
            unsettled: false,
        }
    }

    /// Something is on its way to the server. It stays so if nobody waits for the answer.
    pub(crate) fn sends(&mut self, what: Sent) {
        self.sent = what;
        self.unsettled |= what == Sent::Statement;
    }

    /// The server said something, if not all yet.
    pub(crate) fn answered(&mut self) {
        self.sent = Sent::Nothing;
    }

    pub(crate) fn saw(&mut self, error: &Error) {
        self.answered();
        // What the server refused aborts the transaction, and what the connection failed with ends
        // it. The rest is our own reading of an answer, or a value that was never sent.
        let ended = matches!(
            error,
            Error::Database(_)
                | Error::Io(_)
                | Error::Tls(_)
                | Error::Protocol(_)
                | Error::PoolClosed
                | Error::WorkerCrashed
        );
        if ended {
            self.unsettled = false;
            self.failed = Some(classify(error));
        }
    }

    /// A statement succeeded. In a transaction that has failed, the server takes nothing but its end
    /// and `ROLLBACK TO SAVEPOINT`: whatever else succeeds says that the failure was undone.
    pub(crate) fn succeeded(&mut self, ends: bool) {
        self.answered();
        self.unsettled = false;
        if !ends {
            self.failed = None;
        }
    }

    pub(crate) fn failed(&self) -> Option<Failure> {
        self.failed
    }

    /// Whether a statement's end was not seen, so that it may have failed.
    pub(crate) fn unsettled(&self) -> bool {
        self.unsettled
    }

    /// `BEGIN` failed.
    pub(crate) fn not_begun(&mut self, error: &Error) {
        self.end("failed", Cause::Error(error));
    }

    /// `COMMIT` was answered, or the connection broke under it.
    pub(crate) fn committed(&mut self, result: &Result<(), Error>) {
        match result {
            Ok(()) => self.end("committed", Cause::Purpose),
            Err(error) => {
                if leaves_doubt(error) {
                    self.set("lacuna.db.transaction.in_doubt");
                }
                self.end("failed", Cause::Error(error));
            }
        }
    }

    /// Rolled back, on purpose or because a statement had failed.
    pub(crate) fn rolled_back(&mut self, error: Option<&Error>) {
        self.end("rolled_back", error.map_or(Cause::Purpose, Cause::Error));
    }

    /// The transaction was dropped, and its connection closed.
    pub(crate) fn dropped(&mut self) {
        self.set("lacuna.db.transaction.dropped");
        match self.sent {
            Sent::Nothing | Sent::Rollback => self.end("rolled_back", Cause::Purpose),
            Sent::Begin => {
                self.end("failed", Cause::Cancelled("dropped before BEGIN was answered"));
            }
            Sent::Statement => {
                let why = "dropped before a statement was answered";
                self.end("rolled_back", Cause::Cancelled(why));
            }
            Sent::Commit => {
                self.set("lacuna.db.transaction.in_doubt");
                let why = "dropped after COMMIT was sent: it may have been applied";
                self.end("failed", Cause::Cancelled(why));
            }
        }
    }

    fn set(&self, mark: &'static str) {
        if self.spans {
            self.cx.span().set_attribute(KeyValue::new(mark, true));
        }
    }

    fn end(&mut self, result: &'static str, cause: Cause<'_>) {
        let reason = match (self.failed, &cause) {
            (Some(failure), _) => Some(failure.reason()),
            (None, Cause::Error(error)) => Some(classify(error).reason()),
            (None, Cause::Cancelled(_)) => Some(CANCELLED),
            (None, Cause::Purpose) => None,
        };
        if switch::metrics(Part::Postgres) {
            let mut a = vec![KeyValue::new("transaction.result", result)];
            a.extend(reason.map(|reason| KeyValue::new("failure.reason", reason)));
            metrics().transaction.record(self.started.elapsed().as_secs_f64(), &a);
        }
        if !std::mem::take(&mut self.spans) {
            return;
        }
        let span = self.cx.span();
        span.set_attribute(KeyValue::new("transaction.result", result));
        span.set_attribute(KeyValue::new("lacuna.db.transaction.statements", self.statements));
        if let Some(reason) = reason {
            span.set_attribute(KeyValue::new("failure.reason", reason));
            let (error, text): (_, Cow<'static, str>) = match (self.failed, cause) {
                (None, Cause::Error(error)) => {
                    let failure = classify(error);
                    span.set_attributes(attributes(error, failure));
                    (error_type(error, failure), describe(error, failure))
                }
                (None, Cause::Cancelled(text)) => (reason.to_owned(), text.into()),
                _ => (reason.to_owned(), format!("a statement failed: {reason}").into()),
            };
            span::fail(&self.cx, error, text);
        }
        span.end();
    }
}
