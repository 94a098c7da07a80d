//! A PostgreSQL of the test's own making: a pool, and a table.

use super::proxy::Proxy;
use super::{unique, url};
use lacuna_instrument::postgres::Pool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::str::FromStr;
use std::time::Duration;

fn options() -> PgConnectOptions {
    PgConnectOptions::from_str(&url("DATABASE_URL")).unwrap()
}

async fn connect(connections: u32, options: PgConnectOptions, name: &str) -> Pool {
    let pool =
        PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(3));
    Pool::new(pool.connect_with(options).await.unwrap(), name)
}

/// A pool, and a table of the test's own with three rows.
pub async fn pool(connections: u32) -> (Pool, String) {
    let table = unique("t").replace('-', "_");
    let pool = connect(connections, options(), &table).await;
    sqlx::raw_sql(sql(format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, state text); INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    )))
    .execute(pool.inner())
    .await
    .unwrap();
    (pool, table)
}

/// A pool of one connection behind a proxy, and a second pool straight to the server.
pub async fn behind_a_proxy() -> (Pool, Proxy, Pool, String) {
    let (straight, table) = pool(2).await;
    let to = options();
    let proxy = Proxy::start(format!("{}:{}", to.get_host(), to.get_port())).await;
    let through = connect(1, to.host("127.0.0.1").port(proxy.port), "behind a proxy").await;
    (through, proxy, straight, table)
}

/// The ids in the table.
pub async fn ids(pool: &Pool, table: &str) -> Vec<i32> {
    let all = sql(format!("SELECT id FROM {table} ORDER BY id"));
    sqlx::query_scalar(all).fetch_all(pool.inner()).await.unwrap()
}

pub fn sql(text: String) -> sqlx::AssertSqlSafe<String> {
    sqlx::AssertSqlSafe(text)
}
