//! Reference pipeline.
fn main() {}
