//! How far files were sent to a server: a file in the user's state folder for each server and file.

use std::io::Write;
use std::path::{Path, PathBuf};

use lacuna_store::Import;
use miette::miette;
use serde::{Deserialize, Serialize};

use super::identity::identify;
use crate::{Failure, output};

/// One file of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Base URL of the server.
    url: String,
    import: Import,
}

/// The journal of imports into one server.
pub struct Journal {
    folder: PathBuf,
    url: String,
    file: Option<InFile>,
}

/// The file that is being sent.
struct InFile {
    import: Import,
    /// Where that is written down.
    path: PathBuf,
}

/// The user's folder for what programs remember (XDG base directory specification); `None` without
/// a home.
pub fn usual_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|at| at.is_absolute());
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local").join("state")))
        .or_else(|| folder("LOCALAPPDATA"))?;
    Some(state.join("lacuna").join("imports"))
}

impl Journal {
    /// The journal in `folder` of imports into the server at `url`.
    pub fn new(folder: PathBuf, url: &str) -> Self {
        Self { folder, url: url.to_owned(), file: None }
    }

    /// Begins with the file `path`: how many of its requests were sent before.
    pub fn begin(&mut self, path: &Path, name: &str, again: bool) -> Result<u64, Failure> {
        let known = self.load()?;
        let imports: Vec<Import> = known.iter().map(|(_, import)| import.clone()).collect();
        let identity = identify(path, name, &imports)
            .map_err(|error| miette!("{name}: cannot be read: {error}"))?;
        // Standard input cannot be read again.
        let Some((mut import, found)) = identity else { return Ok(0) };
        if let Some(before) = found.as_ref().filter(|_| !again) {
            import.requests = before.requests;
        }
        let server = crc32fast::hash(self.url.as_bytes());
        let own = format!("{server:08x}-{:x}-{:08x}.json", import.bytes, import.crc);
        let own = self.folder.join(own);
        let sent = import.requests;
        self.file = Some(InFile { import, path: own.clone() });
        self.write()?;
        // The file has grown: what it was is remembered no more.
        for (path, import) in known {
            if path != own && Some(&import) == found.as_ref() {
                // Left there, it is the shorter of two that fit, and not looked at.
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(sent)
    }

    /// The first `passed` requests of the file are done with.
    pub fn passed(&mut self, passed: u64) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) if passed > file.import.requests => file.import.requests = passed,
            _ => return Ok(()),
        }
        self.write()
    }

    /// The file has ended.
    pub fn end(&mut self) {
        self.file = None;
    }

    /// Replaces the file as a whole. It is not synced: only a crash of this machine could lose the
    /// newest, and then some requests are sent twice.
    fn write(&self) -> Result<(), Failure> {
        let Some(file) = &self.file else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(&self.folder)?;
            let mut new = tempfile::NamedTempFile::new_in(&self.folder)?;
            let entry = Entry { url: self.url.clone(), import: file.import.clone() };
            serde_json::to_writer(&mut new, &entry)?;
            new.write_all(b"\n")?;
            new.persist(&file.path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| {
            miette!(
                help = "choose another folder with --journal",
                "{}: how far the import is cannot be written down: {error}",
                self.folder.display()
            )
        })
    }

    /// What is known of files sent to this server, and where that stands.
    fn load(&self) -> Result<Vec<(PathBuf, Import)>, Failure> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(miette!("{}: cannot be read: {error}", self.folder.display()));
            }
        };
        let mut known = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let read = std::fs::read(&path).map_err(|error| error.to_string());
            let read = read.and_then(|bytes| {
                serde_json::from_slice::<Entry>(&bytes).map_err(|error| error.to_string())
            });
            match read {
                Ok(entry) if entry.url == self.url => known.push((path, entry.import)),
                Ok(_) => {}
                Err(why) => output::error(&format!(
                    "{}: not used, what it tells of is sent anew: {why}",
                    path.display()
                )),
            }
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_and_file_is_remembered_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, file) = (dir.path().join("journal"), dir.path().join("f"));
        let begin = |url: &str, again| {
            let mut journal = Journal::new(folder.clone(), url);
            let sent = journal.begin(&file, "f", again).unwrap();
            (journal, sent)
        };
        std::fs::write(&file, "one\n").unwrap();
        let (mut journal, sent) = begin("http://a", false);
        assert_eq!(sent, 0);
        journal.passed(1).unwrap();
        assert_eq!(begin("http://a", false).1, 1);
        assert_eq!(begin("http://b", false).1, 0);
        // It has grown.
        std::fs::write(&file, "one\ntwo\n").unwrap();
        let (mut journal, sent) = begin("http://a", false);
        assert_eq!(sent, 1);
        journal.passed(2).unwrap();
        assert_eq!(begin("http://a", false).1, 2);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        assert_eq!(begin("http://a", true).1, 0);
        std::fs::write(folder.join("broken.json"), "{").unwrap();
        assert_eq!(begin("http://b", false).1, 0);
    }
}
