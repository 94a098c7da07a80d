//! The store: opening, writing, closing.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use lacuna_signal::{Batch, SignalKind};
use parking_lot::{Mutex, RwLock};

use crate::admit::{Admission, Drain};
use crate::commit::Queue;
use crate::counters::{Counters, Meters};
use crate::error::StoreError;
use crate::imports;
use crate::lock::Lock;
use crate::manifest::Manifest;
use crate::options::Options;
use crate::part::Part;
use crate::question::{Charge, Question};
use crate::recover;
use crate::report::Recovery;
use crate::segment::codec::Codec;
use crate::segment::parquet::ParquetCodec;
use crate::state::State;
use crate::wake::Wake;
use crate::wal::writer::ClosedFiles;

/// Folder of the log's files within the data folder.
pub(crate) const WAL_FOLDER: &str = "wal";
/// Folder of the segments' files within the data folder.
pub(crate) const SEGMENT_FOLDER: &str = "segments";

/// What the threads of a store share.
pub(crate) struct Shared {
    pub options: Options,
    /// Nothing in the folder may be changed.
    pub read_only: bool,
    pub dir: PathBuf,
    pub meters: Arc<Meters>,
    pub state: RwLock<State>,
    pub manifest: Mutex<Manifest>,
    pub closed_logs: ClosedFiles,
    /// Bytes of requests that were admitted and are not committed yet.
    pub reserved: Arc<AtomicUsize>,
    /// Bytes that answers hold.
    pub answering: Arc<AtomicUsize>,
    pub drain: Drain,
    pub queue: Queue,
    pub tidy: Wake,
    pub flush: Wake,
    pub merge: Wake,
    /// Held while memory is written to segments.
    pub flushing: Mutex<()>,
    /// Held while segments are merged.
    pub merging: Mutex<()>,
    pub codec: Arc<dyn Codec>,
    /// Bytes of rows in memory, frozen or not.
    pub memory_bytes: AtomicUsize,
    /// Bytes of rows in memory that are not frozen.
    pub active_bytes: AtomicUsize,
    /// Number of the log's next frame.
    pub next_frame: AtomicU64,
    /// Writers of all log frames below this have been answered.
    pub answered: AtomicU64,
    /// Bytes of the log.
    pub wal_bytes: AtomicU64,
    /// Bytes of the segments.
    pub segment_bytes: AtomicU64,
}

impl Shared {
    fn new(options: Options, dir: PathBuf, read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            options,
            read_only,
            dir,
            meters: Arc::default(),
            state: RwLock::default(),
            manifest: Mutex::default(),
            closed_logs: ClosedFiles::default(),
            reserved: Arc::default(),
            answering: Arc::default(),
            drain: Drain::default(),
            queue: Queue::default(),
            tidy: Wake::default(),
            flush: Wake::default(),
            merge: Wake::default(),
            flushing: Mutex::default(),
            merging: Mutex::default(),
            codec: Arc::new(ParquetCodec::default()),
            memory_bytes: AtomicUsize::new(0),
            active_bytes: AtomicUsize::new(0),
            next_frame: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            wal_bytes: AtomicU64::new(0),
            segment_bytes: AtomicU64::new(0),
        })
    }

    /// An error if nothing may be changed.
    pub fn writable(&self) -> Result<(), StoreError> {
        if self.read_only { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    /// All parts of `kind` at this moment.
    pub fn parts(&self, kind: SignalKind) -> Vec<Arc<dyn Part>> {
        self.state.read().table(kind).parts()
    }

    /// Bytes of all files.
    pub fn disk_bytes(&self) -> u64 {
        self.wal_bytes.load(Ordering::Relaxed) + self.segment_bytes.load(Ordering::Relaxed)
    }

    /// Folder of the segments.
    pub fn segment_dir(&self) -> PathBuf {
        self.dir.join(SEGMENT_FOLDER)
    }

    /// Folder of the log.
    pub fn wal_dir(&self) -> PathBuf {
        self.dir.join(WAL_FOLDER)
    }
}

struct Handle {
    shared: Arc<Shared>,
    recovery: Recovery,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// A store that is only read has none.
    _lock: Option<Lock>,
}

/// A durable store of spans, logs and metric points in one folder.
///
/// Cloning is cheap. When the last clone is dropped, or after [`Store::close`], writes that wait
/// are committed and the threads end; rows in memory are read back from the log at the next start.
#[derive(Clone)]
pub struct Store {
    handle: Arc<Handle>,
    /// What the verbs of this handle gather is counted for it.
    question: Option<Arc<Question>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.handle.shared.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in folder `dir`, made if it is not there. What a crash left behind is put in
    /// order, the log read back; [`Store::recovery`] tells what was found.
    ///
    /// # Errors
    /// The folder cannot be made or written, another process uses it, or a newer Lacuna wrote it.
    /// Damage in files is no error.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let dir = dir.as_ref().to_owned();
        for folder in [dir.clone(), dir.join(WAL_FOLDER), dir.join(SEGMENT_FOLDER)] {
            options
                .files
                .create_dir(&folder)
                .map_err(|error| StoreError::io(&folder, "create the folder", error))?;
        }
        let lock = Lock::take(&dir)?;
        let shared = Shared::new(options, dir, false);
        let (writer, recovery) = recover::recover(&shared)?;
        imports::settle(shared.options.files.as_ref(), &shared.dir, writer.next())?;
        shared.next_frame.store(writer.next(), Ordering::Release);
        let handle = Handle {
            threads: Mutex::new(Vec::new()),
            shared: shared.clone(),
            recovery,
            _lock: Some(lock),
        };
        // From here on, dropping `store` ends the threads that were started.
        let store = Self { handle: Arc::new(handle), question: None };
        store.start("commit", {
            let shared = shared.clone();
            move || shared.commit_loop(writer)
        })?;
        for (name, run) in [
            ("tidy", Shared::tidy_loop as fn(Arc<Shared>)),
            ("flush", Shared::flush_loop),
            ("merge", Shared::merge_loop),
        ] {
            if name != "merge" || shared.options.background {
                let shared = shared.clone();
                store.start(name, move || run(shared))?;
            }
        }
        Ok(store)
    }

    /// Opens the store in folder `dir` to read what is there now, also while another process uses
    /// the folder: nothing there is changed, no lock is taken, and no thread runs. Segments are those
    /// of this moment, the log is read up to its last whole frame; what comes later is not seen.
    /// Whatever would write answers [`StoreError::ReadOnly`].
    ///
    /// # Errors
    /// The folder cannot be read, a newer Lacuna wrote it, or another process replaces its segments
    /// faster than they are read ([`StoreError::Changing`]).
    pub fn open_read_only(dir: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let shared = Shared::new(options, dir.as_ref().to_owned(), true);
        let (next, recovery) = recover::look(&shared)?;
        shared.next_frame.store(next, Ordering::Release);
        let threads = Mutex::new(Vec::new());
        let handle = Handle { threads, shared, recovery, _lock: None };
        Ok(Self { handle: Arc::new(handle), question: None })
    }

    fn start(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = thread::Builder::new()
            .name(format!("lacuna-{name}"))
            .spawn(run)
            .map_err(|error| StoreError::io(&self.shared().dir, "start a thread", error))?;
        self.handle.threads.lock().push(thread);
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// The handle by which `question` is answered.
    pub(crate) fn asking(&self, question: Question) -> Self {
        Self { handle: Arc::clone(&self.handle), question: Some(Arc::new(question)) }
    }

    pub(crate) fn charge(&self) -> Charge<'_> {
        Charge::new(self.question.as_deref())
    }

    /// Makes room for a request whose body has `bytes`. A receiver asks before it decodes, so that a
    /// request that finds no room costs nothing, and gives the room to [`Store::append_admitted`].
    ///
    /// # Errors
    /// [`StoreError::Busy`] if [`Options::memory_bytes`](crate::Options::memory_bytes) or
    /// [`Options::disk_bytes`](crate::Options::disk_bytes) has no room, with the time after which
    /// there will be some at the rate of the last flushes; [`StoreError::TooLarge`].
    pub fn admit(&self, bytes: usize) -> Result<Admission, StoreError> {
        self.shared().admit(bytes)
    }

    /// Makes the room of `admission` enough for a request whose body has `bytes`: for one whose size
    /// is not known before it has come, or been decompressed. What it has stays as it is if there is
    /// not enough.
    ///
    /// # Errors
    /// As [`Store::admit`], but for the disk.
    pub fn extend_admission(
        &self,
        admission: &mut Admission,
        bytes: usize,
    ) -> Result<(), StoreError> {
        self.shared().extend(admission, bytes)
    }

    /// As [`Store::append`], of a request that was admitted.
    pub fn append_admitted(
        &self,
        admission: Admission,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.handle.shared.append(Some(admission), kind, body, batch, Box::new(done));
    }

    /// Stores the OTLP protobuf request `body`, whose decoded rows are `batch`.
    ///
    /// `done` is called exactly once: with `Ok` when the request is on stable storage and its rows
    /// are visible to every query that begins from then on; with an error if it is not stored. It
    /// runs on a thread of the store, or before this returns, and must not block.
    pub fn append(
        &self,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        self.handle.shared.append(None, kind, body, batch, Box::new(done));
    }

    /// As [`Store::append`], but returns when the request is stored or refused.
    pub fn append_wait(
        &self,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
    ) -> Result<(), StoreError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.append(kind, body, batch, move |result| {
            let _ = sender.send(result);
        });
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Writes everything that is in memory now to segments and returns when that is durable. Not
    /// needed for durability: the log has it all.
    ///
    /// # Errors
    /// The disk is full or failed; the rows stay in memory and log.
    pub fn flush(&self) -> Result<(), StoreError> {
        let shared = self.shared();
        shared.writable()?;
        loop {
            // What is frozen already goes first; then what is active, which the committer freezes.
            shared.flush_frozen()?;
            let (sender, receiver) = mpsc::sync_channel(1);
            shared.queue.freeze_and(Box::new(move |all| {
                let _ = sender.send(all);
            }));
            match receiver.recv() {
                Ok(true) => return shared.flush_frozen(),
                // The committer had frozen something by itself in between.
                Ok(false) => {}
                Err(_) => return Err(StoreError::Closed),
            }
        }
    }

    /// Flushes, then merges segments of each kind as far as the size limit of merges lets it.
    ///
    /// # Errors
    /// The disk is full or failed; the segments stay as they are.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        while self.shared().merge_one(2)? {}
        Ok(())
    }

    /// Removes the segments that [`Options::retain_for`] and [`Options::retain_bytes`] do not keep.
    /// In the background this happens by itself.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn enforce_retention(&self) -> Result<(), StoreError> {
        self.shared().writable()?;
        self.shared().enforce_retention()
    }

    /// Number of the log's next frame: one for each request ever committed.
    pub(crate) fn next_frame(&self) -> u64 {
        self.shared().next_frame.load(Ordering::Acquire)
    }

    /// What opening the store found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// What the store counts about itself.
    pub fn counters(&self) -> Counters {
        self.handle.shared.meters.read()
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.handle.shared.dir
    }

    /// Commits what waits and ends the background threads. Reading still works; writing does not.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl Handle {
    fn close(&self) {
        self.shared.queue.close();
        self.shared.tidy.close();
        self.shared.flush.close();
        self.shared.merge.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // The last clone may be dropped by a `done`, on a thread of the store itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
