//! Writing the log: whole groups of frames, each group synced before anybody is answered.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use lacuna_signal::SignalKind;
use parking_lot::Mutex;

use super::frame::{self, FLAG_TRAILER, FRAME_HEAD, FRAME_TRAILER, FrameHead};
use super::{LogFile, file_path};
use crate::counters::{Meters, add};
use crate::error::StoreError;
use crate::files::{Files, WriteFile};

/// A request ready to be written: compressed and checksummed by the thread that appends it.
#[derive(Debug, Clone)]
pub struct Body {
    kind: SignalKind,
    stored: Bytes,
    raw: u32,
    flags: u8,
    crc: u32,
}

/// What compresses requests, kept to be used again: to make one costs more than to compress a small
/// request. There are as many as ever compressed at once.
#[derive(Default)]
pub struct Compressors(Mutex<Vec<zstd::bulk::Compressor<'static>>>);

impl Compressors {
    fn compress(&self, raw: &[u8], level: i32) -> Option<Vec<u8>> {
        let idle = self.0.lock().pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => zstd::bulk::Compressor::new(level).ok()?,
        };
        // One that failed is not used again.
        let packed = compressor.compress(raw).ok()?;
        self.0.lock().push(compressor);
        Some(packed)
    }
}

impl Body {
    /// Prepares `raw`. A body that zstd cannot shrink is stored as it is. The level is always that
    /// of the first call.
    pub fn new(
        kind: SignalKind,
        raw: Bytes,
        zstd_level: Option<i32>,
        compressors: &Compressors,
    ) -> Self {
        let packed = zstd_level.and_then(|level| compressors.compress(&raw, level));
        let size = raw.len() as u32;
        let (stored, flags) = match packed {
            Some(packed) if packed.len() < raw.len() => (Bytes::from(packed), frame::FLAG_ZSTD),
            _ => (raw, 0),
        };
        let crc = crc32fast::hash(&stored);
        Self { kind, stored, raw: size, flags, crc }
    }

    /// Bytes that the body, its head and its trailer take in the log.
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEAD + self.stored.len() + FRAME_TRAILER
    }

    fn head(&self, seq: u64) -> FrameHead {
        FrameHead {
            stored: self.stored.len() as u32,
            raw: self.raw,
            kind: self.kind,
            flags: self.flags | FLAG_TRAILER,
            seq,
            body_crc: self.crc,
        }
    }
}

struct Current {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    first: u64,
    len: u64,
}

/// The log files that are closed and still needed, oldest first.
pub type ClosedFiles = Arc<Mutex<Vec<LogFile>>>;

/// The log's writing end.
pub struct Writer {
    files: Arc<dyn Files>,
    folder: PathBuf,
    file_limit: u64,
    meters: Arc<Meters>,
    current: Option<Current>,
    closed: ClosedFiles,
    next: u64,
}

impl Writer {
    /// A writer whose next frame has number `next`. It begins a file of its own.
    pub fn new(
        files: Arc<dyn Files>,
        folder: PathBuf,
        file_limit: u64,
        meters: Arc<Meters>,
        closed: ClosedFiles,
        next: u64,
    ) -> Self {
        Self { files, folder, file_limit, meters, current: None, closed, next }
    }

    /// Number of the next frame. All frames below it are in closed files after [`Self::rotate`].
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends `bodies` and syncs. After an error none of them counts as written: what reached the
    /// file is cut off again, or the file is given up if that fails too.
    pub fn append(&mut self, bodies: &[&Body]) -> Result<(), StoreError> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin()?,
        };
        let ends = |(body, seq): (&&Body, u64)| {
            let head = body.head(seq);
            (head.encode(), head.trailer())
        };
        let ends: Vec<_> = bodies.iter().zip(self.next..).map(ends).collect();
        let mut parts = Vec::with_capacity(3 * bodies.len());
        for ((head, trailer), body) in ends.iter().zip(bodies) {
            parts.push(IoSlice::new(head));
            parts.push(IoSlice::new(&body.stored));
            parts.push(IoSlice::new(trailer));
        }
        let bytes: u64 = bodies.iter().map(|body| body.frame_bytes() as u64).sum();
        if let Err(error) = current.file.append(&mut parts) {
            let error = StoreError::io(&current.path, "write", error);
            if current.file.truncate(current.len).is_ok() {
                self.current = Some(current);
            } else {
                self.skip_numbers(bodies.len());
                self.retire(current);
            }
            return Err(error);
        }
        if let Err(error) = current.file.sync() {
            // After a failed sync nobody knows which pages are on the disk (and the next sync may
            // say that all is well), so this file takes no more frames.
            let error = StoreError::io(&current.path, "sync", error);
            if current.file.truncate(current.len).is_err() {
                self.skip_numbers(bodies.len());
            }
            self.retire(current);
            return Err(error);
        }
        self.next += bodies.len() as u64;
        current.len += bytes;
        add(&self.meters.wal_bytes, bytes);
        add(&self.meters.wal_syncs, 1);
        let full = current.len >= self.file_limit;
        self.current = Some(current);
        if full {
            self.rotate();
        }
        Ok(())
    }

    /// Closes the current file, so that later frames go to another. A file without frames stays.
    pub fn rotate(&mut self) {
        if let Some(current) = self.current.take_if(|current| current.first < self.next) {
            self.retire(current);
        }
    }

    /// Bytes in all files.
    pub fn bytes(&self) -> u64 {
        let closed: u64 = self.closed.lock().iter().map(|file| file.bytes).sum();
        closed + self.current.as_ref().map_or(0, |current| current.len)
    }

    fn begin(&self) -> Result<Current, StoreError> {
        let path = file_path(&self.folder, self.next);
        let head = frame::file_head(self.next);
        let begin = || -> io::Result<Box<dyn WriteFile>> {
            let mut file = self.files.create(&path)?;
            file.append(&mut [IoSlice::new(&head)])?;
            file.sync()?;
            self.files.sync_dir(&self.folder)?;
            Ok(file)
        };
        match begin() {
            Ok(file) => Ok(Current { file, path, first: self.next, len: head.len() as u64 }),
            Err(error) => {
                let _ = self.files.remove(&path);
                Err(StoreError::io(&path, "begin a log file", error))
            }
        }
    }

    /// Frames that could not be cut off may be found again, so their numbers are not used again.
    fn skip_numbers(&mut self, frames: usize) {
        self.next += frames as u64;
    }

    /// Puts a file that takes no more frames to the closed ones; removes it if it has none.
    fn retire(&mut self, current: Current) {
        let Current { path, first, len, .. } = current;
        if first < self.next {
            self.closed.lock().push(LogFile { path, first, bytes: len });
        } else {
            // If it stays, the next file, which gets the same name, replaces it.
            let _ = self.files.remove(&path);
        }
    }
}

/// Removes the files of `closed` that begin below `floor`. As the log is rotated where memory is
/// frozen, and `floor` is such a place, all their frames are below it. Oldest first, so that what a
/// crash leaves behind has no gaps. Gives the bytes freed.
pub fn remove_below(
    files: &dyn Files,
    closed: &ClosedFiles,
    floor: u64,
    meters: &Meters,
) -> Result<u64, StoreError> {
    let mut closed = closed.lock();
    let mut freed = 0;
    while let Some(file) = closed.first().filter(|file| file.first < floor) {
        match files.remove(&file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io(&file.path, "remove", error));
            }
            _ => {}
        }
        add(&meters.wal_files_removed, 1);
        freed += closed.remove(0).bytes;
    }
    Ok(freed)
}
