//! Where findings are kept, told on, and taken on: the book with its file, its readers and its
//! channels.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use lacuna_signal::finding::{Acknowledgement, Finding};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{broadcast, watch};

use crate::book::{Book, Change, ChangeKind};
use crate::statefile::{Loaded, StateFile};

/// Name of the book in the data folder.
const FILE_NAME: &str = "FINDINGS";
const MAGIC: &str = "lacuna-findings";
const VERSION: u32 = 1;

/// Changes that a slow reader of the stream may be behind before it has to begin anew.
const STREAM: usize = 1_024;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    book: Mutex<Book>,
    file: StateFile,
    /// Held from a change of the book until it is written and published, so that both happen in
    /// the order of the changes.
    order: Mutex<()>,
    /// Says that a channel may have something to tell.
    wake: watch::Sender<()>,
    /// Readers of the stream; `None` after the stop.
    stream: Mutex<Option<broadcast::Sender<Arc<Change>>>>,
    failures: AtomicU64,
}

impl Desk {
    /// The desk of a data folder. A book that is of no use is begun anew, with a warning.
    pub fn open(data: &Path, channels: &[String]) -> Self {
        let file = StateFile::new(data, FILE_NAME, MAGIC, VERSION);
        let book = match file.load() {
            Loaded::Absent => Ok(Book::new(channels)),
            Loaded::Body(body) => Book::from_bytes(&body, channels),
            Loaded::Unusable(why) => Err(why),
        };
        let book = book.unwrap_or_else(|why| {
            let path = file.path().display();
            tracing::warn!("{path}: acknowledgements and notices are lost, begun anew: {why}");
            Book::new(channels)
        });
        Self {
            book: Mutex::new(book),
            file,
            order: Mutex::default(),
            wake: watch::Sender::new(()),
            stream: Mutex::new(Some(broadcast::Sender::new(STREAM))),
            failures: AtomicU64::new(0),
        }
    }

    /// The book, locked: keep it only for as long as it takes to copy what is needed.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock()
    }

    /// Takes what the monitor says of everything, settled up to `watermark`. Whoever is to be told
    /// is told when the book has been written.
    pub fn update(&self, findings: Vec<Finding>, watermark: Option<Timestamp>) {
        let _order = self.order.lock();
        let changes = self.book.lock().update(findings, watermark, Timestamp::now());
        self.publish(changes);
    }

    /// Sets or takes back who has taken a finding on; `None` if it is not known or not open.
    pub fn acknowledge(&self, fingerprint: &str, by: Option<Acknowledgement>) -> Option<Finding> {
        let _order = self.order.lock();
        let change = self.book.lock().acknowledge(fingerprint, by)?;
        let finding = change.finding.clone();
        self.publish(vec![change]);
        Some(finding)
    }

    fn publish(&self, changes: Vec<Arc<Change>>) {
        if changes.iter().any(|change| change.kind != ChangeKind::Changed) {
            self.write();
            self.wake.send_replace(());
        }
        if let Some(stream) = &*self.stream.lock() {
            for change in changes {
                // An error says that nobody reads.
                let _ = stream.send(change);
            }
        }
    }

    /// Takes notices off what `channel` has yet to be told.
    pub fn told(&self, channel: &str, ids: &[u64]) {
        let _order = self.order.lock();
        self.book.lock().told(channel, ids);
        self.write();
    }

    fn write(&self) {
        let bytes = self.book.lock().to_bytes();
        if let Err(error) = self.file.save(&bytes) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!("{}: cannot be written: {error}", self.file.path().display());
        }
    }

    /// How often the book could not be written.
    pub fn write_failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Tells when a channel may have something to tell.
    pub fn waker(&self) -> watch::Receiver<()> {
        self.wake.subscribe()
    }

    /// Changes from now on; `None` after the stop.
    pub fn subscribe(&self) -> Option<broadcast::Receiver<Arc<Change>>> {
        self.stream.lock().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Ends all streams.
    pub fn close_streams(&self) {
        self.stream.lock().take();
    }
}
