//! Checking every byte.

use std::path::Path;

use crate::bounds::Found;
use crate::counters::add;
use crate::error::StoreError;
use crate::files::Files;
use crate::report::{Finding, FindingKind};
use crate::store::Store;
use crate::wal::replay;
use crate::{head, imports};
use lacuna_signal::SignalKind;

/// What a check went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Checked {
    /// Segments read.
    pub segments: u64,
    /// Log files read.
    pub log_files: u64,
    /// Other files read: the journal of imports, the monitor's checkpoint, the findings.
    pub other_files: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl Store {
    /// Reads every byte of every segment and closed log file, of the journal of imports and of what
    /// the contract monitor keeps, and compares checksums. `progress` is
    /// called after each file with what was checked so far. What is damaged is in
    /// [`Found::damaged`].
    ///
    /// # Errors
    /// A file cannot be read at all.
    pub fn check(&self, mut progress: impl FnMut(&Checked)) -> Result<Found<Checked>, StoreError> {
        let shared = self.shared();
        let mut found = Found::new(Checked::default());
        for kind in SignalKind::ALL {
            let segments = shared.state.read().table(kind).segments.clone();
            for segment in segments {
                for error in segment.verify() {
                    found.damaged.push(finding(error)?);
                }
                found.items.segments += 1;
                found.items.bytes += segment.meta().bytes();
                progress(&found.items);
            }
        }
        let log = shared.closed_logs.lock().clone();
        for file in log {
            match replay::read_file(shared.options.files.as_ref(), &file, 0) {
                Ok(contents) => found.damaged.extend(contents.findings),
                // Flushed and removed while this went on, by another process if this one only reads.
                Err(StoreError::Io { .. })
                    if shared.read_only || !shared.closed_logs.lock().contains(&file) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
            found.items.log_files += 1;
            found.items.bytes += file.bytes;
            progress(&found.items);
        }
        check_others(shared.options.files.as_ref(), &shared.dir, &mut found)?;
        progress(&found.items);
        add(&shared.meters.corruptions, found.damaged.len() as u64);
        Ok(found)
    }
}

/// Files that are not the store's rows.
fn check_others(
    files: &dyn Files,
    dir: &Path,
    found: &mut Found<Checked>,
) -> Result<(), StoreError> {
    let of_others = head::OTHERS
        .iter()
        .map(|(name, magic, version)| head::verify(files, &dir.join(name), magic, *version));
    for checked in of_others.chain([imports::verify(files, dir)]) {
        match checked {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                found.items.other_files += 1;
                found.items.bytes += bytes;
            }
            Err(error) => found.damaged.push(finding(error)?),
        }
    }
    Ok(())
}

fn finding(error: StoreError) -> Result<Finding, StoreError> {
    match error {
        StoreError::Corrupt { path, detail } => {
            Ok(Finding::new(&path, FindingKind::Damaged, detail))
        }
        other => Err(other),
    }
}
