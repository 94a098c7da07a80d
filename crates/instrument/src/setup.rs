//! The pieces that `init` puts together: resource, propagation, filters, the panic hook.

use crate::env::Lookup;
use crate::outcome;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

/// The environment's resource attributes; the given name unless the environment has one.
pub(crate) fn resource(service: &str) -> Resource {
    let detected = Resource::builder().build();
    let name = detected
        .get(&opentelemetry::Key::from_static_str("service.name"))
        .map(|v| v.to_string())
        .filter(|name| !name.starts_with("unknown_service"));
    let mut attributes = vec![KeyValue::new("process.pid", i64::from(std::process::id()))];
    if detected.get(&opentelemetry::Key::from_static_str("service.instance.id")).is_none() {
        attributes.push(KeyValue::new("service.instance.id", instance_id()));
    }
    Resource::builder()
        .with_service_name(name.unwrap_or_else(|| service.to_owned()))
        .with_attributes(attributes)
        .build()
}

/// A random id for this run of the process, as the convention asks for.
fn instance_id() -> String {
    use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
    RandomIdGenerator::default().new_trace_id().to_string()
}

pub(crate) fn propagator(env: &impl Lookup) -> TextMapCompositePropagator {
    let list = env.get("OTEL_PROPAGATORS").unwrap_or_else(|| "tracecontext,baggage".into());
    let mut chosen: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![];
    for name in list.split(',').map(str::trim) {
        match name {
            "tracecontext" => chosen.push(Box::new(TraceContextPropagator::new())),
            "baggage" => chosen.push(Box::new(BaggagePropagator::new())),
            _ => {}
        }
    }
    if chosen.is_empty() && list != "none" {
        chosen.push(Box::new(TraceContextPropagator::new()));
        chosen.push(Box::new(BaggagePropagator::new()));
    }
    TextMapCompositePropagator::new(chosen)
}

/// The SDK's own chatter, whose drops are reported once a minute, and that of the exporters' stack.
const QUIET: &str = "opentelemetry=off,opentelemetry_sdk=off,opentelemetry-otlp=off,\
                     opentelemetry-http=off,hyper=warn,hyper_util=warn,h2=warn,reqwest=warn,tonic=warn";

/// `RUST_LOG`, or `info`, without the exporters' chatter and with this crate's warnings, about either of
/// which the list can say something else by their names.
pub(crate) fn log_filter(value: Option<String>) -> (EnvFilter, Option<String>) {
    let usual = || EnvFilter::new(format!("info,{QUIET}"));
    let Some(list) = value else { return (usual(), None) };
    // By itself, so that an error is about what the user wrote.
    if let Err(error) = EnvFilter::try_new(&list) {
        return (usual(), Some(error.to_string()));
    }
    // A bare level that shows warnings shows ours as well, and more if it asks for more.
    let shows_warnings = list
        .split(',')
        .filter_map(|item| item.trim().parse::<LevelFilter>().ok())
        .next_back()
        .is_some_and(|level| level >= LevelFilter::WARN);
    let ours = if shows_warnings { "" } else { "lacuna_instrument=warn," };
    // Of two directives for one target the later one counts.
    match EnvFilter::try_new(format!("{QUIET},{ours}{list}")) {
        Ok(filter) => (filter, None),
        Err(error) => (usual(), Some(error.to_string())),
    }
}

/// The exporters' own stack, which must not produce telemetry about sending telemetry.
fn is_exporting(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    root.starts_with("opentelemetry")
        || matches!(root, "hyper" | "hyper_util" | "h2" | "reqwest" | "tonic")
}

/// Spans become spans. Events become log records, not span events; an `error!` inside a span also
/// goes this way, because it is what marks a `tracing` span as failed.
pub(crate) fn for_spans(metadata: &Metadata<'_>) -> bool {
    !is_exporting(metadata) && (metadata.is_span() || *metadata.level() == Level::ERROR)
}

pub(crate) fn for_logs(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && !is_exporting(metadata) && metadata.target() != outcome::TARGET
}

/// After the usual panic message, sends what is buffered. Only a panic of the main thread or one
/// that will abort waits for it (two seconds at most): a panicking task must not stall the runtime.
/// However many panic at once, one thread flushes at a time.
pub(crate) fn flush_on_panic(
    traces: &SdkTracerProvider,
    logs: &SdkLoggerProvider,
    metrics: &SdkMeterProvider,
) {
    let (traces, logs, metrics) = (traces.clone(), logs.clone(), metrics.clone());
    let flusher = Arc::new(Flusher::new(move || {
        let _ = traces.force_flush();
        let _ = logs.force_flush();
        let _ = metrics.force_flush();
    }));
    let previous = std::panic::take_hook();
    let hook = move |info: &std::panic::PanicHookInfo<'_>| {
        previous(info);
        tracing::error!(layer = "application", panic = %info, "panic");
        let asked = Flusher::ask(&flusher);
        let ends_process = cfg!(panic = "abort") || std::thread::current().name() == Some("main");
        if ends_process {
            flusher.wait(asked, Duration::from_secs(2));
        }
    };
    std::panic::set_hook(Box::new(hook));
}

/// Runs one flush at a time, on a thread of its own; what is asked for meanwhile is one more after it.
struct Flusher {
    flush: Box<dyn Fn() + Send + Sync>,
    state: Mutex<Asked>,
    done: Condvar,
}

#[derive(Default)]
struct Asked {
    running: bool,
    asked: u64,
    done: u64,
}

impl Flusher {
    fn new(flush: impl Fn() + Send + Sync + 'static) -> Self {
        Self { flush: Box::new(flush), state: Mutex::default(), done: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a flush that begins after now; the number to wait for.
    fn ask(this: &Arc<Self>) -> u64 {
        let mut state = this.lock();
        state.asked += 1;
        if !state.running {
            let flusher = this.clone();
            let thread = std::thread::Builder::new().name("lacuna.flush".into());
            state.running = thread.spawn(move || flusher.work()).is_ok();
        }
        state.asked
    }

    fn work(&self) {
        loop {
            let target = self.lock().asked;
            (self.flush)();
            let mut state = self.lock();
            state.done = target;
            self.done.notify_all();
            if state.asked == target {
                state.running = false;
                return;
            }
        }
    }

    fn wait(&self, asked: u64, limit: Duration) {
        let pending = |s: &mut Asked| s.running && s.done < asked;
        let waited = self.done.wait_timeout_while(self.lock(), limit, pending);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    /// The targets of `level` that a filter lets through.
    fn shown(rust_log: Option<&str>) -> Vec<&'static str> {
        use tracing_subscriber::layer::SubscriberExt;
        #[derive(Clone, Default)]
        struct Seen(Arc<Mutex<Vec<&'static str>>>);
        impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Seen {
            fn on_event(
                &self,
                event: &tracing::Event<'_>,
                _: tracing_subscriber::layer::Context<'_, S>,
            ) {
                self.0.lock().unwrap().push(event.metadata().target());
            }
        }
        let seen = Seen::default();
        let (filter, _) = log_filter(rust_log.map(str::to_owned));
        let subscriber = tracing_subscriber::registry().with(filter).with(seen.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "opentelemetry_sdk", "chatter");
            tracing::info!(target: "hyper::client", "chatter");
            tracing::warn!(target: "lacuna_instrument::export", "telemetry was dropped");
            tracing::info!(target: "lacuna_instrument::outcome", "outcome reached");
            tracing::info!(target: "my_app", "line");
        });
        seen.0.lock().unwrap().clone()
    }

    #[test]
    fn the_users_list_wins_only_where_it_names_a_target() {
        let (ours, outcome) = ("lacuna_instrument::export", "lacuna_instrument::outcome");
        assert_eq!(shown(None), [ours, outcome, "my_app"]);
        assert_eq!(shown(Some("debug")), [ours, outcome, "my_app"], "the chatter stays off");
        assert_eq!(shown(Some("error")), [ours], "the required warnings stay");
        assert_eq!(shown(Some("my_app=info")), [ours, "my_app"]);
        assert_eq!(shown(Some("off,lacuna_instrument=off,my_app=info")), ["my_app"]);
        let hyper = "hyper=info,opentelemetry_sdk=info";
        assert_eq!(shown(Some(hyper)), ["opentelemetry_sdk", "hyper::client", ours]);
        assert!(log_filter(Some("my_app=loud".into())).1.is_some());
    }

    #[test]
    fn however_many_ask_one_flush_runs_and_one_more() {
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (released, count) = (Mutex::new(released), Arc::new(AtomicUsize::new(0)));
        let counted = count.clone();
        let flusher = Arc::new(Flusher::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            entered.send(()).unwrap();
            released.lock().unwrap().recv().unwrap();
        }));
        Flusher::ask(&flusher);
        has_entered.recv().unwrap();
        let last = (0..100).map(|_| Flusher::ask(&flusher)).next_back().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 1, "the others wait for this one");
        release.send(()).unwrap();
        release.send(()).unwrap();
        flusher.wait(last, Duration::from_secs(60));
        assert_eq!(count.load(Ordering::SeqCst), 2, "one more for all that asked meanwhile");
    }
}
