//! A story in 80 columns.

use std::collections::{BTreeMap, BTreeSet};

use lacuna_server::story::{Event, Story, What};
use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use crate::output::{Style, line};

/// Width of a page.
const WIDTH: usize = 80;
/// Where the text of an event begins.
const INDENT: usize = 15;

/// Tells the story. `url` is the server that has it, for links.
pub fn story(story: &Story, url: Option<&str>, own_contracts: bool) {
    let style = Style::of_stdout();
    heading(story, style);
    let mut place = None;
    for event in &story.events {
        let here = match event.what {
            What::Verdict { .. } => None,
            _ => Some((event.service.clone(), event.trace_id)),
        };
        if let Some(here) = here.filter(|here| place.as_ref() != Some(here)) {
            let service = here.0.as_deref().unwrap_or("(no service)");
            let trace = here.1.map(|id| format!("  trace {id}")).unwrap_or_default();
            line("");
            if service.len() + trace.len() > WIDTH {
                line(&style.bold(service));
                line(&style.dim(&trace));
            } else {
                line(&format!("{}{}", style.bold(service), style.dim(&trace)));
            }
            place = Some(here);
        } else if matches!(event.what, What::Verdict { .. }) {
            line("");
            place = None;
        }
        tell(event, style);
    }
    foot(story, url, own_contracts, style);
}

fn heading(story: &Story, style: Style) {
    for part in &story.key {
        let also = match part.also.as_slice() {
            [] => String::new(),
            names => format!("  (also {})", names.join(", ")),
        };
        line(&format!("{}{}", style.bold(&format!("{} = {}", part.name, part.value)), also));
    }
    let (Some(first), Some(last)) = (story.events.first(), story.events.last()) else { return };
    let count =
        |n: usize, one: &str, more: &str| format!("{n} {}", if n == 1 { one } else { more });
    let services: BTreeSet<_> = story.events.iter().filter_map(|e| e.service.as_ref()).collect();
    let traces: BTreeSet<_> = story.events.iter().filter_map(|e| e.trace_id).collect();
    line(&format!(
        "{} of {} in {}",
        count(story.events.len(), "event", "events"),
        count(services.len(), "service", "services"),
        count(traces.len(), "trace", "traces"),
    ));
    line(&style.dim(&format!("from {}\nto   {}", first.at, last.at)));
    if story.events.iter().any(|event| !event.carries_key) {
        line(&style.dim("* carries the key; without *, it only shares a trace with what does"));
    }
}

fn tell(event: &Event, style: Style) {
    let mark = if event.carries_key { "*" } else { " " };
    let lead = format!("{:>11} {mark} ", offset(event.after));
    let (text, more) = match &event.what {
        What::Span { name, status, message, duration, .. } => {
            let status = if status == "unset" { String::new() } else { format!("  {status}") };
            (format!("{name}{status}  {}", length(*duration)), message.clone())
        }
        What::Log { level, body, event } => {
            let event = event.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            (format!("[{level}] {event}{body}"), None)
        }
        What::Verdict { contract, verdict, severity, promise, .. } => {
            let verdict = verdict.name().to_uppercase();
            (format!("{verdict}  {contract} ({})", severity.name()), Some(promise.clone()))
        }
    };
    let paint = |text: &str| match &event.what {
        What::Span { status, .. } if status == "error" => style.bad(text),
        What::Log { level, .. } if level == "error" || level == "fatal" => style.bad(text),
        What::Verdict { verdict: Verdict::Fulfilled, .. } => style.good(text),
        What::Verdict { verdict: Verdict::Open | Verdict::Unknown, .. } => style.bold(text),
        What::Verdict { .. } => style.bad(text),
        _ if event.carries_key => text.to_owned(),
        _ => style.dim(text),
    };
    for (i, part) in wrap(&text, WIDTH - INDENT).iter().enumerate() {
        let lead = if i == 0 { lead.clone() } else { " ".repeat(INDENT) };
        line(&format!("{lead}{}", paint(part)));
    }
    for part in more.iter().flat_map(|more| wrap(more, WIDTH - INDENT - 2)) {
        line(&format!("{}{}", " ".repeat(INDENT + 2), paint(&part)));
    }
    verdict_details(event, style);
}

fn verdict_details(event: &Event, style: Style) {
    let What::Verdict { verdict, deadline, figures, runbook_url, trace_ids, .. } = &event.what
    else {
        return;
    };
    let pad = " ".repeat(INDENT + 2);
    if *verdict == Verdict::Open
        && let Some(deadline) = deadline
    {
        line(&style.dim(&format!("{pad}due at {deadline}")));
    }
    if !figures.is_empty() {
        let figures: Vec<_> = figures.iter().map(|(name, n)| format!("{name} {n}")).collect();
        line(&style.dim(&format!("{pad}{}", figures.join(", "))));
    }
    if *verdict != Verdict::Fulfilled {
        if let Some(trace) = trace_ids.first() {
            line(&style.dim(&format!("{pad}began in trace {trace}")));
        }
        if let Some(url) = runbook_url {
            line(&style.dim(&format!("{pad}{url}")));
        }
    }
}

fn foot(story: &Story, url: Option<&str>, own_contracts: bool, style: Style) {
    let mut notes = Vec::new();
    if story.others > 0 {
        let names: Vec<_> = story.key.iter().map(|part| part.name.as_str()).collect();
        notes.push(format!(
            "{} more events of these traces carry another {} and are left out.",
            story.others,
            names.join(", ")
        ));
    }
    if story.cut {
        notes.push("There is more than is told here: narrow it by --from and --to.".to_owned());
    }
    if story.contracts == 0 && (own_contracts || url.is_some()) {
        notes.push("No contract is kept by this key.".to_owned());
    }
    let mut traces: BTreeMap<TraceId, usize> = BTreeMap::new();
    for event in &story.events {
        if let Some(id) = event.trace_id {
            *traces.entry(id).or_default() += 1;
        }
    }
    if !notes.is_empty() {
        line("");
    }
    for note in notes.iter().flat_map(|note| wrap(note, WIDTH)) {
        line(&style.dim(&note));
    }
    if let (Some(url), false) = (url, traces.is_empty()) {
        line(&style.dim("\nOpen"));
        for id in traces.keys().take(10) {
            line(&style.dim(&format!("  {}/api/traces/{id}", url.trim_end_matches('/'))));
        }
    }
}

/// Time since the story began: `+1.204 s`, `+2 h 03 min`.
fn offset(nanos: i64) -> String {
    let seconds = nanos as f64 / 1e9;
    if seconds < 3600.0 {
        format!("+{seconds:.3} s")
    } else {
        let minutes = nanos / 60_000_000_000;
        format!("+{}h{:02}min", minutes / 60, minutes % 60)
    }
}

fn length(nanos: i64) -> String {
    let seconds = nanos as f64 / 1e9;
    if seconds < 1e-3 {
        format!("{:.0} us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// `text` in lines of at most `width` characters, broken between words where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for part in text.split(['\n', '\r']) {
        let mut current = String::new();
        for word in part.split_inclusive(' ') {
            let mut word = word;
            let fits = |current: &str, word: &str| {
                current.chars().count() + word.trim_end().chars().count() <= width
            };
            if !fits(&current, word) && !current.is_empty() {
                lines.push(std::mem::take(&mut current).trim_end().to_owned());
            }
            while word.trim_end().chars().count() > width {
                let cut = word.char_indices().nth(width).map_or(word.len(), |(at, _)| at);
                lines.push(word[..cut].to_owned());
                word = &word[cut..];
            }
            current.push_str(word);
        }
        let current = current.trim_end();
        if !current.is_empty() {
            lines.push(current.to_owned());
        }
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_wider_than_asked() {
        let text = "Assigned slot 17 to essay 4f2c of a batch kafka.produce.huleedu.els.essay.v1";
        for width in [8, 20, 65] {
            let lines = wrap(text, width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
            let squeeze = |text: &str| text.replace(' ', "");
            assert_eq!(squeeze(&lines.concat()), squeeze(text));
        }
        assert_eq!(wrap("a\nb", 10), ["a", "b"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn times_are_told_to_the_millisecond_and_long_ones_to_the_minute() {
        assert_eq!(offset(1_204_000_000), "+1.204 s");
        assert_eq!(offset(7_380_000_000_000), "+2h03min");
        assert_eq!((length(950), length(1_500_000)), ("1 us".to_owned(), "1.5 ms".to_owned()));
    }
}
