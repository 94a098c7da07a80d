//! One module a command.

pub mod contracts;
pub mod explain;
pub mod export;
pub mod findings;
pub mod import;
pub mod query;
pub mod serve;
pub mod store;
