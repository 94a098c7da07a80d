//! Values in Parquet's plain encoding, and their bounds.

use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::statistics::{Statistics, ValueStatistics};
use arrow::array::{Array, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimestampNanosecondType, UInt8Type, UInt32Type,
    UInt64Type,
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
            put_texts(&mut out, (0..texts.len()).map(|at| texts.value(at).as_bytes()));
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

/// `texts` in Parquet's plain encoding.
pub fn put_texts<'a>(out: &mut Vec<u8>, texts: impl Iterator<Item = &'a [u8]>) {
    for text in texts {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text);
    }
}

/// The bytes of values that all have as many, and how many; `None` for other types.
pub fn fixed(values: &dyn Array) -> Option<(&[u8], usize)> {
    Some(match values.data_type() {
        DataType::FixedSizeBinary(width) => {
            (values.as_fixed_size_binary().value_data(), *width as usize)
        }
        DataType::Int64 => (values.as_primitive::<Int64Type>().values().inner().as_slice(), 8),
        DataType::Timestamp(..) => {
            let times = values.as_primitive_opt::<TimestampNanosecondType>()?;
            (times.values().inner().as_slice(), 8)
        }
        DataType::UInt64 => (values.as_primitive::<UInt64Type>().values().inner().as_slice(), 8),
        DataType::Float64 => (values.as_primitive::<Float64Type>().values().inner().as_slice(), 8),
        DataType::Int32 => (values.as_primitive::<Int32Type>().values().inner().as_slice(), 4),
        DataType::UInt32 => (values.as_primitive::<UInt32Type>().values().inner().as_slice(), 4),
        DataType::UInt8 => (values.as_primitive::<UInt8Type>().values().inner().as_slice(), 1),
        _ => return None,
    })
}

/// What other readers can leave a row group out by: the least and the greatest number of `values`,
/// which come beside `nulls` rows without one.
pub fn bounds(values: &dyn Array, nulls: usize) -> Option<Statistics> {
    fn ends<T: ArrowPrimitiveType>(
        values: &dyn Array,
        counts: impl Fn(T::Native) -> bool,
    ) -> Option<(T::Native, T::Native)> {
        let values = values.as_primitive_opt::<T>()?;
        let mut ends = None;
        let mut take = |value: T::Native| {
            if counts(value) {
                let (low, high) = ends.unwrap_or((value, value));
                let low = if value.is_lt(low) { value } else { low };
                ends = Some((low, if value.is_gt(high) { value } else { high }));
            }
        };
        match values.nulls() {
            None => values.values().iter().for_each(|value| take(*value)),
            Some(nulls) => nulls.valid_indices().for_each(|at| take(values.value(at))),
        }
        ends
    }
    let nulls = Some(nulls as u64);
    let int = |low, high| ValueStatistics::<i32>::new(Some(low), Some(high), None, nulls, false);
    let long = |low, high| ValueStatistics::<i64>::new(Some(low), Some(high), None, nulls, false);
    Some(match values.data_type() {
        DataType::Int64 => {
            let (low, high) = ends::<Int64Type>(values, |_| true)?;
            long(low, high).into()
        }
        DataType::Timestamp(..) => {
            let (low, high) = ends::<TimestampNanosecondType>(values, |_| true)?;
            long(low, high).into()
        }
        DataType::UInt64 => {
            let (low, high) = ends::<UInt64Type>(values, |_| true)?;
            long(low as i64, high as i64).into()
        }
        DataType::Int32 => {
            let (low, high) = ends::<Int32Type>(values, |_| true)?;
            int(low, high).into()
        }
        DataType::UInt32 => {
            let (low, high) = ends::<UInt32Type>(values, |_| true)?;
            int(low as i32, high as i32).into()
        }
        DataType::UInt8 => {
            let (low, high) = ends::<UInt8Type>(values, |_| true)?;
            int(i32::from(low), i32::from(high)).into()
        }
        DataType::Float64 => {
            let (low, high) = ends::<Float64Type>(values, |number| !number.is_nan())?;
            // Zero has two signs that compare as equal: the bounds take in both.
            let low = if low == 0.0 { -0.0 } else { low };
            let high = if high == 0.0 { 0.0 } else { high };
            ValueStatistics::new(Some(low), Some(high), None, nulls, false).into()
        }
        _ => return None,
    })
}
