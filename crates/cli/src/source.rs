//! Where a command reads signals from, and of which time.

use std::path::PathBuf;

use arrow::array::BooleanArray;
use arrow::datatypes::TimestampNanosecondType;
use jiff::Timestamp;
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::TimeRange;

use crate::client::Tls;
use crate::input::{open_store, read_file, scan};
use crate::remote::{Remote, escape};
use crate::{Failure, Outcome, output};

/// Where signals are read from.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("signals").args(["input", "data", "url"]).required(true))]
pub struct Source {
    /// Files of OTLP requests: a line each in JSON, or as the Collector's file exporter writes
    /// them; plain, gzip or zstd; `-` for standard input.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub input: Vec<PathBuf>,
    /// Folder that keeps the data. A server may be running on it: what is there now is read.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Query port of a running Lacuna, such as http://127.0.0.1:16686.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub tls: Tls,
}

/// A range as the parameters `from` and `to` of a query, with `&` before each.
pub fn range_query(range: TimeRange) -> String {
    let mut query = String::new();
    for (name, bound, none) in [("from", range.start, i64::MIN), ("to", range.end, i64::MAX)] {
        if let (true, Ok(time)) = (bound != none, Timestamp::from_nanosecond(i128::from(bound))) {
            query.push_str(&format!("&{name}={}", escape(&time.to_string())));
        }
    }
    query
}

impl Source {
    /// Hands every batch of spans and logs that begin in `range` to `take`. [`Outcome::Findings`] if
    /// damage left some out, of which standard error then tells.
    pub async fn read(
        &self,
        range: TimeRange,
        mut take: impl FnMut(&Batch),
    ) -> Result<Outcome, Failure> {
        let progress = output::progress(None, "{spinner} {human_pos} rows read");
        let mut take = |batch: &Batch| {
            progress.inc(batch.num_rows() as u64);
            take(batch);
        };
        let done = if let Some(data) = &self.data {
            read_store(data, range, &mut take)
        } else if let Some(url) = &self.url {
            let remote = Remote::new(url, &self.tls)?;
            let path = format!("/api/v1/export?signals=spans,logs{}", range_query(range));
            let mut each = |batch: &Batch| {
                take(batch);
                Ok(())
            };
            remote.lines(&path, &mut each).await
        } else {
            let mut clipped = |batch: &Batch| {
                if let Some(batch) = clip(batch, range) {
                    take(&batch);
                }
            };
            let files = &mut self.input.iter();
            files.try_for_each(|file| read_file(file, &mut clipped)).map(|()| true)
        };
        progress.finish_and_clear();
        Ok(if done? { Outcome::Clean } else { Outcome::Findings })
    }
}

fn read_store(
    data: &std::path::Path,
    range: TimeRange,
    take: &mut dyn FnMut(&Batch),
) -> Result<bool, Failure> {
    let store = open_store(data)?;
    let mut whole = true;
    for kind in [SignalKind::Spans, SignalKind::Logs] {
        whole &= scan(&store, kind, None, range, &mut |batch| {
            take(&batch);
            Ok(())
        })?;
    }
    store.close();
    Ok(whole)
}

/// The rows of `batch` that begin in `range`; `None` without any.
fn clip(batch: &Batch, range: TimeRange) -> Option<Batch> {
    if range == TimeRange::ALL {
        return Some(batch.clone());
    }
    let times = batch.number_column::<TimestampNanosecondType>(batch.kind().time_column())?;
    let mask: BooleanArray =
        times.values().iter().map(|time| Some(range.contains(*time))).collect();
    batch.filter(&mask).ok().filter(|batch| batch.num_rows() > 0)
}
