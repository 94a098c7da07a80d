//! Where an export goes: standard output, or a file that gets its name when it is whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use zstd::stream::write::Encoder as Zstd;

/// Level 19 packs a recording twice as tight as the default and is still faster than a disk.
const ZSTD_LEVEL: i32 = 19;

/// Opens `path`; `-` is standard output. What its name ends in says how it is packed.
///
/// A regular file is written beside its place, as `path.tmp`, and moved there by [`Sink::finish`]: a
/// name never stands for a part of an export, and what it stood for before is not lost by an attempt.
pub fn open(path: &Path, zstd_level: Option<i32>) -> io::Result<Sink> {
    let (plain, file): (Box<dyn Write>, _) = if path == Path::new("-") {
        (Box::new(io::stdout()), None)
    } else if path.exists() && !path.is_file() {
        // A pipe or a device keeps its name, and has no half of anything in it.
        (Box::new(File::create(path)?), None)
    } else {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".tmp");
        let unfinished = Unfinished { path: unfinished.into(), place: Some(path.to_owned()) };
        let file = File::create(&unfinished.path)?;
        (Box::new(file.try_clone()?), Some((file, unfinished)))
    };
    let plain = BufWriter::new(plain);
    let packed = match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => Packed::Zstd(Box::new(Zstd::new(plain, zstd_level.unwrap_or(ZSTD_LEVEL))?)),
        Some("gz") => {
            let level = flate2::Compression::default();
            Packed::Gzip(Box::new(flate2::write::GzEncoder::new(plain, level)))
        }
        _ => Packed::Plain(plain),
    };
    Ok(Sink { packed, file })
}

/// Takes bytes, and packs them.
pub struct Sink {
    packed: Packed,
    file: Option<(File, Unfinished)>,
}

type Plain = BufWriter<Box<dyn Write>>;

enum Packed {
    Plain(Plain),
    Gzip(Box<flate2::write::GzEncoder<Plain>>),
    Zstd(Box<Zstd<'static, Plain>>),
}

/// A file that has not its place yet; it is removed if it never gets there.
struct Unfinished {
    path: PathBuf,
    place: Option<PathBuf>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.place.is_some() {
            // Whatever went wrong before matters more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Sink {
    /// Whether there is a file that has not got its name yet.
    pub fn is_unfinished(&self) -> bool {
        self.file.is_some()
    }

    /// Writes the end of a packed file, and gives it its name.
    pub fn finish(self) -> io::Result<()> {
        match self.packed {
            Packed::Plain(mut plain) => plain.flush()?,
            Packed::Gzip(packed) => packed.finish()?.flush()?,
            Packed::Zstd(packed) => packed.finish()?.flush()?,
        }
        if let Some((file, mut unfinished)) = self.file {
            file.sync_all()?;
            if let Some(place) = &unfinished.place {
                std::fs::rename(&unfinished.path, place)?;
            }
            unfinished.place = None;
        }
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.packed {
            Packed::Plain(plain) => plain.write(bytes),
            Packed::Gzip(packed) => packed.write(bytes),
            Packed::Zstd(packed) => packed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packed {
            Packed::Plain(plain) => plain.flush(),
            Packed::Gzip(packed) => packed.flush(),
            Packed::Zstd(packed) => packed.flush(),
        }
    }
}
