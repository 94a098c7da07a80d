//! Which files have been imported, and up to where: what lets an import go on after it was
//! interrupted, or killed, without doubling anything.
//!
//! The file `imports.json` lists them. It cannot be written in one step with the data, so it says
//! at which frame number of the log an import stood. An import is alone in its store and appends
//! in the order of the file, so the number of the next frame tells how many requests it committed
//! after that. Whoever opens the store next counts them, before anything else is appended.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::files::Files;
use crate::head;
use crate::store::Store;

/// Name of the file in the data folder.
pub const FILE_NAME: &str = "imports.json";
const MAGIC: &str = "lacuna-imports";
const VERSION: u32 = 1;

/// A file that was imported, wholly or in part. It is known by its content: a name can be given to
/// another file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Its name when it was last imported; for people.
    pub name: String,
    /// Its size in bytes when it was last imported. It may have grown since.
    pub bytes: u64,
    /// CRC-32 of these bytes.
    pub crc: u32,
    /// So many of its requests, from the first, are done with: stored, or found to be unreadable.
    pub requests: u64,
    /// So many of those after them that can be stored, without `beyond`, are stored already.
    pub stored: u64,
    /// Numbers, from 0, of others after them that are stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<u64>,
    /// The number of the next frame of the log when the above was true, while an import runs.
    running_from: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Journal {
    imports: Vec<Import>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

fn load(files: &dyn Files, dir: &Path) -> Result<Journal, StoreError> {
    let path = path(dir);
    let bytes = match files.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Journal::default()),
        Err(error) => return Err(StoreError::io(&path, "read", error)),
    };
    parse(&bytes).map_err(|why| {
        StoreError::corrupt(&path, format!("{why}; without it, files are imported anew"))
    })
}

fn parse(bytes: &[u8]) -> Result<Journal, String> {
    // Files of versions before 0.2 are bare JSON.
    let body =
        if bytes.first() == Some(&b'{') { bytes } else { head::body(bytes, MAGIC, VERSION)? };
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

/// Compares the journal's checksum; `None` if there is no journal.
///
/// # Errors
/// [`StoreError::Corrupt`], or it cannot be read.
pub fn verify(files: &dyn Files, dir: &Path) -> Result<Option<u64>, StoreError> {
    load(files, dir)?;
    Ok(head::size(&path(dir)))
}

fn save(files: &dyn Files, dir: &Path, journal: &Journal) -> Result<(), StoreError> {
    let path = path(dir);
    let body = serde_json::to_vec_pretty(journal)
        .map_err(|error| StoreError::io(&path, "write", error.into()))?;
    let bytes = head::with_head(MAGIC, VERSION, &body);
    files.replace(&path, &bytes).map_err(|error| StoreError::io(&path, "write", error))
}

/// Counts what an import that did not end had committed; `next` is the next frame of the log, of
/// which this process has written none.
pub fn settle(files: &dyn Files, dir: &Path, next: u64) -> Result<(), StoreError> {
    let mut journal = match load(files, dir) {
        Err(error @ StoreError::Corrupt { .. }) => {
            // The data is whole; the next import says what is wrong.
            tracing::warn!(%error, "cannot tell which files were imported");
            return Ok(());
        }
        loaded => loaded?,
    };
    let mut changed = false;
    for import in &mut journal.imports {
        if let Some(from) = import.running_from.take() {
            import.stored = import.stored.saturating_add(next.saturating_sub(from));
            changed = true;
        }
    }
    if changed { save(files, dir, &journal) } else { Ok(()) }
}

impl Import {
    /// A file of which nothing is imported yet.
    pub fn new(name: impl Into<String>, bytes: u64, crc: u32) -> Self {
        Self {
            name: name.into(),
            bytes,
            crc,
            requests: 0,
            stored: 0,
            beyond: Vec::new(),
            running_from: None,
        }
    }
}

impl Store {
    /// The files that were imported, in the order of their first import.
    ///
    /// # Errors
    /// The journal cannot be read, or is damaged.
    pub fn imports(&self) -> Result<Vec<Import>, StoreError> {
        Ok(load(self.shared().options.files.as_ref(), self.dir())?.imports)
    }

    /// Makes `import` durable, in place of `before` if that is one of [`Store::imports`].
    ///
    /// `running`: from now on until this is called again, just those requests of the file that
    /// come after [`Import::requests`], and are not stored, are appended, in order. No append may
    /// be under way.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub fn save_import(
        &self,
        before: &Import,
        import: &Import,
        running: bool,
    ) -> Result<(), StoreError> {
        self.shared().writable()?;
        let (files, dir) = (self.shared().options.files.as_ref(), self.dir());
        let mut journal = load(files, dir)?;
        let running_from = running.then(|| self.next_frame());
        let import = Import { running_from, ..import.clone() };
        let same = |known: &&mut Import| (before.bytes, before.crc) == (known.bytes, known.crc);
        match journal.imports.iter_mut().find(same) {
            Some(known) => *known = import,
            None => journal.imports.push(import),
        }
        save(files, dir, &journal)
    }
}
