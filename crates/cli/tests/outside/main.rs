//! The `lacuna` binary from the outside: started as a process, spoken to over the network.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test"
)]

mod accept;
mod alertmanager;
mod bad_input;
mod channels;
mod checkpoint;
mod contracts;
mod durability;
mod episodes;
mod explore;
mod export;
mod from;
mod history;
mod import;
mod import_url;
mod kept;
mod limits;
mod meaning;
mod parts;
mod query;
mod receivers;
mod rejections;
mod series;
mod start;
mod store;
mod support;
mod tls;
