//! Log lines on stdout: one JSON object a line, joined to traces by ids.

use crate::{correlation, outcome};
use jiff::Timestamp;
use opentelemetry::Context as OtelContext;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The fields that every line has; an event's own field of the same name is kept under `fields.`.
const RESERVED: [&str; 5] = ["timestamp", "level", "service", "trace_id", "span_id"];

/// The layer of an event that does not say: what the target's crate is to a service.
pub(crate) fn default_layer(target: &str) -> &'static str {
    let root = target.split("::").next().unwrap_or(target);
    match root {
        "redis" | "rdkafka" | "librdkafka" | "sqlx" | "sqlx_core" | "sqlx_postgres"
        | "lacuna_instrument" => "infrastructure",
        "axum" | "tower" | "tower_http" | "hyper" | "hyper_util" | "h2" | "tonic" | "reqwest"
        | "tokio" | "opentelemetry" | "opentelemetry_sdk" | "opentelemetry-otlp" => "framework",
        _ => "application",
    }
}

/// Where lines go: stdout, or what a test gives.
pub(crate) type Sink = Box<dyn Write + Send>;

thread_local! {
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// This thread writes until this is dropped, also by a panic.
struct Written;

impl Drop for Written {
    fn drop(&mut self) {
        WRITING.set(false);
    }
}

/// Writes events as JSON lines.
pub(crate) struct JsonLines {
    service: String,
    sink: Mutex<Sink>,
}

impl JsonLines {
    pub(crate) fn new(service: String, sink: Sink) -> Self {
        Self { service, sink: Mutex::new(sink) }
    }

    fn line(&self, event: &Event<'_>) -> Map<String, Value> {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = fields.log_target.as_deref().unwrap_or(event.metadata().target());
        let layer = fields.layer.take().unwrap_or_else(|| default_layer(target).to_owned());

        let mut line = Map::with_capacity(fields.other.len() + 10);
        line.insert("timestamp".into(), format!("{:.6}", Timestamp::now()).into());
        line.insert("level".into(), event.metadata().level().as_str().to_ascii_lowercase().into());
        line.insert("message".into(), fields.message.unwrap_or_default().into());
        line.insert("layer".into(), layer.into());
        line.insert("service".into(), self.service.clone().into());
        line.insert("target".into(), target.into());
        OtelContext::map_current(|cx| {
            let span = cx.span();
            let ids = span.span_context();
            if ids.is_valid() {
                line.insert("trace_id".into(), ids.trace_id().to_string().into());
                line.insert("span_id".into(), ids.span_id().to_string().into());
            }
            if let Some(id) = correlation::of(cx) {
                line.insert(correlation::CORRELATION_ID.into(), id.into());
            }
        });
        let mut add = |name: &str, value| {
            let name =
                if RESERVED.contains(&name) { format!("fields.{name}") } else { name.to_owned() };
            line.insert(name, value);
        };
        let is_outcome = target == outcome::TARGET;
        for (name, value) in fields.other {
            let keys = (is_outcome && name == outcome::KEYS).then(|| keys(&value)).flatten();
            match keys {
                Some(keys) => keys.into_iter().for_each(|(name, value)| add(&name, value)),
                None => add(name, value),
            }
        }
        line
    }
}

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let Ok(mut bytes) = serde_json::to_vec(&self.line(event)) else {
            return;
        };
        bytes.push(b'\n');
        // Writing can panic, and the panic is logged: by this thread, which holds the lock.
        if WRITING.replace(true) {
            return;
        }
        let _written = Written;
        // A closed or full stdout must not stop the service: the line is lost, the OTLP copy is not.
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = sink.write_all(&bytes).and_then(|()| sink.flush());
    }
}

#[derive(Default)]
struct Fields {
    message: Option<String>,
    layer: Option<String>,
    log_target: Option<String>,
    other: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = Some(text(value)),
            "layer" => self.layer = Some(text(value)),
            // The `log` crate's records come with their origin as fields.
            "log.target" => self.log_target = Some(text(value)),
            "log.module_path" | "log.file" | "log.line" => {}
            name => self.other.push((name, value)),
        }
    }
}

/// What an outcome's keys say.
fn keys(value: &Value) -> Option<Map<String, Value>> {
    serde_json::from_str(value.as_str()?).ok()
}

fn text(value: Value) -> String {
    match value {
        Value::String(s) => s,
        other => other.to_string(),
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(buf);
            Ok(buf.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(emit: impl FnOnce()) -> Vec<Map<String, Value>> {
        let captured = Captured::default();
        let layer = JsonLines::new("svc".into(), Box::new(captured.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), emit);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }

    #[test]
    fn a_line_has_the_agreed_fields() {
        let lines = lines(|| {
            tracing::warn!(layer = "framework", attempts = 3, ok = false, "gave \"up\"\n")
        });
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "gave \"up\"\n");
        assert_eq!(line["layer"], "framework");
        assert_eq!(line["service"], "svc");
        assert_eq!(line["attempts"], 3);
        assert_eq!(line["ok"], false);
        assert!(line["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok());
        assert!(!line.contains_key("trace_id") && !line.contains_key("correlation_id"));
    }

    #[test]
    fn the_layer_defaults_by_who_speaks() {
        let lines = lines(|| {
            tracing::info!(target: "my_service::handler", "mine");
            tracing::info!(target: "rdkafka::client", "broker");
            tracing::info!(target: "axum::serve", "request");
        });
        let layers: Vec<_> = lines.iter().map(|l| l["layer"].as_str().unwrap()).collect();
        assert_eq!(layers, ["application", "infrastructure", "framework"]);
    }

    #[test]
    fn a_sink_that_panics_loses_its_line_and_no_other() {
        struct Broken(Captured, bool);
        impl Write for Broken {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                assert!(!std::mem::take(&mut self.1), "broken once");
                self.0.write(buf)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let captured = Captured::default();
        let layer = JsonLines::new("svc".into(), Box::new(Broken(captured.clone(), true)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let first = std::panic::catch_unwind(|| tracing::info!("first"));
            assert!(first.is_err());
            tracing::info!("second");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("second") && !text.contains("first"));
    }

    #[test]
    fn an_events_own_field_cannot_forge_the_frame() {
        let lines = lines(|| tracing::info!(service = "other", trace_id = "x", "m"));
        assert_eq!(lines[0]["service"], "svc");
        assert_eq!(lines[0]["fields.service"], "other");
        assert!(!lines[0].contains_key("trace_id"));
    }

    #[test]
    fn the_correlation_id_comes_from_the_context_and_the_event_wins() {
        let lines = lines(|| {
            let _guard = correlation::with(&OtelContext::current(), "c-1").attach();
            tracing::info!("a");
            tracing::info!(correlation_id = "c-2", "b");
        });
        assert_eq!(lines[0]["correlation_id"], "c-1");
        assert_eq!(lines[1]["correlation_id"], "c-2");
    }
}
