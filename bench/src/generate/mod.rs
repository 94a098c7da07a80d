//! A deterministic load: request number `i` of a seed is always the same bytes, made by copying a
//! template and filling in ids, times and counters, so that making it costs little more than the
//! copy. Everything that was put into a request can be computed again to check an answer.

mod flows;
mod model;
mod otlp;
mod rng;
mod scribe;
mod wire;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use model::{At, Kind, Node, SERVICES};
use otlp::Place;
pub use rng::Rng;
use scribe::Scribe;
use wire::{FlowValues, Message, Patch};

/// What load to make.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// All else being equal, the same seed gives the same bytes.
    pub seed: u64,
    /// Spans of a request, about.
    pub spans_per_request: usize,
    /// Nanoseconds since the epoch at which the first request's flows begin.
    pub begin: u64,
    /// Nanoseconds from one request's flows to the next one's.
    pub step: u64,
}

/// The flows of one request, before they are written.
#[derive(Debug, Default)]
struct Block {
    items: Vec<Item>,
    flows: Vec<FlowShape>,
    spans: usize,
}

/// A span or a log record of a template.
#[derive(Debug)]
struct Item {
    service: At,
    instance: usize,
    scope: &'static str,
    late: bool,
    span: Message,
    log: Option<Message>,
    failed: bool,
}

/// What a flow contains.
#[derive(Debug, Default, Clone)]
struct FlowShape {
    spans_of_trace: Vec<u32>,
    correlated_at: BTreeMap<At, u32>,
}

/// A request with holes.
#[derive(Debug, Default)]
struct Template {
    bytes: Vec<u8>,
    patches: Vec<Patch>,
    items: u64,
}

/// A trace that was sent.
#[derive(Debug, Clone)]
pub struct SentTrace {
    /// Its id.
    pub id: [u8; 16],
    /// How many spans it has.
    pub spans: u32,
}

/// A flow that was sent.
#[derive(Debug, Clone)]
pub struct SentFlow {
    /// Its correlation id.
    pub correlation: String,
    /// Its traces.
    pub traces: Vec<SentTrace>,
    /// A service with spans that carry the correlation id.
    pub service: &'static str,
    /// When it begins, nanoseconds since the epoch.
    pub begin: u64,
}

/// A load.
#[derive(Debug)]
pub struct Workload {
    shape: Shape,
    blocks: Vec<Block>,
    traces: Vec<Template>,
    logs: Vec<Template>,
    metrics: Template,
}

/// Flow numbers of a block are below this.
const FLOWS: u64 = 1 << 12;
/// Flows of a block begin within this many nanoseconds.
const SPREAD: u64 = 1_500_000_000;

impl Workload {
    /// Builds the templates of a load.
    pub fn new(shape: Shape) -> Self {
        // Enough templates that no cache between here and there sees the same request at once.
        let count = (48 * 512 / shape.spans_per_request.max(1)).clamp(6, 48);
        let mut rng = Rng::new(shape.seed);
        let blocks: Vec<Block> =
            (0..count).map(|_| build_block(&mut rng, shape.spans_per_request)).collect();
        let request = |n: usize, log: bool| {
            let before = (n + blocks.len() - 1) % blocks.len();
            assemble(&blocks[n], &blocks[before], log)
        };
        let traces = (0..count).map(|n| request(n, false)).collect();
        let logs = (0..count).map(|n| request(n, true)).collect();
        let metrics = assemble_metrics();
        Self { shape, blocks, traces, logs, metrics }
    }

    /// Trace export request number `number`, and its number of spans.
    pub fn traces(&self, number: u64) -> (Bytes, u64) {
        self.fill(&self.traces[self.template(number)], number)
    }

    /// The log export request that goes with trace request `number`, and its number of records.
    pub fn logs(&self, number: u64) -> (Bytes, u64) {
        self.fill(&self.logs[self.template(number)], number)
    }

    /// Metrics export request number `number`, and its number of points.
    pub fn metrics(&self, number: u64) -> (Bytes, u64) {
        self.fill(&self.metrics, number)
    }

    /// Spans of trace requests from 0 to below `requests`.
    pub fn spans_of(&self, requests: u64) -> u64 {
        (0..requests).map(|n| self.traces[self.template(n)].items).sum()
    }

    /// How many trace requests it takes to send at least `spans` spans.
    pub fn requests_for(&self, spans: u64) -> u64 {
        let (mut sent, mut requests) = (0, 0);
        while sent < spans {
            sent += self.traces[self.template(requests)].items;
            requests += 1;
        }
        requests
    }

    /// How much of the spans have status ERROR.
    pub fn failed_share(&self) -> f64 {
        let items = || self.blocks.iter().flat_map(|block| &block.items);
        items().filter(|item| item.failed).count() as f64 / items().count().max(1) as f64
    }

    /// A flow that begins in request `number`: the `choice`-th of them, counted around.
    /// All of it has been sent once request `number + 1` has.
    pub fn sent_flow(&self, number: u64, choice: u64) -> SentFlow {
        let block = &self.blocks[self.template(number)];
        let index = (choice % block.flows.len() as u64) as usize;
        let values = self.values(number, index as u64);
        let flow = &block.flows[index];
        let traces = flow.spans_of_trace.iter().enumerate();
        SentFlow {
            correlation: String::from_utf8_lossy(&values.uuid(0)).into_owned(),
            traces: traces
                .map(|(n, spans)| SentTrace { id: values.trace_id(n as u32), spans: *spans })
                .collect(),
            service: flow
                .correlated_at
                .iter()
                .max_by_key(|(_, spans)| **spans)
                .map_or("", |(at, _)| SERVICES[*at as usize].name),
            begin: values.begin,
        }
    }

    fn template(&self, number: u64) -> usize {
        (number % self.blocks.len() as u64) as usize
    }

    fn values(&self, number: u64, flow: u64) -> FlowValues {
        let seed = rng::value(self.shape.seed, (number + 1) * FLOWS + flow);
        let choice = rng::value(seed, 0);
        // Mostly near the usual pace, at times three times slower.
        let slow = if choice.is_multiple_of(37) { 3 } else { 1 };
        FlowValues {
            seed,
            begin: self.shape.begin + number * self.shape.step + (choice >> 8) % SPREAD,
            pace: slow * (700 + (choice >> 40) % 900),
            block: number + 1,
        }
    }

    fn fill(&self, template: &Template, number: u64) -> (Bytes, u64) {
        let early = self.blocks[self.template(number)].flows.len();
        let before = number.wrapping_sub(1);
        // Request 0 carries the late part of a block that nobody sent: spans without parents.
        let late_block = if number == 0 { self.blocks.len() as u64 - 1 } else { before };
        let late = self.blocks[self.template(late_block)].flows.len();
        let mut flows = Vec::with_capacity(early + late);
        flows.extend((0..early as u64).map(|flow| self.values(number, flow)));
        flows.extend((0..late as u64).map(|flow| self.values(late_block, flow)));
        let mut bytes = template.bytes.clone();
        for patch in &template.patches {
            flows[usize::from(patch.flow)].fill(patch.hole, &mut bytes[patch.at as usize..]);
        }
        (Bytes::from(bytes), template.items)
    }
}

fn build_block(rng: &mut Rng, spans: usize) -> Block {
    let mut block = Block::default();
    while block.spans < spans {
        let failing = rng.one_in(4);
        let mut scribe = Scribe::new(rng.next(), failing);
        let roots = flows::any(&mut scribe);
        let mut writer = FlowWriter {
            flow: block.flows.len() as u16,
            instance: rng.below(3),
            spans: 0,
            senders: HashMap::new(),
            shape: FlowShape::default(),
            items: Vec::new(),
        };
        for (trace, (delay, root)) in roots.iter().enumerate() {
            writer.shape.spans_of_trace.push(0);
            writer.write(root, trace as u32, None, *delay);
        }
        block.spans += writer.items.len();
        block.items.append(&mut writer.items);
        block.flows.push(writer.shape);
    }
    block
}

/// Writes the spans and logs of one flow.
struct FlowWriter {
    flow: u16,
    instance: usize,
    spans: u32,
    senders: HashMap<u32, (u32, u32)>,
    shape: FlowShape,
    items: Vec<Item>,
}

impl FlowWriter {
    /// Writes a span and those below it; the microsecond at which it ends.
    fn write(&mut self, node: &Node, trace: u32, parent: Option<u32>, start: u32) -> u32 {
        let span = self.spans;
        self.spans += 1;
        self.shape.spans_of_trace[trace as usize] += 1;
        if let Some(message) = node.sends {
            self.senders.insert(message, (trace, span));
        }
        let pause = node.own / (node.children.len() as u32 + 1);
        let mut now = start + pause;
        for child in &node.children {
            now = self.write(child, trace, Some(span), now) + pause;
        }
        let link = node.takes.and_then(|message| self.senders.get(&message).copied());
        let place = Place { flow: self.flow, trace, span, parent, start, end: now, link };
        if node.attributes.iter().any(|(key, _)| *key == "correlation_id") {
            *self.shape.correlated_at.entry(node.service).or_default() += 1;
        }
        let logged = matches!(node.kind, Kind::Server | Kind::Consumer) || node.fault.is_some();
        self.items.push(Item {
            service: node.service,
            instance: (self.instance + node.service as usize) % 3,
            scope: node.scope,
            // What runs later, or is exported by another process, comes in another request.
            late: trace > 0 || (self.flow % 2 == 1 && node.service != At::Gateway),
            span: otlp::span(node, &place),
            log: logged.then(|| otlp::log(node, &place)),
            failed: node.fault.is_some(),
        });
        now
    }
}

/// Messages by scope, each with the shift of its flow numbers.
type Scopes<'a> = BTreeMap<&'a str, Vec<(&'a Message, u16)>>;

/// A request as a Collector sends it: the early part of `now` and the late part of `before`,
/// grouped by resource and scope.
fn assemble(now: &Block, before: &Block, logs: bool) -> Template {
    let shift = now.flows.len() as u16;
    let early = now.items.iter().filter(|item| !item.late).map(|item| (item, 0));
    let late = before.items.iter().filter(|item| item.late).map(|item| (item, shift));
    let mut groups: BTreeMap<(At, usize), Scopes<'_>> = BTreeMap::new();
    let mut items = 0;
    for (item, shift) in early.chain(late) {
        let message = if logs { item.log.as_ref() } else { Some(&item.span) };
        if let Some(message) = message {
            let group = groups.entry((item.service, item.instance)).or_default();
            group.entry(item.scope).or_default().push((message, shift));
            items += 1;
        }
    }
    let mut request = Message::default();
    for ((service, instance), scopes) in groups {
        let mut by_resource = Message::default();
        by_resource.message(1, &otlp::resource(service, instance));
        for (scope, messages) in scopes {
            let mut by_scope = Message::default();
            by_scope.message(1, &otlp::scope(scope));
            for (message, shift) in messages {
                by_scope.message_of(2, message, shift);
            }
            by_scope.text(3, "https://opentelemetry.io/schemas/1.37.0");
            by_resource.message(2, &by_scope);
        }
        request.message(1, &by_resource);
    }
    Template { bytes: request.bytes, patches: request.patches, items }
}

fn assemble_metrics() -> Template {
    const ROUTES: &[&str] = &["/internal/products/{id}", "/internal/orders", "/internal/quotes"];
    const ALL: [At; 6] = [At::Gateway, At::Catalog, At::Orders, At::Payments, At::Stock, At::Price];
    let mut request = Message::default();
    let mut items = 0;
    for service in ALL {
        for instance in 0..3 {
            let (message, points) = otlp::metrics(service, instance, ROUTES);
            request.message(1, &message);
            items += points;
        }
    }
    Template { bytes: request.bytes, patches: request.patches, items }
}

#[cfg(test)]
mod tests;
