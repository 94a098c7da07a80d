//! Outcome contracts: when A is seen for key K, B must (or must not) follow within T.
//!
//! This room stands on `lacuna-signal` alone. It holds
//!
//! - [`spec`]: contract files (YAML) to validated [`Contract`]s, with every error at its place;
//! - [`monitor`]: the engine that reads batches of spans and logs and says what became of every
//!   obligation, live ([`Monitor`]) and over history ([`history`]), by one and the same code;
//! - [`mine`]: contracts proposed from healthy traffic;
//! - findings: one [`lacuna_signal::finding::Finding`] a contract and verdict.
//!
//! What each kind of contract means, exactly, is in `docs/contracts.md`.

pub mod history;
pub mod mine;
pub mod monitor;
pub mod spec;

pub use monitor::{CheckpointError, Clock, ContractStatus, Episode, Gap, Monitor, Options};
pub use spec::{Contract, ContractSet, Kind, LoadError, LoadErrors, Per};
