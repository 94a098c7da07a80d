//! The file layer: everything that the store asks of a file system.
//!
//! It is a trait so that tests can run out of disk, lose power between any two operations or flip
//! bits. [`OsFiles`] is the real one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file being written, from its beginning to its end.
pub trait WriteFile: Send {
    /// Appends all bytes of all `parts`. After an error, any prefix may have been written.
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Returns when all bytes appended so far are on stable storage (`fdatasync`).
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `len` bytes; the next append goes there.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

/// A file being read. Keeps readable after the name is removed.
pub trait ReadFile: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Tells that `pieces` (first byte, length) will be read, so that a disk can fetch them side by
    /// side instead of one after the other. Changes nothing else.
    fn will_read(&self, pieces: &[(u64, u64)]) {
        let _ = pieces;
    }
}

/// One entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// File name, without the folder. Names that are not UTF-8 are never the store's.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
}

/// A file system.
pub trait Files: Send + Sync {
    /// Creates `path` for writing, emptying what was there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;
    /// Opens `path` for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>>;
    /// Moves `from` to `to`, replacing it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes the file `path`.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Cuts `path` to `len` bytes, durably.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Makes the names in folder `path` durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The files in folder `path`, by name.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Creates folder `path` and those above it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that a user may still write on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// All of `path`'s bytes.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let size = usize::try_from(file.size()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces `path` by `bytes` so that after a crash it holds the old or the new content: a
    /// temporary file is written, synced and renamed, and the folder synced.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary_name(path);
        let mut file = self.create(&temporary)?;
        file.append(&mut [IoSlice::new(bytes)])?;
        file.sync()?;
        drop(file);
        self.rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| self.sync_dir(folder))
    }
}

/// Ends the names of files that are not complete yet; recovery removes them.
pub const TEMPORARY: &str = ".tmp";

/// Where `path` is built before it gets its name.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY);
    PathBuf::from(name)
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

struct OsWrite(File);

impl WriteFile for OsWrite {
    fn append(&mut self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.0.write_vectored(parts) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut parts, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        // Opened for appending, so the next write goes to the new end.
        self.0.set_len(len)
    }
}

impl ReadFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    #[cfg(target_os = "linux")]
    fn will_read(&self, pieces: &[(u64, u64)]) {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        // Mostly all of them are in memory; three are asked whether they are.
        let asked = [pieces.first(), pieces.get(pieces.len() / 2), pieces.last()];
        let absent = asked.into_iter().flatten().any(|(start, _)| {
            let mut byte = [0];
            let byte = &mut [io::IoSliceMut::new(&mut byte)];
            preadv2(self, byte, *start, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
        });
        if absent {
            for (start, len) in pieces {
                let len = std::num::NonZeroU64::new(*len);
                // Advice that is not taken costs nothing but time.
                let _ = rustix::fs::fadvise(self, *start, len, rustix::fs::Advice::WillNeed);
            }
        }
    }
}

impl Files for OsFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Box::new(OsWrite(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                entries.push(Entry { name, size: metadata.len() });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_after_truncation_go_to_the_new_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut file = OsFiles.create(&path).unwrap();
        file.append(&mut [IoSlice::new(b""), IoSlice::new(b"abc"), IoSlice::new(b"def")]).unwrap();
        file.truncate(4).unwrap();
        file.append(&mut [IoSlice::new(b"X")]).unwrap();
        file.sync().unwrap();
        assert_eq!(OsFiles.read(&path).unwrap(), b"abcdX");
    }

    #[test]
    fn replace_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        OsFiles.replace(&path, b"1").unwrap();
        OsFiles.replace(&path, b"22").unwrap();
        let expected = [Entry { name: "f".to_owned(), size: 2 }];
        assert_eq!(OsFiles.list(dir.path()).unwrap(), expected);
    }
}
