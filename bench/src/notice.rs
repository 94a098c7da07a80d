//! `lacuna-bench notice`: from a deadline to the moment at which a webhook is told that it passed.
//!
//! Activations come in real time, each of a contract of its own whose outcome never comes; other
//! spans keep the time going. Lateness is zero: what is measured is what the server adds to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use crate::common::{Common, now_nanos};
use crate::error::BenchError;
use crate::http1::Http1;
use crate::print::{figure, heading};
use crate::stats::Samples;

/// How long an outcome may take.
const WITHIN: u64 = 1_000_000_000;
/// Between spans that keep the time going.
const STEP: Duration = Duration::from_millis(20);
/// After the last deadline, what has not been told by then is lost.
const PATIENCE: u64 = 10_000_000_000;

/// Options of `notice`.
#[derive(Debug, Args)]
pub struct Notice {
    #[command(flatten)]
    common: Common,
    /// Deadlines that pass.
    #[arg(long, default_value_t = 200)]
    deadlines: usize,
}

/// When what each contract found was told, nanoseconds since the epoch.
type Told = Arc<Mutex<HashMap<String, u64>>>;

impl Notice {
    /// Measures and prints.
    pub async fn run(self) -> Result<(), BenchError> {
        let room = self.common.room()?;
        let contracts = room.path().join("contracts");
        std::fs::create_dir(&contracts)?;
        let each = |i| {
            format!(
                "  - name: c{i}\n    when: '{{ name = \"take.{i}\" }}'\n    \
                 expect: '{{ name = \"done.{i}\" }}'\n    key: [span.key]\n    within: 1s\n"
            )
        };
        let text: String = (0..self.deadlines).map(each).collect();
        std::fs::write(contracts.join("all.yaml"), format!("contracts:\n{text}"))?;

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let hook = format!("http://{}", listener.local_addr()?);
        let told = Told::default();
        tokio::spawn(receive(listener, Arc::clone(&told)));
        let dir = contracts.display().to_string();
        let options = ["--contracts", &dir, "--webhook", &hook, "--lateness", "0s", "--idle", "1h"];
        let server = self.common.start_with(&room, &options.map(str::to_owned)).await?;

        let mut to = Http1::connect(server.http).await?;
        let mut deadlines = HashMap::new();
        let mut last = 0;
        for i in 0.. {
            let now = now_nanos();
            if i < self.deadlines {
                deadlines.insert(format!("contract/c{i}"), now + WITHIN);
                last = now + WITHIN;
                post(&mut to, &span(i, &format!("take.{i}"), now)).await?;
            } else {
                post(&mut to, &span(i, "tick", now)).await?;
            }
            let all = told.lock().await.len() >= self.deadlines;
            if all || (i >= self.deadlines && now > last + PATIENCE) {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
        server.stop().await?;
        let told = told.lock().await;
        let mut samples = Samples::default();
        for (contract, deadline) in &deadlines {
            if let Some(at) = told.get(contract) {
                samples.push(Duration::from_nanos(at.saturating_sub(*deadline)));
            }
        }
        heading("a deadline passes -> a webhook has been told, lateness 0");
        figure("deadlines, told", format!("{}, {}", deadlines.len(), samples.len()));
        figure("deadline -> told", samples.summary());
        if samples.len() < deadlines.len() {
            return Err(BenchError::Wrong("findings were not told".to_owned()));
        }
        Ok(())
    }
}

fn span(id: usize, name: &str, start: u64) -> Value {
    let attribute = json!({"key": "key", "value": {"stringValue": "k"}});
    json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "bench"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": format!("{:032x}", id + 1), "spanId": format!("{:016x}", id + 1),
            "name": name, "kind": 1, "attributes": [attribute],
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": start.to_string(),
        }]}],
    }]})
}

async fn post(to: &mut Http1, body: &Value) -> Result<(), BenchError> {
    let (status, answer) = to.post_json("/v1/traces", Bytes::from(body.to_string())).await?;
    if status.is_success() {
        return Ok(());
    }
    Err(BenchError::Wrong(format!("{status}: {}", String::from_utf8_lossy(&answer))))
}

async fn receive(listener: TcpListener, told: Told) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(take(stream, Arc::clone(&told)));
    }
}

/// Answers 200 to every request of a connection, and notes which contract it is about.
async fn take(mut stream: TcpStream, told: Told) {
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        read.extend_from_slice(&buffer[..count]);
        while let Some(body) = whole(&mut read) {
            let finding: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let (Some(source), "open") =
                (finding["source"].as_str(), finding["status"].as_str().unwrap_or_default())
            {
                told.lock().await.entry(source.to_owned()).or_insert_with(now_nanos);
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// The body of the first whole request in `read`, which is taken out.
fn whole(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    (read.len() >= head + length).then(|| {
        let body = read[head..head + length].to_vec();
        read.drain(..head + length);
        body
    })
}
