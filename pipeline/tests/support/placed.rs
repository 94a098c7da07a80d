//! One essay, sent by hand and followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Pipeline;

/// An essay that fills its batch, and the ids by which its way can be found.
#[derive(Debug)]
pub struct Placed {
    /// Of the upload's caller, which has no spans of its own here.
    pub trace_id: String,
    pub caller_span_id: String,
    /// The upload's, and so the essay's.
    pub correlation_id: String,
    /// The registration's, and so the batch's.
    pub batch_correlation_id: String,
    pub batch_id: String,
    pub essay_id: String,
}

fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Pipeline {
    /// Registers a batch that expects `essays`; its id.
    pub async fn register(&self, essays: u32, correlation_id: &str) -> String {
        let registered = reqwest::Client::new()
            .post(format!("{}/v1/batches", self.at.bos))
            .header("x-correlation-id", correlation_id)
            .json(&json!({ "expected_essays": essays }));
        let registered: Value = registered.send().await.unwrap().json().await.unwrap();
        registered["batch_id"].as_str().unwrap().to_owned()
    }

    /// Uploads one essay; its id.
    pub async fn upload(&self, batch_id: &str, headers: &[(&str, &str)]) -> String {
        let mut request = reqwest::Client::new()
            .post(format!("{}/v1/batches/{batch_id}/files", self.at.file))
            .json(&json!({ "files": [{ "name": "essay.txt", "content": "the river" }] }));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
        let uploaded: Value = response.json().await.unwrap();
        uploaded["essays"][0]["essay_id"].as_str().unwrap().to_owned()
    }

    /// Sends one essay into a batch of its own and waits until BOS says that the batch is ready.
    pub async fn place_one(&self) -> Placed {
        let (correlation_id, batch_correlation_id) = (id(), id());
        let trace_id = uuid::Uuid::new_v4().simple().to_string();
        let caller_span_id = trace_id[8..24].to_owned();
        let batch_id = self.register(1, &batch_correlation_id).await;
        let parent = format!("00-{trace_id}-{caller_span_id}-01");
        let headers = [("traceparent", parent.as_str()), ("x-correlation-id", &correlation_id)];
        let essay_id = self.upload(&batch_id, &headers).await;
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let batch: Value = self.json(&format!("{}/v1/batches/{batch_id}", self.at.bos)).await;
            if batch["state"] == "ready" {
                break;
            }
            assert!(Instant::now() < patience, "not ready: {batch}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Placed {
            trace_id,
            caller_span_id,
            correlation_id,
            batch_correlation_id,
            batch_id,
            essay_id,
        }
    }

    async fn json(&self, url: &str) -> Value {
        reqwest::get(url).await.unwrap().json().await.unwrap()
    }

    /// Switches parts of all three services' instrumentation, by a list like `LACUNA_INSTRUMENT`'s.
    pub async fn instrument(&self, list: &'static str) {
        for base in [&self.at.bos, &self.at.file, &self.at.els] {
            let request = reqwest::Client::new().post(format!("{base}/instrument")).body(list);
            let response = request.send().await.unwrap();
            assert!(response.status().is_success(), "{}", response.text().await.unwrap());
        }
    }

    /// Where the services' log lines are; it outlives them.
    pub fn log_folder(&self) -> LogFolder {
        LogFolder(self.folder.clone())
    }
}

/// The services' log lines.
pub struct LogFolder(Arc<tempfile::TempDir>);

impl LogFolder {
    /// All lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let files = std::fs::read_dir(self.0.path().join("logs")).unwrap();
        let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
    }
}
