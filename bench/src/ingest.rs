//! `lacuna-bench ingest`: how fast spans are taken durably, and what that costs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::common::{Common, Room, now_nanos};
use crate::error::BenchError;
use crate::generate::{Shape, Workload};
use crate::print::{figure, grouped, heading};
use crate::process::{self, Cpu};
use crate::send::{Plan, Sent, Signals, Transport, send};
use crate::server::Server;
use crate::sink::SinkKind;
use crate::space;

/// Options of `ingest`.
#[derive(Debug, Args)]
pub struct Ingest {
    #[command(flatten)]
    common: Common,
    /// Spans to send.
    #[arg(long, default_value_t = 2_000_000)]
    spans: u64,
    /// Spans a request: SDKs send 512, Collectors 8192.
    #[arg(long, default_value_t = 8192)]
    batch: usize,
    /// Connections.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests under way at once on each connection.
    #[arg(long, default_value_t = 2)]
    in_flight: usize,
    /// The wire.
    #[arg(long, value_enum, default_value = "grpc")]
    transport: Transport,
    /// Compress what is sent (the load generator pays for it while it sends).
    #[arg(long)]
    gzip: bool,
    /// Spans per second to keep to; without, as fast as they are acknowledged.
    #[arg(long)]
    rate: Option<u64>,
    /// What to send.
    #[arg(long, value_enum, default_value = "traces")]
    signals: Signals,
    /// Also measure servers that keep nothing, and plain writes of the same bytes.
    #[arg(long)]
    baselines: bool,
    /// Measure with the contracts of this folder and without, in turn, and tell the ratio.
    #[arg(long, value_name = "DIR")]
    contracts: Option<PathBuf>,
    /// Measure only the servers that keep nothing and the plain writes.
    #[arg(long)]
    only_baselines: bool,
}

struct Measured {
    sent: Sent,
    server: Cpu,
    own: Cpu,
}

impl Measured {
    fn micros_per_span(&self) -> f64 {
        self.server.total() * 1e6 / self.sent.spans.max(1) as f64
    }

    fn print(&self) {
        let (sent, seconds) = (&self.sent, self.sent.took.as_secs_f64());
        figure("spans acknowledged", grouped(sent.spans as f64));
        if sent.logs + sent.points > 0 {
            figure(
                "log records, metric points",
                format!("{}, {}", grouped(sent.logs as f64), grouped(sent.points as f64)),
            );
        }
        figure("OTLP bytes a span", format!("{:.0}", sent.bytes as f64 / sent.spans.max(1) as f64));
        figure("spans per second", grouped(sent.spans as f64 / seconds));
        figure(
            "server CPU",
            format!(
                "{:.2} s (user {:.2}, system {:.2}) = {:.2} us a span, {:.0} % of one core",
                self.server.total(),
                self.server.user,
                self.server.system,
                self.micros_per_span(),
                100.0 * self.server.total() / seconds
            ),
        );
        figure(
            "spans per second per core of the server",
            grouped(sent.spans as f64 / self.server.total().max(1e-9)),
        );
        figure(
            "load generator CPU (not counted above)",
            format!(
                "{:.2} s (user {:.2}, system {:.2})",
                self.own.total(),
                self.own.user,
                self.own.system
            ),
        );
        figure("sent -> acknowledged", sent.latency.summary());
        if sent.refused > 0 {
            figure("refused as busy, sent again", sent.refused.to_string());
        }
    }
}

impl Ingest {
    /// Measures and prints.
    pub async fn run(self) -> Result<(), BenchError> {
        let load = Arc::new(Workload::new(Shape {
            seed: self.common.seed,
            spans_per_request: self.batch,
            begin: now_nanos().saturating_sub(3_000_000_000),
            // About real time at half a million spans a second.
            step: self.batch as u64 * 2_000,
        }));
        let requests = load.requests_for(self.spans);
        heading(&format!(
            "load: {} spans, {} a request, {} connections x {} in flight, {:?}{}, {:.1} % errors",
            grouped(self.spans as f64),
            self.batch,
            self.connections,
            self.in_flight,
            self.transport,
            if self.gzip { " gzip" } else { "" },
            100.0 * load.failed_share(),
        ));
        let generation = {
            let before = process::cpu(std::process::id())?;
            let count = requests.min(100);
            let bytes: usize = (0..count).map(|n| load.traces(n).0.len()).sum();
            let used = process::cpu(std::process::id())?.since(before).total();
            (bytes as f64, used * 1e6 / load.spans_of(count).max(1) as f64)
        };
        figure("making the load", format!("{:.2} us of CPU a span", generation.1));
        if self.baselines || self.only_baselines {
            self.baselines(&load, requests).await?;
        }
        if self.only_baselines {
            return Ok(());
        }
        if let Some(contracts) = &self.contracts {
            return self.compare(&load, requests, contracts).await;
        }
        let room = self.common.room()?;
        self.lacuna(&load, requests, &room).await
    }

    /// Without and with contracts, twice in turn: what else the machine does falls on both.
    async fn compare(
        &self,
        load: &Arc<Workload>,
        requests: u64,
        contracts: &Path,
    ) -> Result<(), BenchError> {
        let with = ["--contracts".to_owned(), contracts.display().to_string()];
        let mut cost = [0.0, 0.0];
        let mut took = [0.0, 0.0];
        for _ in 0..2 {
            for (which, options) in [&[][..], &with[..]].into_iter().enumerate() {
                let room = self.common.room()?;
                let server = self.common.start_with(&room, options).await?;
                let measured = Self::measure(load, &server, self.plan(0, requests)).await?;
                heading(["without contracts", "with contracts"][which]);
                measured.print();
                cost[which] += measured.micros_per_span();
                took[which] += measured.sent.took.as_secs_f64();
                server.stop().await?;
            }
        }
        heading("with contracts against without");
        figure("server CPU a span", format!("{:.2} times", cost[1] / cost[0].max(1e-9)));
        figure("time until acknowledged", format!("{:.2} times", took[1] / took[0].max(1e-9)));
        Ok(())
    }

    fn plan(&self, first: u64, end: u64) -> Plan {
        Plan {
            transport: self.transport,
            gzip: self.gzip,
            connections: self.connections,
            in_flight: self.in_flight,
            first,
            end,
            rate: self.rate,
            signals: self.signals,
        }
    }

    async fn measure(
        load: &Arc<Workload>,
        server: &Server,
        plan: Plan,
    ) -> Result<Measured, BenchError> {
        let (before, own) = (server.cpu()?, process::cpu(std::process::id())?);
        let sent = send(load, server, plan).await?;
        let own = process::cpu(std::process::id())?.since(own);
        Ok(Measured { sent, server: server.cpu()?.since(before), own })
    }

    async fn baselines(&self, load: &Arc<Workload>, requests: u64) -> Result<(), BenchError> {
        for (kind, name) in [
            (SinkKind::Raw, "baseline: tonic takes the bytes and drops them"),
            (SinkKind::Prost, "baseline: tonic and prost decode and drop (nothing kept)"),
        ] {
            let server = Server::sink(kind).await?;
            let plan = Plan {
                transport: Transport::Grpc,
                signals: Signals::Traces,
                rate: None,
                ..self.plan(0, requests)
            };
            let measured = Self::measure(load, &server, plan).await?;
            heading(name);
            measured.print();
            server.kill().await?;
        }
        let room = self.common.room()?;
        for (group, what) in [(1, "fdatasync each request"), (16, "fdatasync each 16 requests")] {
            let requests = requests.min(load.requests_for(1_000_000));
            let done = space::raw_write(load, room.path(), requests, group)?;
            let seconds = done.took.as_secs_f64();
            heading(&format!("baseline: the same bytes to one file, {what}"));
            figure("MB per second", format!("{:.0}", done.bytes as f64 / 1e6 / seconds));
            figure("spans per second", grouped(done.spans as f64 / seconds));
            figure("CPU", format!("{:.2} us a span", done.cpu * 1e6 / done.spans.max(1) as f64));
            figure("write and fdatasync", done.latency.summary());
        }
        Ok(())
    }

    async fn lacuna(
        &self,
        load: &Arc<Workload>,
        requests: u64,
        room: &Room,
    ) -> Result<(), BenchError> {
        let server = self.common.start(room).await?;
        let idle = server.memory()?;
        let before = server.cpu()?;
        let measured = Self::measure(load, &server, self.plan(0, requests)).await?;
        heading("lacuna serve");
        measured.print();
        figure(
            "memory at start, peak so far",
            format!("{idle:.0} MiB, {:.0} MiB", server.peak_memory()?),
        );
        disk("on disk at the last acknowledgement", room.data(), measured.sent.spans);
        let calm = space::settled(
            room.data(),
            &server,
            Duration::from_secs(self.common.quiet),
            Duration::from_secs(self.common.settle),
        )
        .await?;
        let all = server.cpu()?.since(before);
        heading(if calm {
            "lacuna serve, when its background work is done"
        } else {
            "lacuna serve, background work not done in the time given"
        });
        figure(
            "server CPU with all background work",
            format!(
                "{:.2} s = {:.2} us a span",
                all.total(),
                all.total() * 1e6 / measured.sent.spans.max(1) as f64
            ),
        );
        figure(
            "spans per second per core, all work included",
            grouped(measured.sent.spans as f64 / all.total().max(1e-9)),
        );
        figure(
            "memory peak, now",
            format!("{:.0} MiB, {:.0} MiB", server.peak_memory()?, server.memory()?),
        );
        disk("on disk", room.data(), measured.sent.spans);
        server.stop().await?;
        disk("on disk after a clean stop", room.data(), measured.sent.spans);
        Ok(())
    }
}

/// Prints what a folder holds, by kind of file and by span.
pub fn disk(name: &str, dir: &Path, spans: u64) {
    let kinds = space::by_kind(dir);
    let total: u64 = kinds.values().sum();
    let each = |bytes: u64| bytes as f64 / spans.max(1) as f64;
    let parts: Vec<String> = kinds
        .iter()
        .filter(|(_, bytes)| each(**bytes) >= 0.05)
        .map(|(kind, bytes)| format!("{kind} {:.1}", each(*bytes)))
        .collect();
    figure(
        name,
        format!(
            "{:.1} B a span ({} MB: {})",
            each(total),
            grouped(total as f64 / 1e6),
            parts.join(", ")
        ),
    );
}
