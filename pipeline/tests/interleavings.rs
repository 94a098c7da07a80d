//! What two workers on one Redis connection do to each other: the table in
//! `src/els/shared_connection.rs`, line by line, against the real server.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

use redis::aio::MultiplexedConnection;
use redis::{Value, cmd};

/// Two workers' commands over one connection, in an order that the test decides.
struct Shared {
    redis: MultiplexedConnection,
    slots: String,
    assignments: String,
}

impl Shared {
    async fn with_slots(count: u32) -> Self {
        let url = std::env::var("REDIS_URL")
            .unwrap_or_else(|_| panic!("REDIS_URL is not set: run `scripts/services up`, then `eval \"$(scripts/services env)\"`"));
        let client = redis::Client::open(url).unwrap();
        let batch = uuid::Uuid::new_v4();
        let (slots, assignments) =
            (format!("batch:{batch}:available_slots"), format!("batch:{batch}:assignments"));
        let mut redis = client.get_multiplexed_async_connection().await.unwrap();
        for n in 0..count {
            let () = cmd("SADD").arg(&slots).arg(n).query_async(&mut redis).await.unwrap();
        }
        Self { redis, slots, assignments }
    }

    /// The answer as a word: `OK`, `QUEUED`, `nil`, `value`, the number of replies, or the refusal.
    async fn send(&mut self, operation: &str) -> String {
        let mut command = cmd(operation);
        match operation {
            "WATCH" => command.arg(&self.slots).arg(&self.assignments),
            "SPOP" => command.arg(&self.slots),
            "HSET" => command.arg(&self.assignments).arg("essay").arg("{}"),
            _ => &mut command,
        };
        match self.redis.send_packed_command(&command).await.unwrap() {
            Value::Okay => "OK".into(),
            Value::SimpleString(text) => text,
            Value::Nil => "nil".into(),
            Value::Array(replies) => format!("{} replies", replies.len()),
            Value::ServerError(error) => error.details().unwrap_or_default().to_owned(),
            _ => "value".into(),
        }
    }

    async fn free(&mut self) -> u32 {
        cmd("SCARD").arg(&self.slots).query_async(&mut self.redis).await.unwrap()
    }
}

#[tokio::test]
async fn the_second_workers_watch_and_multi_are_refused_and_its_commands_join_the_first_ones_transaction()
 {
    let mut shared = Shared::with_slots(3).await;
    for (operation, answer) in [
        ("WATCH", "OK"),                                // first
        ("MULTI", "OK"),                                // first
        ("WATCH", "WATCH inside MULTI is not allowed"), // second
        ("MULTI", "MULTI calls can not be nested"),     // second
        ("SPOP", "QUEUED"),                             // first
        ("SPOP", "QUEUED"),                             // second
        ("HSET", "QUEUED"),                             // first
        ("EXEC", "3 replies"),                          // first: both slots are gone
        ("HSET", "value"),                              // second, outside any transaction
        ("EXEC", "EXEC without MULTI"),                 // second: "no slot"
    ] {
        assert_eq!(shared.send(operation).await, answer, "{operation}");
    }
    assert_eq!(shared.free().await, 1, "two slots taken, one essay placed");
}

#[tokio::test]
async fn the_second_workers_exec_runs_the_first_ones_transaction() {
    let mut shared = Shared::with_slots(3).await;
    for (operation, answer) in [
        ("WATCH", "OK"),                // second
        ("WATCH", "OK"),                // first
        ("MULTI", "OK"),                // first
        ("SPOP", "QUEUED"),             // first
        ("EXEC", "1 replies"),          // second
        ("HSET", "value"),              // first, too late
        ("EXEC", "EXEC without MULTI"), // first: "no slot", though its slot was popped
    ] {
        assert_eq!(shared.send(operation).await, answer, "{operation}");
    }
    assert_eq!(shared.free().await, 2);
}

#[tokio::test]
async fn a_command_outside_discards_the_own_connections_watch() {
    let mut shared = Shared::with_slots(3).await;
    for (operation, answer) in [
        ("WATCH", "OK"),   // second
        ("SPOP", "value"), // first, whose transaction somebody else has ended
        ("MULTI", "OK"),   // second
        ("SPOP", "QUEUED"),
        ("HSET", "QUEUED"),
        ("EXEC", "nil"), // second: discarded, and taken for "no slot"
    ] {
        assert_eq!(shared.send(operation).await, answer, "{operation}");
    }
    assert_eq!(shared.free().await, 2);
}
