//! `pipeline bench`: what the instrumentation costs the pipeline.
//!
//! Starts the three services with their telemetry going to a receiver that drops it, sends the same
//! load over and over as fast as they take it, and switches all parts on and off in turn. The
//! services' CPU time is told beside the throughput: on a shared machine it is the steadier figure.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use clap::Args;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::config::Backends;
use crate::error::Error;
use crate::load::{self, Sending, Unsettled};
use crate::up::Addresses;

/// How long a round may take to settle.
const PATIENCE: Duration = Duration::from_secs(120);

/// Clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux of today (`sysconf(_SC_CLK_TCK)`).
const TICKS: f64 = 100.0;

/// Options of `pipeline bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    backends: Backends,
    /// Pairs of rounds, one with everything on and one with everything off.
    #[arg(long, default_value_t = 8)]
    pairs: u32,
    /// Batches in a round.
    #[arg(long, default_value_t = 20)]
    batches: u32,
    /// Essays in a batch.
    #[arg(long, default_value_t = 25)]
    essays: u32,
}

/// One round's figures.
#[derive(Clone, Copy, Debug)]
struct Round {
    essays_per_second: f64,
    /// Milliseconds of the three services' CPU time.
    cpu_per_essay: f64,
}

/// Measures and prints.
pub async fn run(args: BenchArgs) -> Result<ExitCode, Error> {
    let listener =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(Error::io("OTLP receiver"))?;
    let endpoint = format!("http://{}", listener.local_addr().map_err(Error::io("address"))?);
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(drop_all)).await });

    let logs = std::env::temp_dir().join(format!("lacuna-pipeline-bench-{}", std::process::id()));
    let (mut child, at) = start(&args, &endpoint, &logs).await?;
    let measured = measure(&args, &at).await;
    drop(child.stdin.take());
    let _ = child.wait().await;
    let _ = std::fs::remove_dir_all(&logs);
    let rounds = measured?;
    print(&args, &rounds);
    Ok(ExitCode::SUCCESS)
}

/// Takes any OTLP request and keeps nothing.
async fn drop_all(body: Body) -> StatusCode {
    let _ = axum::body::to_bytes(body, usize::MAX).await;
    StatusCode::OK
}

async fn start(
    args: &BenchArgs,
    endpoint: &str,
    logs: &std::path::Path,
) -> Result<(Child, Addresses), Error> {
    let program = std::env::current_exe().map_err(Error::io("own program"))?;
    let mut child = Command::new(program)
        .args(["up", "--free-ports", "--stop-on-stdin-close"])
        .args(["--redis-url", &args.backends.redis_url])
        .args(["--database-url", &args.backends.database_url])
        .args(["--kafka-brokers", &args.backends.kafka_brokers])
        .args(["--namespace", args.backends.namespace.namespace.as_str()])
        .arg("--logs")
        .arg(logs)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io("starting the services"))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut line).await;
        read.map_err(Error::io("the services' addresses"))?;
    }
    let at = serde_json::from_str(&line)
        .map_err(|error| Error::Usage(format!("the services did not start ({error})")))?;
    Ok((child, at))
}

/// Pairs of rounds: on, off.
async fn measure(args: &BenchArgs, at: &Addresses) -> Result<Vec<[Round; 2]>, Error> {
    let namespace = &args.backends.namespace.namespace;
    let pool = crate::db::connect(&args.backends.database_url, namespace, 2).await?;
    let http = reqwest::Client::new();
    let mut pairs = Vec::new();
    for n in 0..=args.pairs {
        let mut pair = [Round { essays_per_second: 0.0, cpu_per_essay: 0.0 }; 2];
        // Whoever comes first changes from pair to pair.
        for which in if n % 2 == 0 { [0, 1] } else { [1, 0] } {
            switch(&http, at, if which == 0 { "all=on" } else { "all=off" }).await?;
            pair[which] = round(args, at, &pool, u64::from(n)).await?;
        }
        // The first pair warms up.
        if n > 0 {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

async fn switch(http: &reqwest::Client, at: &Addresses, list: &'static str) -> Result<(), Error> {
    for base in [&at.bos, &at.file, &at.els] {
        let url = format!("{base}/instrument");
        let response = http.post(&url).body(list).send().await;
        response
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| Error::Call { url, reason: error.to_string() })?;
    }
    Ok(())
}

async fn round(
    args: &BenchArgs,
    at: &Addresses,
    pool: &lacuna_instrument::postgres::Pool,
    seed: u64,
) -> Result<Round, Error> {
    let sending = Sending {
        batches: args.batches,
        essays: args.essays,
        // All at once: the services take them as fast as they can.
        rate: 1e9,
        seed,
        bos: at.bos.clone(),
        file: at.file.clone(),
    };
    let (cpu, started) = (cpu_seconds(&at.pids)?, Instant::now());
    let (sent, scope) = load::send(&sending).await?;
    let left = load::settle(pool, &scope, PATIENCE).await?;
    if left != Unsettled::default() {
        return Err(Error::Timeout(format!("a round did not settle within {PATIENCE:?}")));
    }
    let (taken, essays) = (started.elapsed().as_secs_f64(), sent as f64);
    // Exporting goes on for a moment; it belongs to the round.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let cpu = cpu_seconds(&at.pids)? - cpu;
    Ok(Round { essays_per_second: essays / taken, cpu_per_essay: cpu * 1e3 / essays })
}

/// User and system time of the processes so far.
fn cpu_seconds(pids: &[u32]) -> Result<f64, Error> {
    let mut ticks = 0.0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).map_err(Error::io(path.clone()))?;
        // Behind the name, which may hold anything, the fields 3 and on; 14 and 15 are the times.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(ticks / TICKS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::print_stdout, reason = "the figures are this command's result")]
fn print(args: &BenchArgs, pairs: &[[Round; 2]]) {
    let essays = args.batches * args.essays;
    println!(
        "{} pairs of rounds of {essays} essays, all on and all off in turn; medians",
        pairs.len()
    );
    let of = |which: usize, value: fn(&Round) -> f64| {
        median(pairs.iter().map(|pair| value(&pair[which])).collect())
    };
    let ratio = |value: fn(&Round) -> f64| {
        median(pairs.iter().map(|[on, off]| value(on) / value(off)).collect())
    };
    for (what, value) in [
        ("essays/s", (|round| round.essays_per_second) as fn(&Round) -> f64),
        ("services' CPU, ms an essay", |round| round.cpu_per_essay),
    ] {
        println!(
            "{what:<28} on {:8.2}  off {:8.2}  on/off {:.3}",
            of(0, value),
            of(1, value),
            ratio(value)
        );
    }
}
