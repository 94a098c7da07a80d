//! What must hold of every request, whatever its bytes: shared by the fuzz targets.
//!
//! Run with `cargo +nightly fuzz run otlp_traces` (`cargo install cargo-fuzz`).

mod contract;
mod store;

pub use contract::check_contracts;
pub use store::check_folder;

use bytes::Bytes;
use lacuna_signal::otlp::file::{Requests, read_request};
use lacuna_signal::otlp::{DecodeError, Decoded, Rejected, decode, decode_json};
use lacuna_signal::selector::{Query, Selector};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

/// How many items prost finds in a request of `kind`; `None` if it cannot read it.
pub fn items_by_prost(kind: SignalKind, body: &[u8]) -> Option<usize> {
    Some(match kind {
        SignalKind::Spans => {
            let request = ExportTraceServiceRequest::decode(body).ok()?;
            let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
            scopes.map(|scope| scope.spans.len()).sum()
        }
        SignalKind::Logs => {
            let request = ExportLogsServiceRequest::decode(body).ok()?;
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            scopes.map(|scope| scope.log_records.len()).sum()
        }
        SignalKind::Points => {
            let request = ExportMetricsServiceRequest::decode(body).ok()?;
            let scopes = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics);
            let metrics = scopes.flat_map(|scope| &scope.metrics);
            metrics
                .map(|metric| match &metric.data {
                    Some(Data::Gauge(data)) => data.data_points.len(),
                    Some(Data::Sum(data)) => data.data_points.len(),
                    Some(Data::Histogram(data)) => data.data_points.len(),
                    Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
                    Some(Data::Summary(data)) => data.data_points.len(),
                    None => 0,
                })
                .sum()
        }
    })
}

/// A batch is sound: its columns are the schema's and Arrow finds nothing wrong with them.
pub fn check_batch(batch: &Batch) {
    Batch::try_new(batch.kind(), batch.record().clone()).expect("columns of the schema");
    for column in batch.record().columns() {
        column.to_data().validate_full().expect("sound columns");
    }
}

/// Decodes `body`; everything that prost finds in it is kept or counted.
pub fn check_protobuf(kind: SignalKind, body: &[u8]) {
    let expected = items_by_prost(kind, body);
    match decode(kind, Bytes::copy_from_slice(body)) {
        Ok(Decoded { batch, rejected }) => {
            check_batch(&batch);
            if let Some(expected) = expected {
                assert_eq!(batch.num_rows() + rejected.items as usize, expected, "{rejected:?}");
            }
        }
        Err(DecodeError::Unreadable { first, .. }) => {
            // Every item is bad, which prost does not look at.
            assert_ne!(expected, Some(0), "{first}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// Reads `text` as JSON; what comes of it is protobuf of which nothing is refused any more.
pub fn check_json(kind: SignalKind, text: &[u8]) {
    let Ok((body, _)) = decode_json(kind, text) else { return };
    let expected = items_by_prost(kind, &body).expect("protobuf that prost can read");
    let decoded = decode(kind, body).expect("protobuf that we can read");
    check_batch(&decoded.batch);
    assert_eq!(decoded.rejected, Rejected::default());
    assert_eq!(decoded.batch.num_rows(), expected);
}

/// Reads `file` as one to import. Every byte of it is in a request, in its frame, or told of; what
/// can be read is sound, and what it would write to the log reads back the same.
pub fn check_file(file: &[u8]) {
    let mut end = 0;
    for request in Requests::new(file) {
        let Ok(request) = request else { continue };
        assert!(request.offset >= end, "requests overlap");
        end = request.offset + request.bytes.len() as u64;
        assert!(end <= file.len() as u64, "a request is longer than its file");
        let Ok(read) = read_request(request.bytes) else { continue };
        check_batch(&read.decoded.batch);
        let again = decode(read.kind, read.body).expect("what is written can be read back");
        assert_eq!(again.batch.num_rows(), read.decoded.batch.num_rows());
    }
}

/// Reads `text` as a selector and as a query.
pub fn check_selector(text: &str) {
    match Selector::parse(text) {
        Ok(selector) => {
            let written = selector.to_string();
            assert_eq!(Selector::parse(&written), Ok(selector), "{written}");
        }
        Err(error) => assert!(error.offset() + error.len() <= text.len(), "{error}"),
    }
    match Query::parse(text) {
        Ok(query) => {
            let written = query.to_string();
            assert_eq!(Query::parse(&written), Ok(query), "{written}");
        }
        Err(error) => assert!(error.offset() + error.len() <= text.len(), "{error}"),
    }
}
