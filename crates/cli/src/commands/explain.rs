//! `lacuna explain --key NAME=VALUE`: the story of one key.

mod print;

use std::path::PathBuf;

use lacuna_contract::ContractSet;
use lacuna_server::story::{KeyPart, Search, Story, of_store, verdicts};
use lacuna_store::TimeRange;
use miette::{IntoDiagnostic, miette};

use crate::input::{failed, open_store, print_json};
use crate::judge::judge;
use crate::output::Format;
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
    /// How to tell it; text is in 80 columns.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tells the story.
pub async fn run(mut args: Args) -> Result<Outcome, Failure> {
    // A story is read more than once, and standard input cannot be.
    let _kept = keep_standard_input(&mut args.source.input)?;
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
        let (mut history, _) = judge(&contracts, &args.source, range).await?;
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
        return Remote::new(url, &args.source.tls)?.json(&path).await;
    }
    let mut search = Search::new(key).map_err(|error| miette!("{error}"))?;
    if let Some(data) = &args.source.data {
        let store = open_store(data)?;
        let search = of_store(&store, search, range).map_err(failed)?;
        store.close();
        return Ok(search.finish());
    }
    args.source.read(range, |batch| search.match_batch(batch)).await?;
    args.source.read(TimeRange::ALL, |batch| search.trace_batch(batch)).await?;
    Ok(search.finish())
}

/// Copies standard input, if it is among `files`, to a file that stands there instead, for as long as
/// what is given back lives.
fn keep_standard_input(files: &mut [PathBuf]) -> Result<Option<tempfile::TempDir>, Failure> {
    let mut inputs = files.iter_mut().filter(|file| file.as_os_str() == "-");
    let Some(file) = inputs.next() else { return Ok(None) };
    if inputs.next().is_some() {
        return Err(miette!("standard input can be read once: write `-` once"));
    }
    let folder = tempfile::Builder::new().prefix("lacuna-").tempdir().into_diagnostic()?;
    // As it is called where something in it is wrong.
    let path = folder.path().join("standard input");
    let mut kept = std::fs::File::create(&path).into_diagnostic()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut kept)
        .map_err(|error| miette!("standard input cannot be kept: {error}"))?;
    *file = path;
    Ok(Some(folder))
}
