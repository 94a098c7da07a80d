//! Small files with one line of head: what they are, their version, and the CRC-32 of the rest.

use std::path::Path;

use crate::error::StoreError;
use crate::files::Files;

/// Files of this form that others keep in the data folder: name, first word of the head, version.
pub const OTHERS: [(&str, &str, u32); 2] =
    [("MONITOR", "lacuna-monitor", 1), ("FINDINGS", "lacuna-findings", 1)];

/// `body` with its head before it.
pub fn with_head(magic: &str, version: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{magic} {version} {:08x}\n", crc32fast::hash(body)).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What follows the head, if that is `magic`'s, of `version`, and the checksum matches.
pub fn body<'a>(bytes: &'a [u8], magic: &str, version: u32) -> Result<&'a [u8], String> {
    let (found, body) = split(bytes, magic)?;
    if found == version { Ok(body) } else { Err(format!("version {found} is not known")) }
}

/// The version and what follows the head, if that is `magic`'s and the checksum matches.
fn split<'a>(bytes: &'a [u8], magic: &str) -> Result<(u32, &'a [u8]), String> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it has no head line")?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| "its head line is not text")?;
    let words: Vec<&str> = head.split(' ').collect();
    let [found, version, crc] = words[..] else { return Err("its head line is not whole".into()) };
    if found != magic {
        return Err("it is another kind of file".into());
    }
    if crc != format!("{:08x}", crc32fast::hash(body)) {
        return Err("its checksum does not match".into());
    }
    let version = version.parse().map_err(|_| "its head line has no version")?;
    Ok((version, body))
}

/// The size of the file at `path`; `None` if there is none.
pub fn size(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|meta| meta.len())
}

/// Compares the head and checksum of the file at `path`: its size, `None` if there is no such file.
///
/// # Errors
/// [`StoreError::Corrupt`], or it cannot be read.
pub fn verify(
    files: &dyn Files,
    path: &Path,
    magic: &str,
    version: u32,
) -> Result<Option<u64>, StoreError> {
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(path, "read", error)),
    };
    body(&bytes, magic, version).map_err(|why| StoreError::corrupt(path, why))?;
    Ok(Some(bytes.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = with_head("lacuna-x", 1, b"the body\nof it");
        assert_eq!(body(&bytes, "lacuna-x", 1), Ok(&b"the body\nof it"[..]));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                assert!(body(&other, "lacuna-x", 1).is_err(), "byte {at} bit {bit}");
            }
            assert!(body(&bytes[..at], "lacuna-x", 1).is_err(), "cut at {at}");
        }
    }
}
