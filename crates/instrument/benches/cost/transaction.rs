//! The share of a Redis transaction's round trip that telemetry takes.

use crate::measure::quartile;
use lacuna_instrument::redis::{ExclusiveConnection, Transaction, TransactionOutcome};
use lacuna_instrument::switch::Level;
use redis::cmd;
use std::time::Instant;

/// Pairs of rounds, and transactions in each.
const PAIRS: usize = 801;
const TRANSACTIONS: u32 = 10;

/// Runs the incident's transaction against the server at `url`, with everything on and off in turn.
pub async fn share(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let key = format!("lacuna-bench-cost-{}", std::process::id());
    let mut rounds: [Vec<f64>; 2] = [vec![], vec![]];
    for n in 0..=PAIRS {
        // Whoever comes first changes from pair to pair.
        for which in [n % 2, 1 - n % 2] {
            crate::all(if which == 0 { Level::On } else { Level::Off });
            let started = Instant::now();
            for _ in 0..TRANSACTIONS {
                assign(&mut connection, &key).await;
            }
            let taken = started.elapsed().as_secs_f64() * 1e6 / f64::from(TRANSACTIONS);
            if n > 0 {
                rounds[which].push(taken);
            }
        }
    }
    cmd("DEL").arg(&key).exec_async(&mut connection).await.unwrap();
    let [on, off] = rounds.map(quartile);
    println!(
        "\nRedis transaction on loopback: WATCH, SCARD, MULTI SPOP HSET EXEC; 6 spans, 3 metrics"
    );
    println!("on {on:.1} us, off {off:.1} us, share {:.1} %", (on - off) / on * 100.0);
}

async fn assign(connection: &mut ExclusiveConnection, key: &str) {
    let outcome = Transaction::new("assign_slot_atomic")
        .attribute("batch_id", "7b13b452-b676-48d5-b270-ba4920053cfe")
        .watch("batch_slots", &[key])
        .run(connection, |mut tx| async move {
            let _free: u64 = tx.query("available_slots", cmd("SCARD").arg(key)).await?;
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SPOP").arg(key));
            multi.add("assignments", cmd("SADD").arg(key).arg("slot"));
            Ok(multi.commit(()))
        })
        .await
        .unwrap();
    assert_eq!(outcome, TransactionOutcome::Committed(()));
}
