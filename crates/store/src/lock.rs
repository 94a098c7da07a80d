//! One process a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::StoreError;

/// Name of the lock file in the data folder.
pub const FILE_NAME: &str = "LOCK";

/// Holds the lock; the operating system releases it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that this process is just starting holds a copy of
        // it until it executes its own program, and with it the lock.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Locks the data folder `dir`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process, or another store of this one, holds it.
    pub fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| StoreError::io(&path, "open for writing", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let known = file.read_to_string(&mut pid).is_ok_and(|read| read > 0);
                let holder = if known { format!(" (pid {})", pid.trim()) } else { String::new() };
                return Err(StoreError::Locked { path: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => {
                return Err(StoreError::io(&path, "lock", error));
            }
        }
        // The number is a courtesy to whoever finds the folder locked; it may fail.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
        Ok(Self { file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a store that was closed was still locked for as long as a child process, started
    /// by another thread, kept a copy of the lock's file.
    #[test]
    fn a_dropped_lock_is_free_even_if_a_child_has_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(StoreError::Locked { .. })));
        drop(lock);
        Lock::take(dir.path()).unwrap();
        drop(copy);
    }
}
