//! The story on a terminal.

use std::time::Duration;

use super::story::{Layers, Loss, Story};
use crate::client::Client;
use crate::output::{Style, line};

/// Tells the story.
pub fn story(story: &Story, client: &Client, took: Duration) {
    let style = Style::of_stdout();
    let [spans, logs, points] = story.rows;
    line(&format!(
        "{}  a recorded run of {} services, replayed and analysed in {:.1} s",
        style.bold("lacuna demo"),
        story.layers.services.len(),
        took.as_secs_f64()
    ));
    line(&style.dim(&format!("{spans} spans, {logs} log records, {points} metric points")));
    layers(&story.layers, style);
    contracts(story, style);
    for loss in &story.losses {
        losses(loss, style);
    }
    explore(story, client, style);
}

fn layers(layers: &Layers, style: Style) {
    line(&format!("\n{}", style.bold("What every layer reported")));
    let row = |what: &str, count: u64, unit: &str, errors: u64| {
        let errors = if errors == 0 {
            style.good("0 errors")
        } else {
            style.bad(&format!("{errors} errors"))
        };
        line(&format!("  {what:<22}{count:>8} {unit:<12}{errors}"));
    };
    row("HTTP", layers.requests.0, "requests", layers.requests.1);
    row("Kafka", layers.messages.0, "messages", layers.messages.1);
    for (name, layer) in &layers.logs {
        row(&format!("logs: {name}"), layer.records, "records", layer.errors);
        if let Some((body, count)) = layer.most_frequent() {
            line(&style.dim(&format!("  {:<22}{count:>8} x \"{}\"", "", shorten(body, 60))));
        }
    }
}

fn contracts(story: &Story, style: Style) {
    line(&format!("\n{}", style.bold("What was promised, and what happened")));
    line(
        &style.dim(&format!("  {:<30}{:>9}{:>9}{:>9}", "contract", "expected", "reached", "lost")),
    );
    for contract in &story.contracts {
        let lost = contract.expected - contract.reached.min(contract.expected);
        let lost = format!("{lost:>9}");
        let lost = if lost.trim() == "0" { style.good(&lost) } else { style.bad(&lost) };
        line(&format!(
            "  {:<30}{:>9}{:>9}{lost}",
            contract.name, contract.expected, contract.reached
        ));
    }
}

fn losses(loss: &Loss, style: Style) {
    line(&format!("\n{} {}", style.bad(&loss.severity.to_uppercase()), style.bold(&loss.title)));
    line(&style.dim(&format!("  {:<38}{:<10}{:<40}why", loss.key, "since", "lost at")));
    for instance in &loss.instances {
        // `2026-11-23T14:33:02.1Z`: the time of day.
        let time = instance.activated_at.get(11..19).unwrap_or("");
        let Some(step) = instance.steps.first() else {
            line(&format!("  {:<38}{time:<10}{}", instance.key, "no span shows where"));
            continue;
        };
        let times = if step.times > 1 { format!(" x {}", step.times) } else { String::new() };
        let span = format!("{}{times}", step.span);
        line(&format!("  {:<38}{time:<10}{span:<40}{}", instance.key, style.bad(&step.why)));
        for id in step.correlation_ids.iter().filter(|id| **id != instance.key) {
            line(&style.dim(&format!("    correlation_id {id}")));
        }
    }
    let more = loss.count.saturating_sub(loss.instances.len() as u64);
    if more > 0 {
        line(&style.dim(&format!("  and {more} more: GET {}", loss.path)));
    }
}

fn explore(story: &Story, client: &Client, style: Style) {
    let base = client.base();
    line(&format!("\n{}", style.bold("How to open it")));
    line(&format!("  findings     {base}/api/v1/findings"));
    line(&format!("  contracts    {base}/api/v1/contracts"));
    let first = story.losses.first().and_then(|loss| loss.instances.first());
    if let Some(instance) = first {
        line(&format!("  a lost trace {base}/api/traces/{}", instance.trace_id));
    }
    line(&format!("  Jaeger API   {base}/api/services   (a Jaeger data source for Grafana)"));
}

fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('\u{2026}');
    short
}
