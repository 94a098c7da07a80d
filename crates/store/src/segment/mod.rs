//! Segments: immutable rows on disk, in a Parquet file with a side index each.

mod bits;
pub mod blocks;
pub mod build;
pub mod cells;
pub mod cluster;
pub mod codec;
mod flat;
pub mod gather;
pub mod index;
mod layout;
mod pages;
pub mod parquet;
pub mod postings;
mod reader;
pub mod table;
mod unite;

pub use reader::Segment;

use std::path::{Path, PathBuf};

/// Rows that a page of a Parquet file and an entry of an index stand for.
pub const PAGE_ROWS: u32 = 512;
/// Rows in a row group of a Parquet file.
pub const GROUP_ROWS: usize = 128 * 1024;
/// Pages in a window: rows that are read at once.
pub const WINDOW_PAGES: usize = 64;
/// Extension of side indexes.
pub const INDEX_EXTENSION: &str = "index";

/// Where segment `id` has its file with extension `extension`.
pub fn file_path(folder: &Path, id: u64, extension: &str) -> PathBuf {
    folder.join(format!("{id:012}.{extension}"))
}

/// The number and extension of the segment file called `name`; `None` if it is none.
pub fn parse_file_name(name: &str) -> Option<(u64, &str)> {
    let (digits, extension) = name.split_once('.')?;
    if digits.len() < 12 || extension.contains('.') {
        None
    } else {
        Some((digits.parse().ok()?, extension))
    }
}
