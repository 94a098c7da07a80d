//! OTLP in, HTTP APIs out.

pub mod jaeger;
