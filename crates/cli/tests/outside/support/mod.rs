//! What the tests stand on: a server process, a plain HTTP client, telemetry to send.

pub mod answers;
pub mod export;
pub mod grpc;
pub mod http;
pub mod otlp;
pub mod receiver;
pub mod server;
pub mod tls;

use std::time::{Duration, Instant};

/// Nothing that is waited for takes this long, unless it never comes.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until `ask` answers; `what` says what is waited for.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
