//! `lacuna-bench soak`: the whole server for minutes, killed again and again, with retention on and
//! too little disk for what is sent.
//!
//! Exporters send spans of now, as fast as asked for and without a break. What was acknowledged and
//! is younger than the retention is looked for all the time, and after every kill.

mod exporters;

use std::time::{Duration, Instant};

use clap::Args;
use tokio::time::sleep;

use crate::common::{Common, Room, now_nanos};
use crate::error::BenchError;
use crate::generate::{Rng, Shape, Workload};
use crate::print::{figure, grouped, heading};
use crate::query::{Asker, metric};
use crate::server::Server;
use crate::space;
use exporters::{Exporters, Told};

/// How often memory and disk are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Looks from one search for what was acknowledged to the next.
const SEARCH_EVERY: u32 = 6;
/// Flows that are looked for: while it runs, after a kill, at the end.
const SEARCHED: (usize, usize, usize) = (20, 200, 2000);
/// Nanoseconds before the end of its retention from which a request is not looked for any more: it
/// may go while the answer is on its way.
const EDGE: u64 = 3_000_000_000;

/// Options of `soak`.
#[derive(Debug, Args)]
pub struct Soak {
    #[command(flatten)]
    common: Common,
    /// Minutes to run.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Spans a second that exporters try to send.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Spans a request.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Exporters.
    #[arg(long, default_value_t = 4)]
    exporters: usize,
    /// Seconds after which spans may be removed.
    #[arg(long, default_value_t = 30)]
    retention: u64,
    /// The server's memory limit in MiB.
    #[arg(long, default_value_t = 256)]
    memory: u64,
    /// The server's disk limit in MiB: less than what comes within the retention, so that it is
    /// reached.
    #[arg(long, default_value_t = 48)]
    disk: u64,
    /// A server lives for so many seconds at least before it is killed, …
    #[arg(long, default_value_t = 5)]
    kill_from: u64,
    /// … and at most.
    #[arg(long, default_value_t = 40)]
    kill_to: u64,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    kills: u32,
    slowest_start: Duration,
    at_rest: f64,
    peak_memory: f64,
    peak_disk: u64,
    last_disk: u64,
    searched: u64,
    expired: f64,
}

impl Soak {
    /// Runs and prints.
    pub async fn run(self) -> Result<(), BenchError> {
        let shape = Shape {
            seed: self.common.seed,
            spans_per_request: self.batch,
            begin: now_nanos(),
            step: self.batch as u64 * 1_000_000_000 / self.rate.max(1),
        };
        let room = self.common.room()?;
        let mut seen = Seen::default();
        let mut server = self.start(&room, &mut seen).await?;
        seen.at_rest = server.peak_memory()?;
        let exporters = Exporters::start(Workload::new(shape), shape, self.exporters);
        let mut rng = Rng::new(self.common.seed);
        let begun = Instant::now();
        let end = Duration::from_secs_f64(self.minutes * 60.0);
        while begun.elapsed() < end {
            exporters.send_to(Some(server.grpc));
            let spread = (self.kill_to.saturating_sub(self.kill_from) * 1000) as usize;
            let millis = self.kill_from * 1000 + rng.below(spread) as u64;
            let until = (begun.elapsed() + Duration::from_millis(millis)).min(end);
            let mut look = 0_u32;
            while begun.elapsed() < until {
                sleep(LOOK).await;
                look += 1;
                seen.look(&server, &room)?;
                exporters.check()?;
                if look.is_multiple_of(SEARCH_EVERY) {
                    self.search(&server, &exporters, &mut rng, SEARCHED.0, &mut seen).await?;
                }
            }
            seen.expired += expired(&server).await?;
            exporters.send_to(None);
            server.kill().await?;
            seen.kills += 1;
            server = self.start(&room, &mut seen).await?;
            self.search(&server, &exporters, &mut rng, SEARCHED.1, &mut seen).await?;
        }
        let took = begun.elapsed();
        exporters.stop();
        seen.last_disk = space::bytes(room.data());
        self.search(&server, &exporters, &mut rng, SEARCHED.2, &mut seen).await?;
        seen.expired += expired(&server).await?;
        server.stop().await?;
        self.common.check(&room).await?;
        let told = exporters.told();
        self.print(took, &seen, &told);
        self.judge(&seen, &told)
    }

    async fn start(&self, room: &Room, seen: &mut Seen) -> Result<Server, BenchError> {
        let options = [
            format!("--retention-age={}s", self.retention),
            format!("--memory-limit={}MiB", self.memory),
            format!("--disk-limit={}MiB", self.disk),
        ];
        let server = self.common.start_with(room, &options).await?;
        seen.slowest_start = seen.slowest_start.max(server.started_in);
        Ok(server)
    }

    /// Looks for up to `most` flows that were acknowledged and must be there.
    async fn search(
        &self,
        server: &Server,
        exporters: &Exporters,
        rng: &mut Rng,
        most: usize,
        seen: &mut Seen,
    ) -> Result<(), BenchError> {
        let retention = self.retention * 1_000_000_000;
        let mut whole = exporters.whole_since(now_nanos().saturating_sub(retention - EDGE));
        let mut asker = Asker::connect(server.query).await?;
        for _ in 0..most.min(whole.len()) {
            let number = whole.swap_remove(rng.below(whole.len()));
            let flow = exporters.load().sent_flow(number, rng.next());
            for trace in &flow.traces {
                let found = asker.spans(trace).await?;
                if found >= trace.spans as usize {
                    seen.searched += 1;
                    continue;
                }
                let age = now_nanos().saturating_sub(exporters.time_of(number));
                // It took long to ask: the spans may be too old by now.
                if age < retention {
                    return Err(BenchError::Wrong(format!(
                        "lost: {found} of {} spans of trace {}, acknowledged in request {number}, \
                         {:.1} s old, after {} kills",
                        trace.spans,
                        hex::encode(trace.id),
                        age as f64 / 1e9,
                        seen.kills
                    )));
                }
            }
        }
        Ok(())
    }

    fn print(&self, took: Duration, seen: &Seen, told: &Told) {
        heading(&format!(
            "soak: {:.1} min, {} spans/s wanted, retention {} s, memory {} MiB, disk {} MiB",
            took.as_secs_f64() / 60.0,
            grouped(self.rate as f64),
            self.retention,
            self.memory,
            self.disk
        ));
        figure("kills", seen.kills.to_string());
        figure("slowest start after a kill", format!("{:.2} s", seen.slowest_start.as_secs_f64()));
        figure("spans acknowledged", grouped(told.spans as f64));
        figure("requests refused for the moment", grouped(told.refused as f64));
        figure("times refused, then taken again", grouped(told.recovered as f64));
        figure("requests broken off by kills", grouped(told.broken as f64));
        figure("spans removed by retention", grouped(seen.expired));
        figure("traces found whole, none lost", grouped(seen.searched as f64));
        figure(
            "memory at rest, peak",
            format!("{:.0} MiB, {:.0} MiB", seen.at_rest, seen.peak_memory),
        );
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (peak, last) = (mib(seen.peak_disk), mib(seen.last_disk));
        figure("disk, peak, at the end", format!("{peak:.1} MiB, {last:.1} MiB"));
    }

    /// Whether all was as promised.
    fn judge(&self, seen: &Seen, told: &Told) -> Result<(), BenchError> {
        // The limit is for telemetry: what the process takes at rest comes on top, and a quarter that
        // the allocator does not give back at once.
        let most_memory = self.memory as f64 * 1.25 + seen.at_rest;
        let limit = self.disk << 20;
        // A segment is written while its log is still there.
        let most_disk = limit + (self.memory << 20) / 16;
        let wrong = if seen.peak_memory > most_memory {
            format!(
                "it took more memory than its limit and what it takes at rest, {most_memory} MiB"
            )
        } else if seen.peak_disk > most_disk {
            format!("it took more than {} MiB of disk", most_disk >> 20)
        } else if told.recovered == 0 {
            "the disk was never full and free again: run longer, or with a smaller --disk"
                .to_owned()
        } else if seen.expired == 0.0 {
            "retention never removed anything: run longer".to_owned()
        } else {
            return Ok(());
        };
        Err(BenchError::Wrong(wrong))
    }
}

impl Seen {
    fn look(&mut self, server: &Server, room: &Room) -> Result<(), BenchError> {
        self.peak_memory = self.peak_memory.max(server.peak_memory()?);
        self.peak_disk = self.peak_disk.max(space::bytes(room.data()));
        Ok(())
    }
}

/// Rows that this server has removed for their age.
async fn expired(server: &Server) -> Result<f64, BenchError> {
    metric(server.query, "lacuna_store_rows_expired_total").await
}
