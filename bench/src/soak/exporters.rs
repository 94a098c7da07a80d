//! Exporters that never give up, and what they were told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tonic::Code;

use crate::common::now_nanos;
use crate::error::BenchError;
use crate::generate::{Shape, Workload};
use crate::grpc::{self, Exporter};

/// How long an exporter waits after a refusal, or for a server.
const PAUSE: Duration = Duration::from_millis(250);

/// What exporters were told so far.
#[derive(Debug, Default, Clone)]
pub struct Told {
    /// Spans acknowledged.
    pub spans: u64,
    /// Requests refused for the moment.
    pub refused: u64,
    /// How often a request was taken that had been refused before.
    pub recovered: u64,
    /// Requests whose answer never came.
    pub broken: u64,
    /// Numbers of the requests acknowledged.
    acknowledged: BTreeSet<u64>,
    /// A refusal for good, which nobody expects.
    wrong: Option<String>,
}

#[derive(Debug)]
struct Shared {
    load: Workload,
    shape: Shape,
    next: AtomicU64,
    stop: AtomicBool,
    told: Mutex<Told>,
}

/// Exporters under way.
#[derive(Debug)]
pub struct Exporters {
    shared: Arc<Shared>,
    server: watch::Sender<Option<u16>>,
}

impl Exporters {
    /// Starts `count` of them; they wait until they are told of a server.
    pub fn start(load: Workload, shape: Shape, count: usize) -> Self {
        let shared = Arc::new(Shared {
            load,
            shape,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            told: Mutex::default(),
        });
        let (server, port) = watch::channel(None);
        for _ in 0..count {
            tokio::spawn(export(Arc::clone(&shared), port.clone()));
        }
        Self { shared, server }
    }

    /// Tells them the OTLP/gRPC port of the server that runs now, if one does.
    pub fn send_to(&self, port: Option<u16>) {
        self.server.send_replace(port);
    }

    /// Lets them end.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// What they were told.
    pub fn told(&self) -> Told {
        self.shared.told().clone()
    }

    /// The load that they send.
    pub fn load(&self) -> &Workload {
        &self.shared.load
    }

    /// When the spans of a request begin, in nanoseconds since the epoch.
    pub fn time_of(&self, number: u64) -> u64 {
        self.shared.shape.begin + number * self.shared.shape.step
    }

    /// The requests whose spans begin at `from` or later and whose flows are there as a whole, since
    /// the request after each, which has the rest of them, was acknowledged too.
    pub fn whole_since(&self, from: u64) -> Vec<u64> {
        let first =
            from.saturating_sub(self.shared.shape.begin) / self.shared.shape.step.max(1) + 1;
        let mut told = self.shared.told();
        // What is older is not asked for again.
        told.acknowledged = told.acknowledged.split_off(&first);
        let acknowledged = &told.acknowledged;
        acknowledged.iter().copied().filter(|n| acknowledged.contains(&(n + 1))).collect()
    }

    /// # Errors
    /// A request was refused for good.
    pub fn check(&self) -> Result<(), BenchError> {
        match &self.shared.told().wrong {
            Some(why) => Err(BenchError::Wrong(why.clone())),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next request: the one of this moment, or the one after the last, which is yet to come.
    fn pick(&self) -> u64 {
        let due = now_nanos().saturating_sub(self.shape.begin) / self.shape.step.max(1);
        let pick = |next: u64| Some(next.max(due) + 1);
        let last = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pick);
        last.unwrap_or(due).max(due)
    }
}

async fn export(shared: Arc<Shared>, mut port: watch::Receiver<Option<u16>>) {
    let mut connection: Option<Exporter> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.pick();
        let time = shared.shape.begin + number * shared.shape.step;
        sleep(Duration::from_nanos(time.saturating_sub(now_nanos()))).await;
        let (body, spans) = shared.load.traces(number);
        let mut refused = false;
        while !shared.stop.load(Ordering::Relaxed) {
            let Some(exporter) = &mut connection else {
                let Some(server) = *port.borrow_and_update() else {
                    if port.changed().await.is_err() {
                        return;
                    }
                    continue;
                };
                match Exporter::connect(server, false).await {
                    Ok(exporter) => connection = Some(exporter),
                    Err(_) => sleep(PAUSE).await,
                }
                continue;
            };
            match exporter.export(grpc::TRACES, body.clone()).await {
                Ok(_) => {
                    let mut told = shared.told();
                    told.spans += spans;
                    told.recovered += u64::from(refused);
                    told.acknowledged.insert(number);
                    break;
                }
                Err(BenchError::Grpc(status)) if status.code() == Code::ResourceExhausted => {
                    let mut told = shared.told();
                    told.refused += 1;
                    if status.details().is_empty() {
                        told.wrong = Some(format!("refused for good: {status}"));
                        return;
                    }
                    refused = true;
                }
                Err(BenchError::Grpc(status)) if status.code() == Code::InvalidArgument => {
                    shared.told().wrong = Some(format!("refused for good: {status}"));
                    return;
                }
                Err(_) => {
                    shared.told().broken += 1;
                    connection = None;
                }
            }
            sleep(PAUSE).await;
        }
    }
}
