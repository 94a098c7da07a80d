//! The share of a round trip that telemetry takes: a Redis transaction, a PostgreSQL query, a Kafka
//! record, each on loopback.

use crate::measure::quartile;
use lacuna_instrument::kafka::{Event, TracedContext, produce};
use lacuna_instrument::postgres::Pool;
use lacuna_instrument::redis::{ExclusiveConnection, Transaction, TransactionOutcome};
use lacuna_instrument::switch::Level;
use rdkafka::ClientConfig;
use rdkafka::producer::FutureProducer;
use redis::cmd;
use std::time::{Duration, Instant};

/// Calls in a round.
const CALLS: u32 = 10;

/// Nanoseconds for which this thread ran so far: what the service itself does, whatever it waits for.
/// Zero where the system does not tell.
fn own_time() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

/// Runs `call` in pairs of rounds with everything on and off, and prints both, lower quartiles: of the
/// time that passed and of the time that this thread ran, in microseconds a call.
async fn share(what: &str, pairs: usize, mut call: impl AsyncFnMut()) {
    let mut passed: [Vec<f64>; 2] = [vec![], vec![]];
    let mut ran: [Vec<f64>; 2] = [vec![], vec![]];
    for n in 0..=pairs {
        // Whoever comes first changes from pair to pair.
        for which in [n % 2, 1 - n % 2] {
            crate::all(if which == 0 { Level::On } else { Level::Off });
            let (started, before) = (Instant::now(), own_time());
            for _ in 0..CALLS {
                call().await;
            }
            let each = |ns: f64| ns / 1e3 / f64::from(CALLS);
            // The first pair warms up.
            if n > 0 {
                passed[which].push(each(started.elapsed().as_secs_f64() * 1e9));
                ran[which].push(each(own_time() - before));
            }
        }
    }
    let ([on, off], [ran_on, ran_off]) = (passed.map(quartile), ran.map(quartile));
    let share = (on - off) / on * 100.0;
    println!("{what}");
    println!("  on {on:.1} us, off {off:.1} us, share {share:.1} %");
    println!("  this thread: on {ran_on:.1} us, off {ran_off:.1} us");
}

/// The incident's transaction against the server at `url`.
pub async fn redis(url: &str) {
    let client = redis::Client::open(url).unwrap();
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let key = format!("lacuna-bench-cost-{}", std::process::id());
    let what = "\nRedis transaction: WATCH, SCARD, MULTI SPOP SADD EXEC; 6 spans, 3 metrics";
    share(what, 801, async || assign(&mut connection, &key).await).await;
    cmd("DEL").arg(&key).exec_async(&mut connection).await.unwrap();
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

/// A query by primary key's worth against the database at `url`.
pub async fn postgres(url: &str) {
    let pool = Pool::new(sqlx::PgPool::connect(url).await.unwrap(), "cost");
    let what = "\nPostgreSQL query with one parameter; 2 spans (the query, the wait for a \
                connection), 3 metrics";
    share(what, 401, async || {
        let row = sqlx::query("SELECT $1::bigint + 1").bind(7_i64).fetch_one(&pool).await;
        std::hint::black_box(row.unwrap());
    })
    .await;
}

/// A record to the broker, and its acknowledgement.
pub async fn kafka(brokers: &str) {
    let producer: FutureProducer<TracedContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "0")
        .create_with_context(TracedContext::new("cost"))
        .unwrap();
    let topic = format!("lacuna-bench-cost-{}", std::process::id());
    share("\nKafka record, acknowledged; 1 span, 2 metrics", 201, async || {
        let event = Event::new(&topic, "huleedu.file.essay.content.provisioned.v1", &[b'{'; 300])
            .key("essay-1")
            .event_id("2b7d5e4a-56ca-4fe8-83ad-1d7381b8e8db")
            .attribute("batch_id", "7b13b452-b676-48d5-b270-ba4920053cfe");
        produce(&producer, event, Duration::from_secs(10)).await.unwrap();
    })
    .await;
}
