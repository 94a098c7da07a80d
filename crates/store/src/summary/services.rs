//! Which services there are, and what they did.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{TimestampNanosecondType, UInt8Type};
use hashbrown::HashMap;
use lacuna_signal::schema::{self, AttrType, Scope, SignalKind, attribute_column};
use lacuna_signal::semconv;

use super::Occurrence;
use crate::packed::{Codes, Column, Packed};
use crate::segment::cells::{Cells, Coded};

/// A column of texts by keys: rows with one key have one text.
#[derive(Clone, Copy)]
pub enum Keyed<'a> {
    /// There is no such column.
    Missing,
    /// A value a row.
    Plain(&'a dyn Array),
    /// In memory.
    Packed(&'a Codes, &'a dyn Array),
    /// In a row group.
    Coded(&'a Coded),
}

impl<'a> Keyed<'a> {
    /// Of packed rows.
    pub fn new(column: Option<&'a Column>) -> Self {
        match column {
            None => Self::Missing,
            Some(Column::Plain(values)) => Self::Plain(values.as_ref()),
            Some(Column::Coded { codes, values }) => Self::Packed(codes, values.as_ref()),
        }
    }

    /// Of a row group.
    pub fn of_cells(cells: Option<&'a Cells>) -> Self {
        match cells {
            None => Self::Missing,
            Some(Cells::Plain(values)) => Self::Plain(values.as_ref()),
            Some(Cells::Coded(coded)) => Self::Coded(coded),
        }
    }

    #[inline]
    fn key(&self, row: usize) -> u32 {
        match self {
            Self::Missing => 0,
            Self::Plain(_) => row as u32,
            Self::Packed(codes, _) => codes.get(row) as u32,
            Self::Coded(coded) => u32::from(coded.codes[row]),
        }
    }

    /// The values, and the place of the one with `key`.
    fn value(&self, key: u32) -> Option<(&'a dyn Array, usize)> {
        let (values, at) = match self {
            Self::Missing => return None,
            Self::Plain(values) | Self::Packed(_, values) => (*values, key as usize),
            Self::Coded(coded) => (coded.values.as_ref(), key.checked_sub(1)? as usize),
        };
        values.is_valid(at).then_some((values, at))
    }

    fn text(&self, key: u32) -> &'a str {
        let text =
            |(values, at): (&'a dyn Array, usize)| Some(values.as_string_view_opt()?.value(at));
        self.value(key).and_then(text).unwrap_or("")
    }

    fn number(&self, key: u32) -> u8 {
        let number = |(values, at): (&dyn Array, usize)| {
            Some(values.as_primitive_opt::<UInt8Type>()?.value(at))
        };
        self.value(key).and_then(number).unwrap_or(0)
    }
}

/// The column of services' names.
pub fn service_column() -> String {
    attribute_column(Scope::Resource, AttrType::Str, semconv::SERVICE_NAME)
}

/// The services of `rows`.
pub fn packed_services(rows: &Packed) -> Services {
    let of_span = |name| rows.column(name).filter(|_| rows.kind() == SignalKind::Spans);
    let service = Keyed::new(rows.column(&service_column()));
    let (name, kind) = (Keyed::new(of_span(schema::NAME)), Keyed::new(of_span(schema::KIND)));
    let times = rows.column(rows.kind().time_column()).map(|column| match column {
        Column::Plain(times) | Column::Coded { values: times, .. } => times,
    });
    let times = times.and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>());
    let time = |row: usize| times.map_or(0, |times| times.value(row));
    services(service, name, kind, (0..rows.num_rows()).map(time))
}

/// By service, its operations.
pub type Services = BTreeMap<String, Vec<(String, u8, Occurrence)>>;

/// What each service did in rows with these columns and times.
pub fn services(
    service: Keyed<'_>,
    name: Keyed<'_>,
    kind: Keyed<'_>,
    times: impl Iterator<Item = i64>,
) -> Services {
    let mut seen: HashMap<(u64, u32), Option<Occurrence>> = HashMap::new();
    for (row, time) in times.enumerate() {
        let key = (u64::from(service.key(row)) << 32 | u64::from(name.key(row)), kind.key(row));
        Occurrence::note(seen.entry(key).or_default(), time);
    }
    let mut services: BTreeMap<&str, BTreeMap<(&str, u8), Option<Occurrence>>> = BTreeMap::new();
    for ((key, k), occurrence) in seen {
        let operations = services.entry(service.text((key >> 32) as u32)).or_default();
        if let Some(occurrence) = occurrence {
            let entry = operations.entry((name.text(key as u32), kind.number(k))).or_default();
            Occurrence::merge(entry, occurrence);
        }
    }
    let listed = |operations: BTreeMap<(&str, u8), Option<Occurrence>>| {
        let all = operations.into_iter();
        all.filter_map(|((name, kind), seen)| Some((name.to_owned(), kind, seen?))).collect()
    };
    services.into_iter().map(|(name, all)| (name.to_owned(), listed(all))).collect()
}
