//! Files whose bytes are checked as they are read: one CRC-32 for each 4 KiB.
//!
//! Parquet's own page checksums are optional and its Rust writer has none, so the checksums lie in
//! the side index.

use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::Bytes;

use crate::error::StoreError;
use crate::files::{ReadFile, WriteFile};

/// Bytes that one checksum covers.
pub const BLOCK: usize = 4096;
/// Bytes gathered before the file system is asked to write.
const BUFFER: usize = 256 << 10;

/// Writes a file and notes its checksums.
pub struct BlockWriter {
    file: Box<dyn WriteFile>,
    buffer: Vec<u8>,
    crcs: Vec<u32>,
    hasher: crc32fast::Hasher,
    in_block: usize,
    len: u64,
}

impl BlockWriter {
    /// Writes to `file`, which is empty.
    pub fn new(file: Box<dyn WriteFile>) -> Self {
        let (buffer, hasher) = (Vec::with_capacity(BUFFER), crc32fast::Hasher::new());
        Self { file, buffer, crcs: Vec::new(), hasher, in_block: 0, len: 0 }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.len
    }

    /// Makes all bytes durable; their number and checksums.
    pub fn finish(mut self) -> io::Result<(u64, Vec<u32>)> {
        self.drain()?;
        self.file.sync()?;
        if self.in_block > 0 {
            self.crcs.push(self.hasher.finalize());
        }
        Ok((self.len, self.crcs))
    }

    fn drain(&mut self) -> io::Result<()> {
        self.file.append(&mut [IoSlice::new(&self.buffer)])?;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - self.in_block));
            self.hasher.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK {
                self.crcs.push(std::mem::take(&mut self.hasher).finalize());
                self.in_block = 0;
            }
            rest = later;
        }
        self.len += bytes.len() as u64;
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.drain()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file and checks what it reads.
#[derive(Clone)]
pub struct BlockFile {
    path: PathBuf,
    file: Arc<dyn ReadFile>,
    len: u64,
    crcs: Arc<[u32]>,
}

impl BlockFile {
    /// `file`, which must have `len` bytes with checksums `crcs`.
    pub fn new(path: &Path, file: Arc<dyn ReadFile>, len: u64, crcs: Arc<[u32]>) -> Self {
        Self { path: path.to_owned(), file, len, crcs }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells that `pieces` (first byte, length) will be read.
    pub fn will_read(&self, pieces: &[(u64, u64)]) {
        self.file.will_read(pieces);
    }

    /// Bytes `start..start + len`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if they are not what was written, or not there.
    pub fn read(&self, start: u64, len: usize) -> Result<Bytes, StoreError> {
        let damaged = |detail: String| StoreError::corrupt(&self.path, detail);
        let end = start.checked_add(len as u64).filter(|end| *end <= self.len);
        let Some(end) = end else {
            return Err(damaged(format!("{len} bytes at {start} are beyond the file's end")));
        };
        let first = start / BLOCK as u64;
        let from = first * BLOCK as u64;
        let to = end.next_multiple_of(BLOCK as u64).min(self.len);
        let mut bytes = vec![0; (to - from) as usize];
        self.file.read_at(&mut bytes, from).map_err(|error| {
            damaged(format!("cannot read {} bytes at {from}: {error}", to - from))
        })?;
        for (i, block) in bytes.chunks(BLOCK).enumerate() {
            let number = first as usize + i;
            if self.crcs.get(number) != Some(&crc32fast::hash(block)) {
                let at = number * BLOCK;
                return Err(damaged(format!("the checksum of the block at {at} does not match")));
            }
        }
        let skip = (start - from) as usize;
        Ok(Bytes::from(bytes).slice(skip..skip + len))
    }

    /// Checks every byte; the blocks that are damaged.
    pub fn verify(&self) -> Vec<StoreError> {
        let mut errors = Vec::new();
        if let Ok(size) = self.file.size()
            && size != self.len
        {
            let detail = format!("has {size} bytes, {} were written", self.len);
            errors.push(StoreError::corrupt(&self.path, detail));
        }
        let starts = (0..self.len).step_by(BLOCK);
        errors.extend(starts.filter_map(|start| {
            self.read(start, (self.len - start).min(BLOCK as u64) as usize).err()
        }));
        errors
    }
}

impl Length for BlockFile {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for BlockFile {
    type T = BlockRead;

    fn get_read(&self, start: u64) -> Result<BlockRead, ParquetError> {
        Ok(BlockRead { file: self.clone(), position: start, buffer: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.read(start, length).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads on from one place.
pub struct BlockRead {
    file: BlockFile,
    position: u64,
    buffer: Bytes,
}

impl Read for BlockRead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            let left = self.file.len.saturating_sub(self.position);
            let len = left.min(8 * BLOCK as u64) as usize;
            self.buffer = self.file.read(self.position, len).map_err(io::Error::other)?;
            self.position += len as u64;
        }
        let taken = self.buffer.split_to(out.len().min(self.buffer.len()));
        out[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Files, OsFiles};

    #[test]
    fn reads_back_any_piece_and_finds_any_flipped_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let content: Vec<u8> = (0..BLOCK * 2 + 100).map(|i| (i % 251) as u8).collect();
        let mut writer = BlockWriter::new(OsFiles.create(&path).unwrap());
        for piece in content.chunks(777) {
            writer.write_all(piece).unwrap();
        }
        let (len, crcs) = writer.finish().unwrap();
        let open =
            || BlockFile::new(&path, OsFiles.open(&path).unwrap(), len, Arc::from(crcs.as_slice()));
        for (start, size) in [(0, 10), (4090, 20), (8192, 100), (0, content.len()), (5, 0)] {
            assert_eq!(open().read(start as u64, size).unwrap(), &content[start..start + size]);
        }
        assert!(open().read(8192, 101).is_err());
        assert!(open().verify().is_empty());
        let mut read = Vec::new();
        open().get_read(4000).unwrap().take(5000).read_to_end(&mut read).unwrap_or_default();
        assert_eq!(read, &content[4000..content.len()]);
        for at in [0, 4095, 4096, content.len() - 1] {
            let mut other = content.clone();
            other[at] ^= 4;
            std::fs::write(&path, &other).unwrap();
            assert!(open().read(at as u64, 1).is_err());
            assert_eq!(open().verify().len(), 1);
        }
    }
}
