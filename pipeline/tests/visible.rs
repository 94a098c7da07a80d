//! What the pipeline shows of itself: one essay at every hop, and each switch.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use support::metrics::Scrape;
use support::{Collected, Pipeline, Placed, Span, Trace};

const FILE: &str = "file_service";
const ELS: &str = "essay_lifecycle_service";
const BOS: &str = "batch_orchestrator_service";
const PROVISIONED: &str = "huleedu.file.essay.content.provisioned.v1";
const ASSIGNED: &str = "huleedu.els.essay.slot.assigned.v1";
const READY: &str = "huleedu.els.batch.essays.ready.v1";

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

/// One event's way from a span through serialising, the breaker, the broker and deserialising into
/// the consumer of another service, linked and committed there.
fn assert_hop<'a>(trace: &Trace<'a>, from: &Span, event: &str, to: &str) -> &'a Span {
    let serialized = trace.under(from, "kafka.serialize");
    assert!(serialized.iter().any(|span| span.attribute("event_type") == event), "{serialized:?}");
    let produced = trace.one(&from.service, &format!("kafka.produce.{event}"));
    let guarded = trace.by_id[produced.parent_id.as_str()];
    let breaker =
        format!("circuit_breaker.{}.kafka_producer.publish", from.service.replace('_', "-"));
    assert_eq!((guarded.name.as_str(), guarded.attribute("circuit.state")), (&*breaker, "closed"));
    assert_eq!(guarded.attribute("circuit.call_result"), "success");
    assert_eq!(guarded.parent_id, from.span_id);

    let consumed = trace.one(to, &format!("kafka.consume.{event}"));
    assert_eq!((produced.kind, consumed.kind), (PRODUCER, CONSUMER));
    assert_eq!(consumed.parent_id, produced.span_id);
    assert_eq!(consumed.links, [produced.span_id.as_str()]);
    for at in ["kafka.partition", "kafka.offset", "server.address", "server.port"] {
        assert_eq!(consumed.attribute(at), produced.attribute(at), "{at}");
        assert!(!produced.attribute(at).is_empty(), "{at}");
    }
    trace.under(consumed, "kafka.deserialize");
    trace.under(consumed, "kafka.commit");
    consumed
}

/// Scenario: one essay fills its batch.
/// Guarantees: one trace from the upload to the batch's ready event has every hop of every part, each
/// with the correlation id; so has every log line of every layer; what business achieved is said.
#[tokio::test(flavor = "multi_thread")]
async fn one_essay_is_seen_at_every_hop() {
    let pipeline = Pipeline::start().await;
    let placed = pipeline.place_one().await;
    let folder = pipeline.log_folder();
    let collected = pipeline.stop().await;
    let trace = Trace::of(&collected, &placed.trace_id);

    // The upload, and the question to BOS that it asks.
    let upload = trace.one(FILE, "POST /v1/batches/{id}/files");
    assert_eq!((upload.kind, &upload.parent_id), (SERVER, &placed.caller_span_id));
    assert_eq!(upload.attribute("http.response.status_code"), "201");
    let asked = trace.under(upload, "GET /v1/batches/{id}")[0];
    let answered = trace.one(BOS, "GET /v1/batches/{id}");
    assert_eq!((asked.kind, answered.kind), (CLIENT, SERVER));
    assert_eq!(answered.parent_id, asked.span_id);
    assert_query(&trace, answered, "SELECT batches");
    assert_query(&trace, upload, "INSERT provisioned_essays");

    // First hop: into ELS, where Redis gives the slot and PostgreSQL keeps it.
    let consumed = assert_hop(&trace, upload, PROVISIONED, ELS);
    assert_eq!(consumed.attribute("essay_id"), placed.essay_id);
    assert_eq!(trace.under(consumed, "SET").len(), 2, "the idempotency layer's marks");
    let transaction = trace.under(consumed, "redis.transaction.assign_slot_atomic")[0];
    assert_eq!(transaction.attribute("transaction.result"), "success");
    assert_eq!(transaction.attribute("attempts"), "1");
    for step in
        ["redis.watch.batch_slots", "redis.hexists.assignments", "redis.scard.available_slots"]
    {
        trace.under(transaction, step);
    }
    let execute = trace.under(transaction, "redis.transaction.execute")[0];
    for step in ["redis.spop.available_slots", "redis.hset.assignments"] {
        assert_eq!(trace.under(execute, step)[0].attribute("lacuna.redis.result"), "value");
    }
    let written = trace.under(consumed, "db.transaction")[0];
    assert_eq!(written.attribute("transaction.result"), "committed");
    for statement in ["BEGIN", "INSERT essay_states", "UPDATE slot_batches", "COMMIT"] {
        assert_query(&trace, written, statement);
    }
    trace.under(consumed, "db.connection");
    trace.one(ELS, &format!("kafka.produce.{ASSIGNED}"));

    // Second hop: the batch is ready.
    let ready = assert_hop(&trace, consumed, READY, BOS);
    assert_query(&trace, ready, "UPDATE batches");
    assert!(trace.above(ready).ends_with(&["POST /v1/batches/{id}/files"]));

    let services: BTreeSet<&str> = trace.spans.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from([FILE, ELS, BOS]));
    for span in &trace.spans {
        assert!(!span.is_error, "{span:?}");
        let expected = correlation_id_of(span, &trace, &placed);
        assert_eq!(span.attribute("correlation_id"), expected, "{} {}", span.service, span.name);
    }
    // Where the time went: each span lies after what caused it, and the hops follow one another.
    for span in &trace.spans {
        let parent = trace.by_id.get(span.parent_id.as_str());
        assert!(span.end >= span.start && parent.is_none_or(|p| span.start >= p.start), "{span:?}");
    }
    assert!(asked.start >= upload.start && asked.end <= upload.end);
    assert!(consumed.start >= upload.start && ready.start >= written.end);
    for group in [ELS, BOS] {
        let assigned = collected.named("kafka.partition.assignment");
        assert!(assigned.into_iter().any(|span| span.service == group), "{group}");
    }

    assert_outcomes(&collected, &placed);
    assert_logs(&collected, &folder, &trace, &placed);
}

/// The correlation id that a span of the trace has, and every log line in it.
fn correlation_id_of<'p>(span: &Span, trace: &Trace<'_>, placed: &'p Placed) -> &'p str {
    // The ready event is about the batch, and carries the batch's id from its sending on.
    let sent = format!("kafka.produce.{READY}");
    let of_batch = span.name == sent || trace.above(span).contains(&sent.as_str());
    if of_batch { &placed.batch_correlation_id } else { &placed.correlation_id }
}

fn assert_query(trace: &Trace<'_>, parent: &Span, summary: &str) {
    let queries = trace.under(parent, "db.query");
    let summaries: Vec<_> = queries.iter().map(|s| s.attribute("db.query.summary")).collect();
    assert!(summaries.contains(&summary), "{summary} among {summaries:?}");
}

fn assert_outcomes(collected: &Collected, placed: &Placed) {
    for (service, name, correlation_id) in [
        (FILE, "essay_provisioned", &placed.correlation_id),
        (ELS, "slot_assigned", &placed.correlation_id),
        (BOS, "batch_ready", &placed.batch_correlation_id),
    ] {
        let told = collected.logs.iter().filter(|log| {
            log.service == service
                && log.trace_id == placed.trace_id
                && log.attribute("outcome.name") == name
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert_eq!(told[0].event_name, "outcome.reached");
        assert_eq!(told[0].attribute("batch_id"), placed.batch_id);
        assert_eq!(told[0].attribute("correlation_id"), correlation_id);
    }
}

/// Every log line about the essay or its batch, by OTLP and on stdout, from every layer.
fn assert_logs(
    collected: &Collected,
    folder: &support::LogFolder,
    trace: &Trace<'_>,
    placed: &Placed,
) {
    let about = |text: &str| text.contains(&placed.batch_id) || text.contains(&placed.essay_id);
    let mut layers: BTreeMap<String, usize> = BTreeMap::new();
    let mut told = vec![];
    for log in &collected.logs {
        if log.trace_id != placed.trace_id {
            let all = format!("{} {:?}", log.body, log.attributes);
            assert!(!about(&all) || !log.trace_id.is_empty(), "without a trace: {log:?}");
            continue;
        }
        let span = trace.by_id.get(log.span_id.as_str());
        let span = span.unwrap_or_else(|| panic!("of no span: {log:?}"));
        let id = correlation_id_of(span, trace, placed);
        assert_eq!(log.attribute("correlation_id"), id, "{log:?}");
        told.push((log.service.as_str(), log.span_id.as_str(), log.body.as_str(), id));
        *layers.entry(log.attribute("layer").to_owned()).or_default() += 1;
    }
    let expected = ["application", "framework", "infrastructure"];
    assert_eq!(layers.keys().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());

    let lines = folder.lines();
    for line in lines.iter().filter(|line| about(&line.to_string())) {
        for id in ["trace_id", "span_id", "correlation_id", "layer"] {
            assert!(line[id].as_str().is_some_and(|v| !v.is_empty()), "no {id}: {line}");
        }
    }
    // On stdout the very same, but for what the exporters' own stack says.
    let text = |line: &'static str, of: &serde_json::Value| of[line].as_str().unwrap().to_owned();
    let mut written: Vec<_> = lines
        .iter()
        .filter(|line| line["trace_id"] == placed.trace_id.as_str())
        .filter(|line| !EXPORTING.iter().any(|root| text("target", line).starts_with(root)))
        .map(|line| ["service", "span_id", "message", "correlation_id"].map(|of| text(of, line)))
        .collect();
    let mut told: Vec<_> = told
        .into_iter()
        .map(|(service, span, body, id)| [service, span, body, id].map(str::to_owned))
        .collect();
    written.sort();
    told.sort();
    assert_eq!(written, told);
}

/// Who speaks on stdout only: the exporters run on them.
const EXPORTING: [&str; 6] = ["hyper", "h2", "reqwest", "tonic", "opentelemetry", "tower"];

type Belongs = fn(&Span) -> bool;

/// Which spans a part makes.
const PARTS: [(&str, Belongs); 5] = [
    ("redis=off", |s| s.attribute("db.system.name") == "redis"),
    ("kafka=off", |s| s.attribute("messaging.system") == "kafka"),
    ("postgres=off", |s| s.attribute("db.system.name") == "postgresql"),
    ("breaker=off", |s| !s.attribute("circuit.name").is_empty()),
    ("http=off", |s| !s.attribute("http.request.method").is_empty()),
];

fn outcomes(collected: &Collected, placed: &Placed) -> usize {
    let of_batch = collected.logs.iter().filter(|l| l.attribute("batch_id") == placed.batch_id);
    of_batch.filter(|log| log.event_name.starts_with("outcome.")).count()
}

/// Scenario: everything off by the environment, then part by part while the services run.
/// Guarantees: each time the essay gets its slot and the batch becomes ready, what is off is missing,
/// and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_is_missing_and_the_services_work_on() {
    let pipeline = Pipeline::start_in(&[], &[("LACUNA_INSTRUMENT", "all=off")]).await;
    let series = |scrape: &Scrape, placed: &Placed| !scrape.mentioning(&placed.batch_id).is_empty();
    let dark = pipeline.place_one().await;
    let dark_series = series(&Scrape::of(&pipeline.at.els).await, &dark);

    let mut rounds: Vec<(&str, Placed, bool)> = vec![];
    for off in [
        "",
        "redis=off",
        "kafka=off",
        "postgres=off",
        "breaker=off",
        "http=off",
        "outcome=off",
        "business=off",
        "propagation=off",
    ] {
        pipeline.instrument("all=on").await;
        pipeline.instrument(off).await;
        let placed = pipeline.place_one().await;
        let has_series = series(&Scrape::of(&pipeline.at.els).await, &placed);
        rounds.push((off, placed, has_series));
    }
    let collected = pipeline.stop().await;

    assert!(collected.in_trace(&dark.trace_id).is_empty() && !dark_series);
    assert_eq!(outcomes(&collected, &dark), 0);
    let said = collected.logs.iter().filter(|log| log.attribute("batch_id") == dark.batch_id);
    assert!(said.count() > 0, "log lines are the service's own");

    for (off, placed, has_series) in &rounds {
        let spans = collected.in_trace(&placed.trace_id);
        assert_eq!(*has_series, *off != "business=off", "series of the batch with {off}");
        assert_eq!(outcomes(&collected, placed) == 0, *off == "outcome=off", "outcomes with {off}");
        if *off == "propagation=off" {
            // Nothing of the caller's arrives, and nobody is anybody's child over the wire.
            assert!(spans.is_empty());
            let consumed = format!("kafka.consume.{PROVISIONED}");
            let of_batch = |s: &&Span| s.attribute("batch_id") == placed.batch_id;
            let mine: Vec<_> = collected.spans.iter().filter(of_batch).collect();
            let consumed: Vec<_> = mine.iter().filter(|s| s.name == consumed).collect();
            assert!(consumed.iter().all(|s| s.parent_id.is_empty() && s.links.is_empty()));
            // The envelope still has the essay's correlation id.
            assert!(consumed.iter().all(|s| !s.attribute("correlation_id").is_empty()));
            assert_eq!(consumed.len(), 1);
            continue;
        }
        for (part, belongs) in PARTS {
            let there = spans.iter().any(|span| belongs(span));
            assert_eq!(there, part != *off, "spans of {part} with {off}");
        }
    }
}
