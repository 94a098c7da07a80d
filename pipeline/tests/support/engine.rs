//! The real `lacuna serve`, beside the pipeline.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A running engine. Dropping it ends it.
pub struct Engine {
    child: Child,
    otlp_http: String,
    query: String,
    _folder: tempfile::TempDir,
}

/// The engine's binary lies beside the pipeline's: `cargo test --workspace` builds both.
fn binary() -> PathBuf {
    let binary = Path::new(super::PIPELINE).with_file_name("lacuna");
    assert!(binary.exists(), "{} is missing: run `cargo build -p lacuna`", binary.display());
    binary
}

impl Engine {
    /// Starts the engine with one file of contracts, on free ports.
    pub async fn start(contracts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let contracts_dir = folder.path().join("contracts");
        std::fs::create_dir(&contracts_dir).unwrap();
        std::fs::write(contracts_dir.join("pipeline.yaml"), contracts).unwrap();
        let mut child = Command::new(binary())
            .args(["serve", "--otlp-grpc", "0", "--otlp-http", "0", "--query", "0"])
            .args(["--lateness", "2s", "--idle", "2s", "--data"])
            .arg(folder.path().join("data"))
            .arg("--contracts")
            .arg(&contracts_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = tokio::task::spawn_blocking(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            let mut lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
            lines.retain(|line| line.contains("http://"));
            lines
        })
        .await
        .unwrap();
        let url = |what: &str| {
            let line = lines.iter().find(|line| line.starts_with(what));
            line.and_then(|line| line.split_whitespace().last()).unwrap().to_owned()
        };
        Self { child, otlp_http: url("OTLP/HTTP"), query: url("queries"), _folder: folder }
    }

    /// Where the services are to send their telemetry, and soon.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.otlp_http.clone()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
            ("OTEL_BLRP_SCHEDULE_DELAY", "200".to_owned()),
        ]
    }

    /// Its query port.
    pub fn url(&self) -> &str {
        &self.query
    }

    /// The JSON at `path`.
    pub async fn get(&self, path: &str) -> Value {
        let response = reqwest::get(format!("{}{path}", self.query)).await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
