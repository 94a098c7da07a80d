//! Which file is which, by content: a file may get another name, and a name another file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lacuna_store::Import;

/// The file `path` as an import of which nothing is done, and the longest of `known` that it begins
/// with; `None` if it is no regular file, which cannot be read twice.
pub fn identify(
    path: &Path,
    name: &str,
    known: &[Import],
) -> io::Result<Option<(Import, Option<Import>)>> {
    if path == Path::new("-") || !path.metadata()?.is_file() {
        return Ok(None);
    }
    let mut known: Vec<&Import> = known.iter().filter(|import| import.bytes > 0).collect();
    known.sort_by_key(|import| import.bytes);
    let mut known = known.into_iter().peekable();
    let mut file = File::open(path)?;
    let (mut hasher, mut bytes, mut found) = (crc32fast::Hasher::new(), 0u64, None);
    let mut buffer = vec![0; 1 << 20];
    loop {
        // Up to the end of the next known file, to see whether it is that one up to there.
        let border = known.peek().map(|import| import.bytes);
        let room = border.map_or(u64::MAX, |border| border.saturating_sub(bytes));
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            let import = known.next();
            found = import.filter(|i| i.crc == hasher.clone().finalize()).cloned().or(found);
            continue;
        }
        let read = match file.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(Some((Import::new(name, bytes, hasher.finalize()), found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_what_it_begins_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let write = |content: &str| std::fs::write(&path, content).unwrap();
        write("one\n");
        let (mut first, found) = identify(&path, "f", &[]).unwrap().unwrap();
        assert_eq!((first.bytes, found), (4, None));
        first.requests = 1;
        write("one\ntwo\n");
        let (second, found) = identify(&path, "f", &[first.clone()]).unwrap().unwrap();
        assert_eq!((second.bytes, found.as_ref()), (8, Some(&first)));
        write("one\ntwo\nthree\n");
        let (_, found) = identify(&path, "f", &[second.clone(), first.clone()]).unwrap().unwrap();
        assert_eq!(found, Some(second.clone()));
        for other in ["One\ntwo\n", "on", ""] {
            write(other);
            let (_, found) =
                identify(&path, "f", &[first.clone(), second.clone()]).unwrap().unwrap();
            assert_eq!(found, None, "{other}");
        }
        assert!(identify(Path::new("-"), "-", &[]).unwrap().is_none());
    }
}
