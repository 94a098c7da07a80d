//! `lacuna explain --key NAME=VALUE`: the story of one key.

mod print;

use std::path::PathBuf;

use lacuna_contract::ContractSet;
use lacuna_contract::history::History;
use lacuna_server::story::{KeyPart, Search, Story, of_store, verdicts};
use lacuna_store::TimeRange;
use miette::miette;

use crate::input::{failed, open_store, print_json};
use crate::remote::{Remote, escape};
use crate::source::{Source, range_query};
use crate::times::Window;
use crate::{Failure, Outcome, output, report};

/// Options of `lacuna explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key: an attribute of any scope and its value. Several for a joint key.
    #[arg(long, required = true, value_name = "NAME=VALUE", value_parser = KeyPart::parse)]
    key: Vec<KeyPart>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    window: Window,
    /// Contract files, or folders of them, whose verdicts belong to the story. With --url, the
    /// server's own contracts unless given.
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    contracts: Vec<PathBuf>,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// For a person, in 80 columns.
    #[default]
    Text,
    /// For a program.
    Json,
}

/// Tells the story.
pub async fn run(args: Args) -> Result<Outcome, Failure> {
    let range = args.window.range()?;
    let contracts = if args.contracts.is_empty() {
        ContractSet::default()
    } else {
        ContractSet::load_paths(&args.contracts).map_err(report::contracts)?.0
    };
    let mut key = args.key.clone();
    key.iter_mut().for_each(|part| part.learn(&contracts));
    let mut story = gather(&args, key, range).await?;
    if !contracts.is_empty() {
        let mut history = History::new(&contracts);
        args.source.read(range, |batch| history.observe(batch)).await?;
        history.settle();
        // What the server's contracts said is replaced: these were asked for.
        story.events.retain(|event| !event.is_verdict());
        verdicts(&mut story, history.monitor());
    }
    match args.format {
        Format::Text => print::story(&story, args.source.url.as_deref(), !contracts.is_empty()),
        Format::Json => print_json(&story)?,
    }
    if story.events.is_empty() {
        output::error("nothing carries that key: look at the attribute's name, and at --from");
    }
    Ok(if story.has_violations() { Outcome::Findings } else { Outcome::Clean })
}

async fn gather(args: &Args, key: Vec<KeyPart>, range: TimeRange) -> Result<Story, Failure> {
    if let Some(url) = &args.source.url {
        let mut path = "/api/v1/explain?".to_owned();
        for part in &key {
            path.push_str(&format!("key={}&", escape(&format!("{}={}", part.name, part.value))));
        }
        let path = format!("{}{}", path.trim_end_matches('&'), range_query(range));
        return Remote::new(url)?.json(&path).await;
    }
    let mut search = Search::new(key).map_err(|error| miette!("{error}"))?;
    if let Some(data) = &args.source.data {
        let store = open_store(data)?;
        let search = of_store(&store, search, range).map_err(failed)?;
        store.close();
        return Ok(search.finish());
    }
    if args.source.input.iter().any(|file| file.as_os_str() == "-") {
        return Err(miette!("a story is read twice, and standard input cannot be: name a file"));
    }
    args.source.read(range, |batch| search.match_batch(batch)).await?;
    args.source.read(TimeRange::ALL, |batch| search.trace_batch(batch)).await?;
    Ok(search.finish())
}
