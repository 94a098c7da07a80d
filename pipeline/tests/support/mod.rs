//! Runs the real pipeline on the real servers, and catches its telemetry.
//!
//! Nothing here is skipped when a server is missing: the test fails and says what to run.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

mod engine;
pub mod metrics;
mod otlp;
mod placed;
mod trace;

pub use engine::Engine;
pub use otlp::{Collected, Span};
pub use placed::{LogFolder, Placed};
pub use trace::Trace;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde::Deserialize;

pub const PIPELINE: &str = env!("CARGO_BIN_EXE_pipeline");

/// One of the servers' URLs, from the environment.
pub fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run `scripts/services up`, then `eval \"$(scripts/services env)\"`")
    })
}

/// A name that no other run has.
pub fn namespace() -> String {
    format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}

#[derive(Debug, Deserialize)]
pub struct Truth {
    pub settled: bool,
    pub essays: Vec<Essay>,
    pub batches: Vec<Batch>,
}

#[derive(Debug, Deserialize)]
pub struct Essay {
    pub essay_id: String,
    pub batch_id: String,
    pub correlation_id: String,
    pub slot: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Batch {
    pub batch_id: String,
    pub correlation_id: String,
    pub expected: u32,
    pub ready: bool,
    pub ready_events: u32,
}

impl Truth {
    pub fn lost(&self) -> Vec<&Essay> {
        self.essays.iter().filter(|e| e.slot.is_none()).collect()
    }

    /// What must hold of every run, faults or not.
    pub fn assert_consistent(&self) {
        assert!(self.settled, "the pipeline did not settle");
        for batch in &self.batches {
            let mine: Vec<&Essay> =
                self.essays.iter().filter(|e| e.batch_id == batch.batch_id).collect();
            assert_eq!(mine.len(), batch.expected as usize, "every essay was provisioned");
            let mut slots: Vec<&str> = mine.iter().filter_map(|e| e.slot.as_deref()).collect();
            let whole = slots.len() == mine.len();
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(
                slots.len(),
                mine.iter().filter(|e| e.slot.is_some()).count(),
                "no slot twice"
            );
            assert_eq!(
                batch.ready, whole,
                "ready exactly when every essay has a slot: {}",
                batch.batch_id
            );
            assert_eq!(
                batch.ready_events,
                u32::from(whole),
                "ready is said once: {}",
                batch.batch_id
            );
        }
    }

    pub fn assert_healthy(&self) {
        self.assert_consistent();
        assert!(self.lost().is_empty(), "lost without a fault: {:?}", self.lost());
    }
}

#[derive(Debug, Deserialize)]
pub struct Addresses {
    pub bos: String,
    pub file: String,
    pub els: String,
    /// Of BOS, the file service and ELS, in this order.
    pub pids: Vec<u32>,
}

/// The three services, run by `pipeline up` in a namespace of their own. Dropping it ends them: their
/// standard input ends with it.
pub struct Pipeline {
    child: Child,
    pub at: Addresses,
    pub namespace: String,
    pub folder: std::sync::Arc<tempfile::TempDir>,
    collector: Option<otlp::Collector>,
}

impl Pipeline {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(arguments, &[]).await
    }

    /// Starts with more environment variables.
    pub async fn start_in(arguments: &[&str], more: &[(&'static str, &str)]) -> Self {
        let collector = otlp::Collector::start().await;
        let mut environment = collector.environment();
        environment.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self::launch(arguments, environment, Some(collector)).await
    }

    /// Starts with the telemetry going to a running engine.
    pub async fn start_watched_by(engine: &Engine) -> Self {
        Self::launch(&[], engine.environment(), None).await
    }

    async fn launch(
        arguments: &[&str],
        environment: impl IntoIterator<Item = (&'static str, String)>,
        collector: Option<otlp::Collector>,
    ) -> Self {
        for variable in ["REDIS_URL", "DATABASE_URL", "KAFKA_BROKERS"] {
            url(variable);
        }
        let (namespace, folder) = (namespace(), std::sync::Arc::new(tempfile::tempdir().unwrap()));
        let logs = folder.path().join("logs");
        let mut child = Command::new(PIPELINE)
            .args([
                "up",
                "--free-ports",
                "--stop-on-stdin-close",
                "--namespace",
                &namespace,
                "--logs",
            ])
            .arg(&logs)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        })
        .await
        .unwrap()
        .unwrap();
        let at = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("the pipeline did not start ({e}):\n{}", tails(&logs)));
        Self { child, at, namespace, folder, collector }
    }

    /// Sends batches and gives the truth about them.
    pub async fn load(&self, batches: u32, essays: u32, rate: u32, seed: u64) -> Truth {
        let out = self.folder.path().join(format!("truth-{seed}.json"));
        let mut load = Command::new(PIPELINE);
        load.args([
            "load",
            "--bos",
            &self.at.bos,
            "--file",
            &self.at.file,
            "--namespace",
            &self.namespace,
        ])
        .args(["--batches", &batches.to_string(), "--essays", &essays.to_string()])
        .args(["--rate", &rate.to_string(), "--seed", &seed.to_string(), "--out"])
        .arg(&out);
        let output = output(load).await;
        assert!(
            output.status.success(),
            "load: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            tails(&self.folder.path().join("logs"))
        );
        read(&out)
    }

    pub async fn fault(&self, arguments: &[&str]) {
        let mut fault = Command::new(PIPELINE);
        fault.arg("fault").args(arguments).args(["--els", &self.at.els]);
        let output = output(fault).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Every health check of every service.
    pub async fn assert_green(&self) {
        for base in [&self.at.bos, &self.at.file, &self.at.els] {
            for path in ["healthz", "readyz"] {
                let response = reqwest::get(format!("{base}/{path}")).await.unwrap();
                assert!(response.status().is_success(), "{base}/{path}: {}", response.status());
            }
        }
    }

    /// Stops the services, which flushes their telemetry, and gives all of it.
    /// What arrived so far.
    pub fn so_far(&self) -> Collected {
        self.collector.as_ref().map(otlp::Collector::collected).unwrap_or_default()
    }

    pub async fn stop(mut self) -> Collected {
        drop(self.child.stdin.take());
        let (mut child, collector) = (self.child, self.collector);
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "pipeline up: {status}");
        collector.map(|collector| collector.collected()).unwrap_or_default()
    }
}

/// One service on its own, for tests that kill it.
pub struct Service {
    child: Child,
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Service {
    /// Starts `pipeline <command>` and waits until it is ready.
    pub async fn start(command: &str, namespace: &str) -> Self {
        Self::start_with(command, namespace, &[]).await
    }

    pub async fn start_with(command: &str, namespace: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ready, log) = (folder.path().join("ready"), folder.path().join("log"));
        let mut child = Command::new(PIPELINE)
            .args([
                command,
                "--port",
                "0",
                "--stop-on-stdin-close",
                "--namespace",
                namespace,
                "--ready-file",
            ])
            .arg(&ready)
            .args(more)
            .env("OTEL_SDK_DISABLED", "true")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let url = loop {
            if let Ok(url) = std::fs::read_to_string(&ready) {
                break url;
            }
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "{command} ended:\n{}", log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        Self { child, url, _folder: folder }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no last word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Runs a command to its end without blocking the test's collector.
pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output())
        .await
        .unwrap()
        .unwrap()
}

pub fn read(path: &PathBuf) -> Truth {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tails(logs: &PathBuf) -> String {
    let mut all = String::new();
    for file in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        all += &format!(
            "--- {}\n{}\n",
            file.path().display(),
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    all
}
