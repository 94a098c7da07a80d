//! `lacuna findings`: what a running server has found.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use lacuna_signal::finding::{Finding, Instance, Severity, Status};
use serde_json::json;

use crate::client::{Client, Tls};
use crate::commands::serve::end_asked_for;
use crate::input::print_json;
use crate::output::Style;
use crate::remote::{Remote, escape};
use crate::{Failure, Outcome, output};

/// A broken connection is made again after this long.
const RECONNECT: Duration = Duration::from_secs(1);

/// So many instances of an open finding are shown in the list.
const EXAMPLES: usize = 3;

/// Options of `lacuna findings`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 nothing is open, 1 something is, 2 the server cannot be \
                        asked. With --watch, 0 when ended.")]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Query port of the server.
    #[arg(
        long,
        value_name = "URL",
        env = "LACUNA_URL",
        default_value = "http://127.0.0.1:16686",
        global = true
    )]
    url: String,
    #[command(flatten)]
    tls: Tls,
    /// Only these.
    #[arg(long, value_enum)]
    status: Option<Wanted>,
    /// Only those of this contract.
    #[arg(long, value_name = "NAME")]
    contract: Option<String>,
    /// Stay, and tell every change as it comes.
    #[arg(long)]
    watch: bool,
    /// How to tell it; of --watch, JSON is one object a line.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take an open finding on, so that others know.
    #[command(after_help = "Exit status: 0 done, 2 there is no such finding, or it is resolved.")]
    Ack {
        /// The finding, as the list shows it.
        fingerprint: String,
        /// Who takes it on.
        #[arg(long, value_name = "NAME", env = "USER")]
        by: String,
        /// What there is to say.
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
    },
    /// Give a finding back that somebody has taken on.
    Unack {
        /// The finding, as the list shows it.
        fingerprint: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Wanted {
    /// Those that hold.
    Open,
    /// Those that no longer do.
    Resolved,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, clap::ValueEnum)]
enum Format {
    /// For a person.
    #[default]
    Table,
    /// For a program.
    Json,
}

impl Args {
    fn wants(&self, finding: &Finding) -> bool {
        let status = match self.status {
            None => true,
            Some(Wanted::Open) => finding.status == Status::Open,
            Some(Wanted::Resolved) => finding.status == Status::Resolved,
        };
        let of = |name: &String| finding.concerns(name);
        status && self.contract.as_ref().is_none_or(of)
    }
}

/// Tells what was found.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    let server = Remote::new(&args.url, &args.tls)?;
    if let Some(action) = &args.action {
        return take_on(&server, action).await;
    }
    let client = server.client();
    if args.watch {
        tokio::select! {
            done = watch(client, &args) => done?,
            done = end_asked_for() => done?,
        }
        return Ok(Outcome::Clean);
    }
    let mut answer = client.get("/api/v1/findings").await?;
    let findings: Vec<Finding> = serde_json::from_value(answer["findings"].take())
        .map_err(|error| miette::miette!("{}: not a server's findings: {error}", client.base()))?;
    let findings: Vec<Finding> =
        findings.into_iter().filter(|finding| args.wants(finding)).collect();
    match args.format {
        Format::Json => print_json(&json!({ "findings": findings }))?,
        Format::Table => table(&findings),
    }
    let open = findings.iter().any(|finding| finding.status == Status::Open);
    Ok(if open { Outcome::Findings } else { Outcome::Clean })
}

/// Takes a finding on, or gives it back.
async fn take_on(server: &Remote, action: &Action) -> Result<Outcome, Failure> {
    let (method, fingerprint, body) = match action {
        Action::Ack { fingerprint, by, comment } => {
            (Method::POST, fingerprint, Some(json!({"by": by, "comment": comment})))
        }
        Action::Unack { fingerprint } => (Method::DELETE, fingerprint, None),
    };
    let path = format!("/api/v1/findings/{}/acknowledge", escape(fingerprint));
    let finding: Finding = server.change(method, &path, body.as_ref()).await?;
    output::line(&row(&finding, Style::of_stdout()));
    Ok(Outcome::Clean)
}

fn table(findings: &[Finding]) {
    if findings.is_empty() {
        output::line("nothing found");
        return;
    }
    let style = Style::of_stdout();
    let head = format!(
        "{:<12} {:<8} {:<20} {:<16} {}",
        "STATUS", "SEVERITY", "LAST", "FINGERPRINT", "WHAT"
    );
    output::line(&style.bold(&head));
    for finding in findings {
        output::line(&row(finding, style));
        if finding.status == Status::Open {
            examples(finding).iter().for_each(|line| output::line(&style.dim(line)));
        }
    }
}

/// The newest instances: their key, and where to open the first of their traces.
fn examples(finding: &Finding) -> Vec<String> {
    let line = |example: &Instance| {
        let key =
            finding.key.iter().zip(&example.key).map(|(name, value)| format!("{name}={value}"));
        let key = key.collect::<Vec<_>>().join(" ");
        let link = example.links.first().map(|link| format!("  {link}")).unwrap_or_default();
        format!("{:<12} {key}{link}", "")
    };
    finding.examples.iter().take(EXAMPLES).map(line).collect()
}

fn status(finding: &Finding) -> &'static str {
    match (finding.status, &finding.acknowledged) {
        (Status::Resolved, _) => "resolved",
        (Status::Open, Some(_)) => "acknowledged",
        (Status::Open, None) => "open",
    }
}

fn row(finding: &Finding, style: Style) -> String {
    let severity = format!("{:<8}", finding.severity.name());
    let severity = match (finding.status, finding.severity) {
        (Status::Resolved, _) => style.dim(&severity),
        (Status::Open, Severity::Critical) => style.bad(&severity),
        (Status::Open, _) => severity,
    };
    let by = finding.acknowledged.as_ref().map_or(String::new(), |ack| {
        let comment = ack.comment.as_ref().map_or(String::new(), |text| format!(": {text}"));
        format!("  (taken on by {}{comment})", ack.by)
    });
    format!(
        "{:<12} {severity} {:<20} {:<16} {}{by}",
        status(finding),
        seconds(finding.last_seen),
        finding.fingerprint,
        finding.title,
    )
}

/// A time to the second.
fn seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

/// Tells changes until the server cannot be asked at the beginning; later, a broken connection is
/// made again, from the last change that came.
async fn watch(client: &Client, args: &Args) -> Result<(), Failure> {
    let mut last: Option<String> = None;
    loop {
        let from = last.clone();
        let header = from.as_deref().map(|id| ("last-event-id", id));
        match client.lines("/api/v1/findings/stream", header).await {
            Ok(mut lines) => {
                let mut event = Event::default();
                while let Some(line) = lines.next().await {
                    if event.take(&line) {
                        let event = std::mem::take(&mut event);
                        event.tell(args, from.is_none())?;
                        last = Some(event.id);
                    }
                }
            }
            Err(error) if last.is_none() => return Err(error),
            Err(_) => {}
        }
        // A server without findings sends none: it was reached all the same.
        last.get_or_insert_with(String::new);
        tokio::time::sleep(RECONNECT).await;
    }
}

/// An event of the stream.
#[derive(Default)]
struct Event {
    id: String,
    name: String,
    data: String,
}

impl Event {
    /// Takes a line; whether the event is whole.
    fn take(&mut self, line: &str) -> bool {
        if line.is_empty() {
            return !self.data.is_empty();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            _ => {}
        }
        false
    }

    /// Tells it; `first` says that nothing was told before this connection.
    fn tell(&self, args: &Args, first: bool) -> Result<(), Failure> {
        let finding: Finding = serde_json::from_str(&self.data)
            .map_err(|error| miette::miette!("an event of the server cannot be read: {error}"))?;
        // What was resolved before anybody watched is no news.
        let old = first && self.name == "finding" && finding.status == Status::Resolved;
        if !args.wants(&finding) || (old && args.status != Some(Wanted::Resolved)) {
            return Ok(());
        }
        match args.format {
            Format::Json => {
                let change = if self.name == "finding" { status(&finding) } else { &self.name };
                output::line(
                    &json!({"change": change, "id": self.id, "finding": finding}).to_string(),
                );
            }
            Format::Table => {
                let change = if self.name == "finding" { "now" } else { &self.name };
                output::line(&format!("{change:<14} {}", row(&finding, Style::of_stdout())));
            }
        }
        Ok(())
    }
}
