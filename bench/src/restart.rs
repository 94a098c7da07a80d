//! `lacuna-bench restart`: how long a start takes after `kill -9`, and whether all is there.

use std::sync::Arc;

use clap::Args;

use crate::common::{Common, now_nanos};
use crate::error::BenchError;
use crate::generate::{Shape, Workload};
use crate::ingest::disk;
use crate::print::{figure, grouped, heading};
use crate::query::Asker;
use crate::send::{Plan, Signals, Transport, send};

/// Options of `restart`.
#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    common: Common,
    /// OTLP MiB to send before the kill.
    #[arg(long, default_value_t = 1100)]
    mib: u64,
    /// Spans a request.
    #[arg(long, default_value_t = 8192)]
    batch: usize,
}

impl Restart {
    /// Measures and prints.
    pub async fn run(self) -> Result<(), BenchError> {
        let load = Arc::new(Workload::new(Shape {
            seed: self.common.seed,
            spans_per_request: self.batch,
            begin: now_nanos().saturating_sub(3_000_000_000),
            step: self.batch as u64 * 2_000,
        }));
        let (bytes, spans) = load.traces(0);
        let each = bytes.len() as u64 / spans.max(1);
        let end = load.requests_for((self.mib << 20) / each.max(1));
        let room = self.common.room()?;
        let server = self.common.start(&room).await?;
        heading(&format!("restart: {} MiB of OTLP, then kill -9", self.mib));
        figure("start on an empty folder", format!("{:.2} s", server.started_in.as_secs_f64()));
        let plan = Plan {
            transport: Transport::Grpc,
            gzip: false,
            connections: 4,
            in_flight: 2,
            first: 0,
            end,
            rate: None,
            signals: Signals::Traces,
        };
        let sent = send(&load, &server, plan).await?;
        server.kill().await?;
        figure("spans acknowledged before the kill", grouped(sent.spans as f64));
        disk("on disk at the kill", room.data(), sent.spans);
        let server = self.common.start(&room).await?;
        figure("kill -9 -> ready", format!("{:.2} s", server.started_in.as_secs_f64()));
        figure("memory after the start", format!("{:.0} MiB", server.memory()?));
        let mut asker = Asker::connect(server.query).await?;
        let (mut whole, mut asked) = (0, 0);
        for number in (0..end.saturating_sub(1)).step_by((end as usize / 200).max(1)) {
            let flow = load.sent_flow(number, number * 7);
            for trace in &flow.traces {
                asked += 1;
                whole += u64::from(asker.trace(trace).await?.1);
            }
        }
        figure("traces asked for, found whole", format!("{asked}, {whole}"));
        server.kill().await?;
        if whole < asked {
            return Err(BenchError::Wrong("acknowledged spans are missing".to_owned()));
        }
        Ok(())
    }
}
