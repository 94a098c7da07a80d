//! What all measurements share: where the binary is, room on disk, the seed.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use crate::error::BenchError;
use crate::server::Server;

/// Options of all measurements.
#[derive(Debug, Args)]
pub struct Common {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/lacuna")]
    lacuna: PathBuf,
    /// Where temporary folders are made; they are removed at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The seed of the load.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Seconds without change after which background work counts as done.
    #[arg(long, default_value_t = 5)]
    pub quiet: u64,
    /// Seconds to wait for background work at most.
    #[arg(long, default_value_t = 180)]
    pub settle: u64,
    /// A further option for `lacuna serve`; may be repeated.
    #[arg(long = "serve-option", allow_hyphen_values = true)]
    serve_options: Vec<String>,
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Room {
    dir: tempfile::TempDir,
    data: PathBuf,
}

impl Room {
    /// The whole of it.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The server's data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }
}

impl Common {
    /// A new temporary folder.
    pub fn room(&self) -> Result<Room, BenchError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("lacuna-bench-");
        let dir = match &self.dir {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        }
        .map_err(BenchError::io("cannot make a temporary folder"))?;
        let data = dir.path().join("data");
        Ok(Room { dir, data })
    }

    /// Starts `lacuna serve` in `room`.
    pub async fn start(&self, room: &Room) -> Result<Server, BenchError> {
        self.start_with(room, &[]).await
    }

    /// Lets `lacuna store check` verify every checksum in `room`.
    ///
    /// # Errors
    /// It found something.
    pub async fn check(&self, room: &Room) -> Result<(), BenchError> {
        let mut command = tokio::process::Command::new(&self.lacuna);
        command.args(["store", "check", "--data"]).arg(room.data());
        let done = command.output().await.map_err(BenchError::io("lacuna store check"))?;
        if done.status.success() {
            return Ok(());
        }
        let said = [done.stdout, done.stderr].concat();
        Err(BenchError::Wrong(String::from_utf8_lossy(&said).into_owned()))
    }

    /// Starts `lacuna serve` in `room` with further options.
    pub async fn start_with(&self, room: &Room, more: &[String]) -> Result<Server, BenchError> {
        let log = room.path().join("serve.log");
        let options = [&self.serve_options[..], more].concat();
        let started = Server::lacuna(&self.lacuna, room.data(), &log, &options).await;
        started.map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            BenchError::Wrong(format!("{error}\n{}", said.trim_end()))
        })
    }
}

/// Now, in nanoseconds since the epoch.
pub fn now_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
