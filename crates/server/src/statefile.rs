//! Small files beside the store's: one line of head, then a body, replaced only as a whole.
//!
//! The head is `MAGIC VERSION CRC`: the CRC-32 (IEEE) of the body in eight hex digits.
//! `docs/format.md` has the table.

use std::io;
use std::path::{Path, PathBuf};

use lacuna_store::files::{Files, OsFiles};

/// What a file is, and where.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
    magic: &'static str,
    version: u32,
}

/// What stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// There is none.
    Absent,
    /// It is of no use; why.
    Unusable(String),
    /// The body, as it was written.
    Body(Vec<u8>),
}

impl StateFile {
    /// The file `name` in `folder`, whose head says `magic` and `version`.
    pub fn new(folder: &Path, name: &str, magic: &'static str, version: u32) -> Self {
        Self { path: folder.join(name), magic, version }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the file: after a crash it holds the old body or this one.
    ///
    /// # Errors
    /// The disk is full or failed.
    pub fn save(&self, body: &[u8]) -> io::Result<()> {
        let crc = crc32fast::hash(body);
        let mut bytes = format!("{} {} {crc:08x}\n", self.magic, self.version).into_bytes();
        bytes.extend_from_slice(body);
        OsFiles.replace(&self.path, &bytes)
    }

    /// Reads the file.
    pub fn load(&self) -> Loaded {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Loaded::Absent,
            Err(error) => return Loaded::Unusable(format!("cannot be read: {error}")),
        };
        self.parse(bytes).unwrap_or_else(|why| Loaded::Unusable(why.to_owned()))
    }

    fn parse(&self, mut bytes: Vec<u8>) -> Result<Loaded, &'static str> {
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no head line")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "its head line is not text")?;
        let mut words = head.split(' ');
        if words.next() != Some(self.magic) {
            return Err("it is another kind of file");
        }
        if words.next() != Some(self.version.to_string().as_str()) {
            return Err("another version wrote it");
        }
        let crc = words.next().map(str::to_owned);
        let body = bytes.split_off(end + 1);
        if crc != Some(format!("{:08x}", crc32fast::hash(&body))) {
            return Err("its checksum does not match");
        }
        Ok(Loaded::Body(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_wrote_and_finds_every_flipped_byte() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path(), "state", "lacuna-test", 3);
        assert_eq!(file.load(), Loaded::Absent);
        file.save(b"the body\nof it").unwrap();
        assert_eq!(file.load(), Loaded::Body(b"the body\nof it".to_vec()));
        let bytes = std::fs::read(file.path()).unwrap();
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            std::fs::write(file.path(), &other).unwrap();
            assert!(matches!(file.load(), Loaded::Unusable(_)), "byte {at}");
            std::fs::write(file.path(), &bytes[..at]).unwrap();
            assert!(matches!(file.load(), Loaded::Unusable(_)), "cut at {at}");
        }
        let newer = StateFile::new(dir.path(), "state", "lacuna-test", 4);
        std::fs::write(file.path(), &bytes).unwrap();
        assert_eq!(newer.load(), Loaded::Unusable("another version wrote it".to_owned()));
    }
}
