//! What a command is called, without any of its values.

use redis::{Arg, Cmd, Pipeline};
use std::borrow::Cow;

/// A command's name as it was written: the convention forbids folding its case.
pub(crate) fn name_of(cmd: &Cmd) -> Cow<'static, str> {
    let name = match cmd.args_iter().next() {
        Some(Arg::Simple(name)) => name,
        _ => return Cow::Borrowed("UNKNOWN"),
    };
    // The usual names need no allocation.
    const KNOWN: [&str; 24] = [
        "GET",
        "SET",
        "DEL",
        "EXISTS",
        "EXPIRE",
        "TTL",
        "INCR",
        "DECR",
        "MGET",
        "MSET",
        "HGET",
        "HSET",
        "HDEL",
        "HGETALL",
        "HLEN",
        "SADD",
        "SREM",
        "SPOP",
        "SCARD",
        "SMEMBERS",
        "SRANDMEMBER",
        "WATCH",
        "EVALSHA",
        "PING",
    ];
    KNOWN.iter().find(|k| k.as_bytes() == name).map_or_else(
        || Cow::Owned(String::from_utf8_lossy(name).into_owned()),
        |k| Cow::Borrowed(*k),
    )
}

/// What a script command runs: the digest or the function's name, which is no value.
pub(crate) fn script_of(cmd: &Cmd) -> Option<String> {
    let mut args = cmd.args_iter();
    let Some(Arg::Simple(name)) = args.next() else { return None };
    let is_script = ["EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO"]
        .iter()
        .any(|k| name.eq_ignore_ascii_case(k.as_bytes()));
    match args.next().filter(|_| is_script) {
        Some(Arg::Simple(script)) => Some(String::from_utf8_lossy(script).into_owned()),
        _ => None,
    }
}

/// `PIPELINE HSET`, `MULTI HSET` when all commands are the same, else `PIPELINE`, `MULTI`.
pub(crate) fn name_of_batch(pipeline: &Pipeline) -> Cow<'static, str> {
    let kind = if pipeline.is_transaction() { "MULTI" } else { "PIPELINE" };
    let mut names = pipeline.cmd_iter().map(name_of);
    match names.next() {
        Some(first) if names.all(|n| n == first) => Cow::Owned(format!("{kind} {first}")),
        _ => Cow::Borrowed(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_case_and_batches_follow_the_convention() {
        assert_eq!(name_of(&redis::cmd("hset")), "hset");
        assert_eq!(name_of(&redis::cmd("SPOP")), "SPOP");
        let mut pipe = redis::pipe();
        assert_eq!(name_of_batch(&pipe), "PIPELINE");
        pipe.hset("a", "b", 1).hset("a", "c", 2);
        assert_eq!(name_of_batch(&pipe), "PIPELINE HSET");
        pipe.del("a").atomic();
        assert_eq!(name_of_batch(&pipe), "MULTI");
    }
}
