//! Starting and ending the servers that are measured, each a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::error::BenchError;
use crate::process::{self, Cpu};
use crate::sink::SinkKind;

/// A server that has not said that it is ready after this long is not going to.
const START_LIMIT: Duration = Duration::from_secs(180);

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: u32,
    /// OTLP/gRPC.
    pub grpc: u16,
    /// OTLP/HTTP; 0 if it has none.
    pub http: u16,
    /// Queries; 0 if it has none.
    pub query: u16,
    /// From starting the process until it took requests.
    pub started_in: Duration,
}

impl Server {
    /// Starts `lacuna serve` on free ports with its data in `data`. What it logs goes to `log`.
    pub async fn lacuna(
        binary: &Path,
        data: &Path,
        log: &Path,
        arguments: &[String],
    ) -> Result<Self, BenchError> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(BenchError::io(log.display().to_string()))?;
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--otlp-grpc", "0", "--otlp-http", "0", "--query", "0"])
            .args(arguments)
            .stderr(log);
        let mut ports = [0_u16; 3];
        let mut server = Self::start(command, |line| {
            let port = || line.rsplit_once(':').and_then(|(_, port)| port.trim().parse().ok());
            for (place, name) in ["OTLP/gRPC", "OTLP/HTTP", "queries"].iter().enumerate() {
                if line.starts_with(name) {
                    ports[place] = port().unwrap_or(0);
                }
            }
            line == "ready"
        })
        .await?;
        [server.grpc, server.http, server.query] = ports;
        if ports.contains(&0) {
            return Err(BenchError::Wrong("the server did not say its ports".to_owned()));
        }
        Ok(server)
    }

    /// Starts a server that keeps nothing.
    pub async fn sink(kind: SinkKind) -> Result<Self, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("sink").arg(match kind {
            SinkKind::Prost => "prost",
            SinkKind::Raw => "raw",
        });
        let mut port = 0;
        let mut server = Self::start(command, |line| {
            port = line.parse().unwrap_or(0);
            true
        })
        .await?;
        server.grpc = port;
        Ok(server)
    }

    async fn start(
        mut command: Command,
        mut ready: impl FnMut(&str) -> bool,
    ) -> Result<Self, BenchError> {
        let begun = Instant::now();
        let program = PathBuf::from(command.as_std().get_program());
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(BenchError::io(format!("cannot start {}", program.display())))?;
        let pid = child.id().unwrap_or(0);
        let out = child.stdout.take();
        let mut lines = BufReader::new(
            out.ok_or_else(|| BenchError::Wrong("the server has no output".to_owned()))?,
        )
        .lines();
        let wait = async {
            while let Some(line) = lines.next_line().await? {
                if ready(&line) {
                    return Ok(());
                }
            }
            Err(BenchError::Wrong(format!("{} ended before it was ready", program.display())))
        };
        tokio::time::timeout(START_LIMIT, wait).await.map_err(|_| {
            BenchError::Wrong(format!("{} was not ready in {START_LIMIT:?}", program.display()))
        })??;
        let started_in = begun.elapsed();
        // Whatever else it prints must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, pid, grpc: 0, http: 0, query: 0, started_in })
    }

    /// Processor time so far.
    pub fn cpu(&self) -> Result<Cpu, BenchError> {
        process::cpu(self.pid)
    }

    /// Peak resident memory in MiB.
    pub fn peak_memory(&self) -> Result<f64, BenchError> {
        process::memory(self.pid, "VmHWM")
    }

    /// Resident memory now in MiB.
    pub fn memory(&self) -> Result<f64, BenchError> {
        process::memory(self.pid, "VmRSS")
    }

    /// Ends it at once, as `kill -9` does.
    pub async fn kill(mut self) -> Result<(), BenchError> {
        self.child.kill().await.map_err(BenchError::io("cannot kill the server"))
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|error| BenchError::io("cannot end the server")(error.into()))?;
        }
        if tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await.is_err() {
            return Err(BenchError::Wrong("the server did not end in 120 s".to_owned()));
        }
        Ok(())
    }
}
