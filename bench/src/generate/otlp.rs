//! OTLP's messages, written with holes (opentelemetry-proto 1.x, field numbers as there).

use super::model::{At, Fault, Node, SERVICES, Value};
use super::wire::{Hole, Message};

/// Where a span stands in its flow.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The flow, within the request.
    pub flow: u16,
    /// Its trace, within the flow.
    pub trace: u32,
    /// Its own number, within the flow.
    pub span: u32,
    /// Its parent's number.
    pub parent: Option<u32>,
    /// Microseconds after the flow's begin.
    pub start: u32,
    /// Microseconds after the flow's begin.
    pub end: u32,
    /// The trace and span that sent the message which this span takes.
    pub link: Option<(u32, u32)>,
}

/// Streams of numbers for holes of one flow that must not repeat one another.
const SIZES: u32 = 1 << 24;
const NUMBERS: u32 = 2 << 24;

fn any_text(text: &str) -> Message {
    let mut value = Message::default();
    value.text(1, text);
    value
}

fn pair(key: &str, value: &Message) -> Message {
    let mut pair = Message::default();
    pair.text(1, key);
    pair.message(2, value);
    pair
}

fn pair_text(key: &str, text: &str) -> Message {
    pair(key, &any_text(text))
}

fn any(value: &Value, place: &Place, index: usize) -> Message {
    let mut out = Message::default();
    let number = place.span * 16 + index as u32;
    match value {
        Value::Text(text) => out.text(1, text),
        Value::Bool(truth) => out.uint(2, u64::from(*truth)),
        Value::Int(number) => out.uint(3, *number),
        Value::Double => out.open(4, place.flow, Hole::Double(NUMBERS + number)),
        Value::Offset => out.open(3, place.flow, Hole::Offset(number)),
        Value::Size => out.open(3, place.flow, Hole::Size(SIZES + number)),
        Value::Uuid(before, uuid) => {
            out.open_text(1, place.flow, before, Hole::Uuid(*uuid), "");
        }
        Value::Path(before, after) => {
            // The same eight digits through the whole flow: a flow is about one order or product.
            out.open_text(1, place.flow, before, Hole::Digits(NUMBERS), after);
        }
        Value::Texts(texts) => {
            let mut list = Message::default();
            for text in texts {
                list.message(1, &any_text(text));
            }
            out.message(5, &list);
        }
    }
    out
}

const STACK: &str = "\n    at shop.domain.Repository.update(Repository.java:214)\n    at shop.domain.OrderService.lambda$place$3(OrderService.java:131)\n    at io.shop.runtime.Retry.call(Retry.java:58)\n    at io.shop.runtime.Worker.run(Worker.java:402)\n    at java.base/java.util.concurrent.ThreadPoolExecutor.runWorker(ThreadPoolExecutor.java:1144)\n    at java.base/java.lang.Thread.run(Thread.java:1583)";

fn exception(fault: &Fault, place: &Place) -> Message {
    let mut event = Message::default();
    event.open(1, place.flow, Hole::Time(place.end.saturating_sub(5)));
    event.text(2, "exception");
    event.message(3, &pair_text("exception.type", fault.class));
    event.message(3, &pair_text("exception.message", fault.message));
    let stack = format!("{}: {}{STACK}", fault.class, fault.message);
    event.message(3, &pair_text("exception.stacktrace", &stack));
    event
}

/// A `Span`.
pub fn span(node: &Node, place: &Place) -> Message {
    let mut out = Message::default();
    out.open(1, place.flow, Hole::TraceId(place.trace));
    out.open(2, place.flow, Hole::SpanId(place.span));
    if let Some(parent) = place.parent {
        out.open(4, place.flow, Hole::SpanId(parent));
    }
    out.text(5, &node.name);
    out.uint(6, node.kind as u64);
    out.open(7, place.flow, Hole::Time(place.start));
    out.open(8, place.flow, Hole::Time(place.end));
    for (index, (key, value)) in node.attributes.iter().enumerate() {
        out.message(9, &pair(key, &any(value, place, index)));
    }
    if let Some(fault) = &node.fault {
        out.message(11, &exception(fault, place));
    }
    if let Some((trace, span)) = place.link {
        let mut link = Message::default();
        link.open(1, place.flow, Hole::TraceId(trace));
        link.open(2, place.flow, Hole::SpanId(span));
        link.fixed32(6, 0x301);
        out.message(13, &link);
    }
    let mut status = Message::default();
    if let Some(fault) = &node.fault {
        status.text(2, fault.message);
        status.uint(3, 2);
    }
    out.message(15, &status);
    out.fixed32(16, 0x101);
    out
}

/// The `LogRecord` that a service writes about a span.
pub fn log(node: &Node, place: &Place) -> Message {
    let mut out = Message::default();
    out.open(1, place.flow, Hole::Time(place.start + node.own / 3));
    let (number, text) = if node.fault.is_some() { (17, "ERROR") } else { (9, "INFO") };
    out.uint(2, number);
    out.text(3, text);
    let mut body = Message::default();
    match &node.fault {
        None => {
            let before = format!("{} done, correlation ", node.name);
            body.open_text(1, place.flow, &before, Hole::Uuid(0), "");
        }
        Some(fault) => body.text(1, format!("{} failed: {}", node.name, fault.message)),
    }
    out.message(5, &body);
    let mut id = Message::default();
    id.open(1, place.flow, Hole::Uuid(0));
    out.message(6, &pair("correlation_id", &id));
    out.message(6, &pair_text("layer", "application"));
    out.message(6, &pair_text("log.logger", node.scope));
    out.fixed32(8, 1);
    out.open(9, place.flow, Hole::TraceId(place.trace));
    out.open(10, place.flow, Hole::SpanId(place.span));
    out.open(11, place.flow, Hole::Time(place.start + node.own / 3));
    out
}

/// The `Resource` of a service's instance.
pub fn resource(service: At, instance: usize) -> Message {
    let about = &SERVICES[service as usize];
    let mut out = Message::default();
    let seed = 7_000 + 16 * service as u64 + instance as u64;
    let pod = format!("{}-{:010x}-{instance}", about.name, super::rng::value(seed, 0) >> 24);
    let id = format!("{:016x}{:016x}", super::rng::value(seed, 1), super::rng::value(seed, 2));
    for (key, value) in [
        ("service.name", about.name),
        ("service.namespace", "shop"),
        ("service.version", about.version),
        ("service.instance.id", &id),
        ("deployment.environment.name", "production"),
        ("k8s.namespace.name", "shop-prod"),
        ("k8s.pod.name", &pod),
        ("host.name", ["node-a-17", "node-b-03", "node-c-22"][instance % 3]),
        ("telemetry.sdk.language", about.language),
        ("telemetry.sdk.name", "opentelemetry"),
    ] {
        out.message(1, &pair_text(key, value));
    }
    out
}

/// An `InstrumentationScope`.
pub fn scope(name: &str) -> Message {
    let mut out = Message::default();
    out.text(1, name);
    out.text(2, "1.24.0");
    out
}

/// The `ResourceMetrics` of a service's instance: counters, gauges and histograms.
/// Returns the message and its number of points.
pub fn metrics(service: At, instance: usize, routes: &[&str]) -> (Message, u64) {
    let mut scope_metrics = Message::default();
    scope_metrics.message(1, &scope("shop.meter"));
    let mut points = 0;
    let point = |attributes: u32, key: &str, value: &str| {
        let mut point = Message::default();
        point.message(attributes, &pair_text(key, value));
        point.fixed64(2, 1_790_000_000_000_000_000);
        point.open(3, 0, Hole::Time(0));
        point
    };
    for name in
        ["http.server.active_requests", "process.memory.usage", "db.client.connection.count"]
    {
        let mut gauge = Message::default();
        for (n, state) in ["idle", "used"].into_iter().enumerate() {
            let mut value = point(7, "state", state);
            value.open(4, 0, Hole::Double(service as u32 * 64 + instance as u32 * 8 + n as u32));
            gauge.message(1, &value);
            points += 1;
        }
        let mut metric = Message::default();
        metric.text(1, name);
        metric.text(3, "1");
        metric.message(5, &gauge);
        scope_metrics.message(2, &metric);
    }
    let (mut sum, mut histogram) = (Message::default(), Message::default());
    for (n, route) in routes.iter().enumerate() {
        let mut value = point(7, "http.route", route);
        value.open(6, 0, Hole::Counter(10 + n as u32));
        sum.message(1, &value);
        let mut value = point(9, "http.route", route);
        let weights: Vec<u32> = (1..=12).collect();
        value.open(4, 0, Hole::Counter(weights.iter().sum()));
        value.open(5, 0, Hole::Double(n as u32));
        let mut bounds = Message::default();
        let mut counts = Message::default();
        for (n, weight) in weights.iter().enumerate() {
            counts.packed_hole(0, Hole::Counter(*weight));
            if n > 0 {
                bounds.bytes.extend_from_slice(&(0.005 * f64::from(1 << n)).to_le_bytes());
            }
        }
        value.message(6, &counts);
        value.message(7, &bounds);
        histogram.message(1, &value);
        points += 2;
    }
    sum.uint(2, 2);
    sum.uint(3, 1);
    histogram.uint(2, 2);
    for (name, unit, field, data) in [
        ("http.server.request.count", "{request}", 7, sum),
        ("http.server.request.duration", "s", 9, histogram),
    ] {
        let mut metric = Message::default();
        metric.text(1, name);
        metric.text(3, unit);
        metric.message(field, &data);
        scope_metrics.message(2, &metric);
    }
    let mut out = Message::default();
    out.message(1, &resource(service, instance));
    out.message(2, &scope_metrics);
    (out, points)
}
