//! One module a command.

pub mod contracts;
pub mod export;
pub mod import;
pub mod serve;
pub mod store;
