//! The values of a dictionary, as its page has them.

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::statistics::{Statistics, ValueStatistics};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type,
};

/// `values` in Parquet's plain encoding.
///
/// # Errors
/// They are of a type that has no dictionary.
pub fn plain(values: &dyn Array) -> Result<Vec<u8>> {
    Ok(match values.data_type() {
        DataType::Utf8View => {
            let texts = values.as_string_view();
            let mut out = Vec::new();
            for at in 0..texts.len() {
                let text = texts.value(at).as_bytes();
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text);
            }
            out
        }
        DataType::UInt8 => {
            let numbers = values.as_primitive::<UInt8Type>().values().iter();
            numbers.flat_map(|n| i32::from(*n).to_le_bytes()).collect()
        }
        other => match fixed(values) {
            Some((bytes, _)) => bytes.to_vec(),
            None => {
                return Err(ParquetError::General(format!("{other} has no dictionary")));
            }
        },
    })
}

/// The bytes of values that all have as many, and how many; `None` for other types.
pub fn fixed(values: &dyn Array) -> Option<(&[u8], usize)> {
    Some(match values.data_type() {
        DataType::FixedSizeBinary(16) => (values.as_fixed_size_binary().value_data(), 16),
        DataType::Int64 => (values.as_primitive::<Int64Type>().values().inner().as_slice(), 8),
        DataType::UInt64 => (values.as_primitive::<UInt64Type>().values().inner().as_slice(), 8),
        DataType::Float64 => (values.as_primitive::<Float64Type>().values().inner().as_slice(), 8),
        DataType::Int32 => (values.as_primitive::<Int32Type>().values().inner().as_slice(), 4),
        DataType::UInt32 => (values.as_primitive::<UInt32Type>().values().inner().as_slice(), 4),
        DataType::UInt8 => (values.as_primitive::<UInt8Type>().values().inner().as_slice(), 1),
        _ => return None,
    })
}

/// What other readers can leave a row group out by: the least and the greatest number of `values`,
/// all of which occur.
pub fn bounds(values: &dyn Array, nulls: u64) -> Option<Statistics> {
    /// Places of the least and the greatest.
    fn ends<T: Copy + PartialOrd>(values: &[T]) -> Option<(T, T)> {
        let first = *values.first()?;
        Some(values.iter().fold((first, first), |(low, high), value| {
            (if *value < low { *value } else { low }, if *value > high { *value } else { high })
        }))
    }
    let nulls = Some(nulls);
    let int =
        |(low, high): (i32, i32)| ValueStatistics::new(Some(low), Some(high), None, nulls, false);
    let long =
        |(low, high): (i64, i64)| ValueStatistics::new(Some(low), Some(high), None, nulls, false);
    Some(match values.data_type() {
        DataType::Int64 => long(ends(values.as_primitive::<Int64Type>().values())?).into(),
        DataType::UInt64 => {
            let (low, high) = ends(values.as_primitive::<UInt64Type>().values())?;
            long((low as i64, high as i64)).into()
        }
        DataType::Int32 => int(ends(values.as_primitive::<Int32Type>().values())?).into(),
        DataType::UInt32 => {
            let (low, high) = ends(values.as_primitive::<UInt32Type>().values())?;
            int((low as i32, high as i32)).into()
        }
        DataType::UInt8 => {
            let (low, high) = ends(values.as_primitive::<UInt8Type>().values())?;
            int((i32::from(low), i32::from(high))).into()
        }
        DataType::Float64 => {
            let numbers = values.as_primitive::<Float64Type>().values().iter().copied();
            let numbers: Vec<f64> = numbers.filter(|number| !number.is_nan()).collect();
            let (low, high) = ends(&numbers)?;
            // Zero has two signs that compare as equal: the bounds take in both.
            let low = if low == 0.0 { -0.0 } else { low };
            let high = if high == 0.0 { 0.0 } else { high };
            ValueStatistics::new(Some(low), Some(high), None, nulls, false).into()
        }
        _ => return None,
    })
}
