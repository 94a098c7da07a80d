//! A file system that runs full or loses power when told to.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use lacuna_store::files::{Entry, Files, OsFiles, ReadFile, WriteFile};

#[derive(Default)]
struct Plan {
    /// Bytes that may still be appended; `None`: any number.
    room: Option<u64>,
    /// Changing operations that still succeed; `None`: any number.
    operations: Option<u64>,
    /// Operations done so far.
    done: u64,
    /// By path: length written and length synced.
    lengths: HashMap<PathBuf, (u64, u64)>,
    fail_sync: bool,
}

/// Passes everything on to the real files, as long as its plan lets it.
#[derive(Clone, Default)]
pub struct FaultyFiles {
    plan: Arc<Mutex<Plan>>,
}

fn full() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl FaultyFiles {
    pub fn set_room(&self, bytes: Option<u64>) {
        self.plan.lock().unwrap().room = bytes;
    }

    pub fn set_fail_sync(&self, fail: bool) {
        self.plan.lock().unwrap().fail_sync = fail;
    }

    /// After `operations` more changes, power is lost: nothing succeeds any more.
    pub fn lose_power_after(&self, operations: u64) {
        self.plan.lock().unwrap().operations = Some(operations);
    }

    pub fn operations(&self) -> u64 {
        self.plan.lock().unwrap().done
    }

    /// Cuts files to what was synced, as losing power does at worst.
    pub fn drop_unsynced(&self) {
        for (path, (written, synced)) in &self.plan.lock().unwrap().lengths {
            if written > synced && path.exists() {
                OsFiles.truncate(path, *synced).unwrap();
            }
        }
    }

    /// Counts one change; an error once power is lost.
    fn step(&self) -> io::Result<()> {
        let mut plan = self.plan.lock().unwrap();
        if let Some(left) = &mut plan.operations {
            if *left == 0 {
                return Err(io::Error::other("power lost"));
            }
            *left -= 1;
        }
        plan.done += 1;
        Ok(())
    }
}

struct FaultyWrite {
    file: Box<dyn WriteFile>,
    path: PathBuf,
    files: FaultyFiles,
}

impl WriteFile for FaultyWrite {
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        // Power is lost in the middle of a write, not between two.
        let power = self.files.step();
        let mut plan = self.files.plan.lock().unwrap();
        let half = bytes.len() / 2;
        let fits = match (&power, plan.room) {
            (Err(_), _) => half,
            (Ok(()), Some(room)) => bytes.len().min(room as usize),
            (Ok(()), None) => bytes.len(),
        };
        if power.is_err() && plan.operations == Some(0) {
            // Only the write that power was lost in leaves anything.
            plan.operations = Some(0);
            if plan.lengths.contains_key(Path::new("/lost")) {
                return power;
            }
            plan.lengths.insert(PathBuf::from("/lost"), (0, 0));
        }
        self.file.append(&mut [IoSlice::new(&bytes[..fits])])?;
        if let Some(room) = &mut plan.room {
            *room -= fits as u64;
        }
        plan.lengths.entry(self.path.clone()).or_default().0 += fits as u64;
        power?;
        if fits < bytes.len() { Err(full()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.step()?;
        let mut plan = self.files.plan.lock().unwrap();
        if plan.fail_sync {
            return Err(io::Error::other("sync failed"));
        }
        if let Some((written, synced)) = plan.lengths.get_mut(&self.path) {
            *synced = *written;
        }
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.files.step()?;
        let mut plan = self.files.plan.lock().unwrap();
        if let Some((written, synced)) = plan.lengths.get_mut(&self.path) {
            *written = len;
            *synced = len.min(*synced);
        }
        self.file.truncate(len)
    }
}

impl Files for FaultyFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.step()?;
        self.plan.lock().unwrap().lengths.insert(path.to_owned(), (0, 0));
        let file = OsFiles.create(path)?;
        Ok(Box::new(FaultyWrite { file, path: path.to_owned(), files: self.clone() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        OsFiles.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let mut plan = self.plan.lock().unwrap();
        if let Some(lengths) = plan.lengths.remove(from) {
            plan.lengths.insert(to.to_owned(), lengths);
        }
        OsFiles.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.plan.lock().unwrap().lengths.remove(path);
        OsFiles.remove(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        self.step()?;
        OsFiles.truncate(path, len)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        OsFiles.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        OsFiles.list(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsFiles.create_dir(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
