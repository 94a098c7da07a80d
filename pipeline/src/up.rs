//! `pipeline up`: the three services as child processes, for tests and recordings.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, Command};

use crate::bos;
use crate::config::Backends;
use crate::els::{self, ElsArgs};
use crate::error::Error;
use crate::file_service;
use crate::stop::Stop;

/// Joining a consumer group takes a few seconds; a machine under load takes its time.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Time to finish the event at hand and flush telemetry.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Options of `pipeline up`.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    backends: Backends,
    #[command(flatten)]
    els: ElsArgs,
    /// Listen on free ports instead of 5001, 7001 and 6001.
    #[arg(long)]
    free_ports: bool,
    /// Writes the services' log lines to files in this folder instead of standard error.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Stops when standard input ends, so that the services cannot outlive who started them.
    #[arg(long)]
    stop_on_stdin_close: bool,
}

/// What `pipeline up` prints once everything is ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// Base URL of `batch_orchestrator_service`.
    pub bos: String,
    /// Base URL of `file_service`.
    pub file: String,
    /// Base URL of `essay_lifecycle_service`.
    pub els: String,
    /// The services' process ids.
    pub pids: Vec<u32>,
}

struct Service {
    name: &'static str,
    child: Child,
    /// Its end is the service's sign to stop. Kept apart from the child, whose `wait` would close it.
    stdin: Option<ChildStdin>,
    ready_file: PathBuf,
}

/// Starts the services, prints their URLs, waits to be stopped, stops them.
pub async fn run(args: UpArgs) -> Result<ExitCode, Error> {
    let stop = Stop::on_signals(args.stop_on_stdin_close)?;
    let folder = std::env::temp_dir().join(format!(
        "lacuna-pipeline-{}-{}",
        std::process::id(),
        uuid::Uuid::new_v4()
    ));
    std::fs::create_dir_all(&folder).map_err(Error::io(folder.display().to_string()))?;
    let result = supervise(&args, &folder, &stop).await;
    let _ = std::fs::remove_dir_all(&folder);
    result
}

async fn supervise(args: &UpArgs, folder: &Path, stop: &Stop) -> Result<ExitCode, Error> {
    let mut bos = start("bos", bos::SERVICE, args, folder, &[])?;
    let mut els = start("els", els::SERVICE, args, folder, &[])?;
    // The file service asks BOS about batches, so it is started when BOS has an address.
    let mut file = None;
    let work = async {
        let bos_url = bos.ready().await?;
        let bos_option = ["--bos".to_owned(), bos_url.clone()];
        let file = file.insert(start("file", file_service::SERVICE, args, folder, &bos_option)?);
        let (file_url, els_url) = (file.ready().await?, els.ready().await?);
        let pids = [&bos, &*file, &els].into_iter().filter_map(|service| service.child.id());
        let addresses =
            Addresses { bos: bos_url, file: file_url, els: els_url, pids: pids.collect() };
        announce(&addresses)?;
        tokio::select! {
            () = stop.wait() => Ok(()),
            status = bos.child.wait() => Err(ended(bos.name, status)),
            status = file.child.wait() => Err(ended(file.name, status)),
            status = els.child.wait() => Err(ended(els.name, status)),
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        // Stopped while the services were still starting.
        () = stop.wait() => Ok(()),
    };
    let mut services: Vec<Service> = [Some(bos), file, Some(els)].into_iter().flatten().collect();
    for service in &mut services {
        drop(service.stdin.take());
    }
    for service in &mut services {
        if tokio::time::timeout(STOP_PATIENCE, service.child.wait()).await.is_err() {
            let _ = service.child.kill().await;
        }
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn start(
    command: &str,
    name: &'static str,
    args: &UpArgs,
    folder: &Path,
    more: &[String],
) -> Result<Service, Error> {
    let program = std::env::current_exe().map_err(Error::io("own program"))?;
    let ready_file = folder.join(name);
    let log: Stdio = match &args.logs {
        Some(logs) => {
            std::fs::create_dir_all(logs).map_err(Error::io(logs.display().to_string()))?;
            let path = logs.join(format!("{name}.log"));
            std::fs::File::create(&path).map_err(Error::io(path.display().to_string()))?.into()
        }
        None => std::io::stderr().into(),
    };
    let mut child = Command::new(program);
    child
        .arg(command)
        .args(["--redis-url", &args.backends.redis_url])
        .args(["--database-url", &args.backends.database_url])
        .args(["--kafka-brokers", &args.backends.kafka_brokers])
        .args(["--namespace", args.backends.namespace.namespace.as_str()])
        .arg("--stop-on-stdin-close")
        .arg("--ready-file")
        .arg(&ready_file)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(log)
        .kill_on_drop(true);
    if args.free_ports {
        child.args(["--port", "0"]);
    }
    if command == "els" {
        let ElsArgs { workers, series_cap, series_linger, .. } = &args.els;
        child.args(["--workers", &workers.to_string()]);
        child.args(["--series-cap", &series_cap.to_string()]);
        child.args(["--series-linger", &series_linger.to_string()]);
        if let Some(fault) = args.els.fault {
            child.args([
                "--fault",
                fault.as_str(),
                "--fault-rate",
                &args.els.fault_rate.to_string(),
            ]);
        }
    }
    // A recording must be whole: room for a burst, unless the caller knows better.
    for queue in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_QUEUE_SIZE"] {
        if std::env::var_os(queue).is_none() {
            child.env(queue, "65536");
        }
    }
    let mut child = child.spawn().map_err(Error::io(format!("starting {name}")))?;
    let stdin = child.stdin.take();
    Ok(Service { name, child, stdin, ready_file })
}

impl Service {
    /// Its base URL, once it is ready.
    async fn ready(&mut self) -> Result<String, Error> {
        let deadline = tokio::time::Instant::now() + START_PATIENCE;
        loop {
            if let Ok(url) = std::fs::read_to_string(&self.ready_file) {
                return Ok(url);
            }
            if let Some(status) = self.child.try_wait().map_err(Error::io(self.name))? {
                return Err(ended(self.name, Ok(status)));
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::Timeout(format!(
                    "{} was not ready within {START_PATIENCE:?}",
                    self.name
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn ended(name: &str, status: std::io::Result<ExitStatus>) -> Error {
    match status {
        Ok(status) => Error::Usage(format!("{name} ended by itself ({status}); its log says why")),
        Err(source) => Error::Io { what: name.to_owned(), source },
    }
}

#[allow(clippy::print_stdout, reason = "the URLs are this command's result")]
fn announce(addresses: &Addresses) -> Result<(), Error> {
    let line = serde_json::to_string(addresses).map_err(|e| Error::Usage(e.to_string()))?;
    println!("{line}");
    Ok(())
}
