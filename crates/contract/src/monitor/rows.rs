//! The rows of a batch: when, where from, and which.

use std::cell::OnceCell;
use std::hash::{BuildHasher, Hash, Hasher};

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, StringViewArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType, UInt8Type};
use foldhash::quality::FixedState;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::BatchIndex;
use lacuna_signal::value::Attributes;
use lacuna_signal::{Batch, SignalKind, TraceId, Value, schema};

/// What else tells a log record from others.
struct LogColumns<'a> {
    batch: &'a Batch,
    severity: Option<&'a ArrayRef>,
    texts: [Option<&'a StringViewArray>; 3],
    /// Found when the first record is told from others: most batches have none that matters.
    attributes: OnceCell<Attributes<'a>>,
}

impl<'a> LogColumns<'a> {
    fn new(batch: &'a Batch) -> Self {
        let texts = [schema::EVENT_NAME, schema::SEVERITY_TEXT, schema::BODY_ANY];
        Self {
            batch,
            severity: batch.column(schema::SEVERITY),
            texts: texts.map(|name| batch.text_column(name)),
            attributes: OnceCell::new(),
        }
    }

    fn hash(&self, row: usize, hasher: &mut impl Hasher) {
        let severity = self.severity.and_then(|column| column.as_primitive_opt::<UInt8Type>());
        severity.map_or(0, |column| column.value(row)).hash(hasher);
        for column in self.texts {
            column.filter(|column| column.is_valid(row)).map(|c| c.value(row)).hash(hasher);
        }
        let attributes = self.attributes.get_or_init(|| self.batch.attributes(Scope::Log));
        // Added up, because their order is not the same in every batch.
        let one = |(key, value): (&str, Value<'_>)| {
            FixedState::default().hash_one((key, value.to_text()))
        };
        attributes.of_row(row).map(one).fold(0, u64::wrapping_add).hash(hasher);
    }
}

/// The columns of a batch that place its rows: when, where from, and which.
pub(crate) struct Rows<'a> {
    kind: SignalKind,
    start: &'a [i64],
    duration: Option<&'a [i64]>,
    trace: Option<&'a FixedSizeBinaryArray>,
    span: Option<&'a FixedSizeBinaryArray>,
    body: Option<&'a StringViewArray>,
    service: Option<&'a StringViewArray>,
    log: Option<LogColumns<'a>>,
    /// By row, what the service's clock shows too much; `None` if all are right.
    shifts: Option<Vec<i64>>,
}

impl<'a> Rows<'a> {
    /// `None` if the batch has no times, without which nothing can be said.
    pub(crate) fn new(index: &BatchIndex<'a>) -> Option<Self> {
        let kind = index.kind();
        let id = |name| index.column(name).and_then(|column| column.as_fixed_size_binary_opt());
        let start = index.column(kind.time_column())?;
        let start = start.as_primitive_opt::<TimestampNanosecondType>()?;
        Some(Self {
            kind,
            start: start.values(),
            duration: index
                .column(schema::DURATION)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .map(|column| &**column.values()),
            trace: id(schema::TRACE_ID),
            span: id(schema::SPAN_ID),
            body: index.column(schema::BODY).and_then(|column| column.as_string_view_opt()),
            service: index.batch().service_column(),
            log: (kind == SignalKind::Logs).then(|| LogColumns::new(index.batch())),
            shifts: None,
        })
    }

    /// From now on times are by clocks that are set right: so much less, row by row.
    pub(super) fn set_right(&mut self, shifts: Option<Vec<i64>>) {
        self.shifts = shifts;
    }

    pub(crate) fn len(&self) -> usize {
        self.start.len()
    }

    pub(crate) fn start(&self, row: usize) -> i64 {
        match &self.shifts {
            None => self.start[row],
            Some(shifts) => self.start[row].saturating_sub(shifts[row]),
        }
    }

    /// A span that ends before it starts, by a clock set back, ends when it starts.
    pub(crate) fn end(&self, row: usize) -> i64 {
        let duration = self.duration.map_or(0, |duration| duration[row]);
        self.start(row).saturating_add(duration.max(0))
    }

    /// The greatest end, of those up to `limit`.
    pub(super) fn last(&self, limit: i64) -> Option<i64> {
        (0..self.len()).map(|row| self.end(row)).filter(|end| *end <= limit).max()
    }

    /// Whether two rows have the same service, if that can be seen at once.
    pub(super) fn same_service(&self, a: usize, b: usize) -> bool {
        self.service.is_none_or(|column| match (column.is_valid(a), column.is_valid(b)) {
            (true, true) => column.views()[a] == column.views()[b],
            (a, b) => a == b,
        })
    }

    pub(crate) fn service(&self, row: usize) -> &'a str {
        self.service.filter(|column| column.is_valid(row)).map_or("", |column| column.value(row))
    }

    pub(crate) fn trace(&self, row: usize) -> Option<TraceId> {
        let column = self.trace.filter(|column| column.is_valid(row))?;
        TraceId::from_bytes(column.value(row))
    }

    /// A span is its trace and span id; a log record, which has none of its own, is all that it
    /// says: time, place, text, severity, event name and attributes.
    pub(super) fn id(&self, row: usize) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        for column in [self.trace, self.span].into_iter().flatten() {
            if column.is_valid(row) {
                column.value(row).hash(&mut hasher);
            }
        }
        if self.kind == SignalKind::Logs || self.span.is_none() {
            self.start[row].hash(&mut hasher);
            self.service(row).hash(&mut hasher);
            if let Some(body) = self.body.filter(|body| body.is_valid(row)) {
                body.value(row).hash(&mut hasher);
            }
        }
        if let Some(log) = &self.log {
            log.hash(row, &mut hasher);
        }
        // 56 bits, which is what the compact form has room for.
        hasher.finish() >> 8
    }
}
