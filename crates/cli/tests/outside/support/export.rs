//! What `lacuna export` writes, read by OpenTelemetry's own types.

use std::path::Path;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::otlp::TraceRequest;
use super::server::run;

/// One export request of each line.
#[derive(Default)]
pub struct Exported {
    /// The lines: path below `/v1/` and OTLP/JSON.
    pub lines: Vec<(&'static str, String)>,
    pub traces: Vec<TraceRequest>,
    pub logs: Vec<ExportLogsServiceRequest>,
    pub metrics: Vec<ExportMetricsServiceRequest>,
}

impl Exported {
    /// Exports the data folder `data`; a server may run on it.
    pub fn of(data: &Path) -> Self {
        let output = run(["export".as_ref(), "--data".as_ref(), data.as_os_str()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::read(&String::from_utf8(output.stdout).unwrap())
    }

    pub fn read(text: &str) -> Self {
        let mut exported = Self::default();
        for line in text.lines() {
            let signal = if line.starts_with("{\"resourceSpans\":") {
                exported.traces.push(serde_json::from_str(line).unwrap());
                "traces"
            } else if line.starts_with("{\"resourceLogs\":") {
                exported.logs.push(serde_json::from_str(line).unwrap());
                "logs"
            } else {
                exported.metrics.push(serde_json::from_str(line).unwrap());
                "metrics"
            };
            exported.lines.push((signal, line.to_owned()));
        }
        exported
    }

    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        let resources = self.traces.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans)
    }

    pub fn log_records(&self) -> impl Iterator<Item = &LogRecord> {
        let resources = self.logs.iter().flat_map(|request| &request.resource_logs);
        resources.flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records)
    }

    pub fn log_bodies(&self) -> impl Iterator<Item = String> {
        self.log_records().map(|record| match record.body.as_ref().unwrap().value.as_ref() {
            Some(Value::StringValue(text)) => text.clone(),
            other => panic!("the body is {other:?}"),
        })
    }

    pub fn metric_list(&self) -> impl Iterator<Item = &Metric> {
        let resources = self.metrics.iter().flat_map(|request| &request.resource_metrics);
        resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics)
    }

    pub fn metric_names(&self) -> impl Iterator<Item = String> {
        self.metric_list().map(|metric| metric.name.clone())
    }
}
