//! A batch with slots in Redis, and the reference transaction on it.

use super::proxy::Proxy;
use super::{unique, url};
use lacuna_instrument::redis::{
    ExclusiveConnection, Transaction, TransactionError, TransactionOutcome,
};
use redis::{AsyncCommands, Client, ConnectionAddr, cmd};

pub fn client() -> Client {
    Client::open(url("REDIS_URL")).unwrap()
}

/// A client whose connections go through a proxy.
pub async fn through_a_proxy() -> (Client, Proxy) {
    let client = client();
    let ConnectionAddr::Tcp(host, port) = client.get_connection_info().addr() else {
        panic!("REDIS_URL is no plain TCP address");
    };
    let proxy = Proxy::start(format!("{host}:{port}")).await;
    (Client::open(format!("redis://127.0.0.1:{}", proxy.port)).unwrap(), proxy)
}

pub struct Batch {
    pub slots: String,
    pub assignments: String,
}

pub async fn batch(slots: usize) -> (Batch, ExclusiveConnection, redis::Client) {
    let client = client();
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let id = unique("batch");
    let batch =
        Batch { slots: format!("{id}:available_slots"), assignments: format!("{id}:assignments") };
    for n in 0..slots {
        let _: () = connection.sadd(&batch.slots, format!("slot-{n}")).await.unwrap();
    }
    (batch, connection, client)
}

pub fn assign(batch: &Batch) -> Transaction {
    Transaction::new("assign_slot_atomic")
        .attribute("batch_id", "7")
        .watch("batch_slots", &[&batch.slots, &batch.assignments])
}

/// The reference use: look under WATCH, take and record in MULTI.
pub async fn take(
    transaction: Transaction,
    connection: &mut ExclusiveConnection,
    batch: &Batch,
    essay: &str,
) -> Result<TransactionOutcome<String>, TransactionError> {
    transaction
        .run(connection, |mut tx| async move {
            let slot: Option<String> =
                tx.query("available_slots", cmd("SRANDMEMBER").arg(&batch.slots)).await?;
            let Some(slot) = slot else {
                return Ok(tx.no_value("no_slot"));
            };
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SREM").arg(&batch.slots).arg(&slot));
            multi.add("assignments", cmd("HSET").arg(&batch.assignments).arg(&slot).arg(essay));
            Ok(multi.commit(slot))
        })
        .await
}
