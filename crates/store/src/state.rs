//! What the store holds at one moment: rows in memory and segments, of every kind.

use std::sync::Arc;

use lacuna_signal::SignalKind;

use crate::chunk::Chunk;
use crate::part::Part;
use crate::segment::Segment;

/// The parts of one kind.
#[derive(Default)]
pub struct Table {
    /// Rows in memory, in the order in which they came.
    pub active: Vec<Arc<Chunk>>,
    /// Rows in memory that are being written to a segment.
    pub frozen: Vec<Arc<Chunk>>,
    /// Segments, by number.
    pub segments: Vec<Arc<Segment>>,
}

impl Table {
    /// All parts: segments first.
    pub fn parts(&self) -> Vec<Arc<dyn Part>> {
        let mut parts: Vec<Arc<dyn Part>> = Vec::new();
        parts.extend(self.segments.iter().map(|segment| segment.clone() as Arc<dyn Part>));
        parts.extend(self.chunks().map(|chunk| chunk.clone() as Arc<dyn Part>));
        parts
    }

    /// Rows in memory.
    pub fn chunks(&self) -> impl Iterator<Item = &Arc<Chunk>> {
        self.frozen.iter().chain(&self.active)
    }
}

/// The parts of all kinds.
#[derive(Default)]
pub struct State {
    tables: [Table; 3],
    /// The first log frame whose rows are not in `frozen`, while anything is frozen.
    pub frozen_floor: Option<u64>,
}

impl State {
    /// The parts of `kind`.
    pub fn table(&self, kind: SignalKind) -> &Table {
        let [spans, logs, points] = &self.tables;
        match kind {
            SignalKind::Spans => spans,
            SignalKind::Logs => logs,
            SignalKind::Points => points,
        }
    }

    /// The parts of `kind`.
    pub fn table_mut(&mut self, kind: SignalKind) -> &mut Table {
        let [spans, logs, points] = &mut self.tables;
        match kind {
            SignalKind::Spans => spans,
            SignalKind::Logs => logs,
            SignalKind::Points => points,
        }
    }

    /// Makes everything in memory frozen; `floor` is the next log frame's number. Does nothing
    /// and answers `false` if there is nothing, or something is frozen already.
    pub fn freeze(&mut self, floor: u64) -> bool {
        if self.frozen_floor.is_some() || self.tables.iter().all(|table| table.active.is_empty()) {
            return false;
        }
        for table in &mut self.tables {
            table.frozen = std::mem::take(&mut table.active);
        }
        self.frozen_floor = Some(floor);
        true
    }

    /// Drops what is frozen: its rows are in segments now.
    pub fn thaw(&mut self) {
        for table in &mut self.tables {
            table.frozen.clear();
        }
        self.frozen_floor = None;
    }
}
