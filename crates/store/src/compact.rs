//! Freeing received request bodies: rows keep only the text that they show.
//!
//! A decoded batch's text lies in the body of the request that brought it. Most of what a body
//! holds is framing and repetition (one resource stands for many spans), so rows that stay in
//! memory are copied out, and text that repeats is copied once.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, ListArray, StringViewArray, StringViewBuilder, StructArray,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use lacuna_signal::Batch;
use lacuna_signal::batch::BatchError;

/// One batch of all rows of `batches`, in order, that shares no memory with them.
pub fn concat_compact(batches: &[Batch]) -> Result<Option<Batch>, BatchError> {
    let Some(first) = batches.first() else { return Ok(None) };
    let joined = Batch::concat(first.kind(), batches)?;
    let columns = joined.record().columns().iter().map(compact).collect::<Result<Vec<_>, _>>()?;
    let record = arrow::array::RecordBatch::try_new_with_options(
        joined.record().schema(),
        columns,
        &arrow::array::RecordBatchOptions::new().with_row_count(Some(joined.num_rows())),
    )?;
    Batch::try_new(first.kind(), record).map(Some)
}

fn compact(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(compact_text(array.as_string_view())),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let values = compact(list.values())?;
            Arc::new(ListArray::try_new(field.clone(), offsets, values, nulls)?)
        }
        DataType::Struct(fields) => {
            let structs = array.as_struct();
            let columns = structs.columns().iter().map(compact).collect::<Result<Vec<_>, _>>()?;
            let nulls = structs.nulls().cloned();
            Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                columns,
                nulls,
                structs.len(),
            )?)
        }
        _ => array.clone(),
    })
}

/// Texts of up to this many bytes lie in the view itself (Arrow's `Utf8View` layout).
const INLINE: usize = 12;

fn compact_text(text: &StringViewArray) -> StringViewArray {
    if !repeats(text) {
        return text.gc();
    }
    let mut builder = StringViewBuilder::with_capacity(text.len())
        .with_fixed_block_size(64 << 10)
        .with_deduplicate_strings();
    for value in text {
        builder.append_option(value);
    }
    builder.finish()
}

/// Whether a sample says that most long texts occur more than once.
fn repeats(text: &StringViewArray) -> bool {
    const SAMPLE: usize = 128;
    let step = (text.len() / SAMPLE).max(1);
    let long = (0..text.len())
        .step_by(step)
        .filter(|row| text.is_valid(*row))
        .map(|row| text.value(row))
        .filter(|value| value.len() > INLINE);
    let (mut seen, mut count) = (HashSet::new(), 0usize);
    for value in long {
        count += 1;
        seen.insert(value);
    }
    count > 1 && seen.len() * 2 <= count
}

/// Bytes of memory that `batch` keeps alive. A buffer that many columns share counts once, unlike
/// in Arrow's own sum.
pub fn footprint(batch: &Batch) -> usize {
    let mut seen = HashSet::new();
    let arrays = batch.record().columns().iter();
    arrays.map(|array| data_footprint(&array.to_data(), &mut seen)).sum()
}

fn data_footprint(data: &ArrayData, seen: &mut HashSet<*const u8>) -> usize {
    let buffers = data.buffers().iter().chain(data.nulls().map(|nulls| nulls.buffer()));
    let own: usize = buffers
        .filter(|buffer| seen.insert(buffer.data_ptr().as_ptr().cast_const()))
        .map(|buffer| buffer.capacity())
        .sum();
    own + data.child_data().iter().map(|child| data_footprint(child, seen)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{RecordBatch, TimestampNanosecondArray};
    use arrow::datatypes::{Field, Schema};
    use lacuna_signal::SignalKind;
    use lacuna_signal::schema;

    fn logs(bodies: &[&str]) -> Batch {
        let times = TimestampNanosecondArray::from_iter_values(0..bodies.len() as i64);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            Arc::new(StringViewArray::from_iter_values(bodies)),
        ];
        let schema = Schema::new(vec![
            Field::new(schema::TIME, schema::timestamp_type(), false),
            Field::new(schema::BODY, DataType::Utf8View, true),
        ]);
        let record = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        Batch::try_new(SignalKind::Logs, record).unwrap()
    }

    #[test]
    fn repeated_text_is_kept_once_and_rows_stay_the_same() {
        let line = "the same line of more than twelve bytes ".repeat(20);
        let batch = logs(&vec![line.as_str(); 500]);
        let small = concat_compact(&[batch.clone(), batch.clone()]).unwrap().unwrap();
        assert_eq!(small.num_rows(), 1000);
        assert!(footprint(&small) < 200_000, "{}", footprint(&small));
        assert_eq!(small.slice(0, 500).record().columns(), batch.record().columns());
    }

    #[test]
    fn a_slice_lets_go_of_the_rest() {
        let lines: Vec<String> = (0..1000).map(|i| format!("line number {i:0>100}")).collect();
        let batch = logs(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let small = concat_compact(&[batch.slice(10, 2)]).unwrap().unwrap();
        assert!(footprint(&small) * 10 < footprint(&batch));
        assert_eq!(small.text_column(schema::BODY).unwrap().value(1), lines[11]);
    }
}
