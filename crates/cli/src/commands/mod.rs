//! One module a command.

pub mod contracts;
pub mod export;
pub mod serve;
