//! `GET /api/v1/explain`: the story of one key, as the store and the live contracts have it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::routing::get;
use http::StatusCode;
use jiff::Timestamp;
use lacuna_contract::ContractSet;
use lacuna_store::{Store, TimeRange};

use crate::api::Failure;
use crate::live::Live;
use crate::story::{KeyPart, Search, Story, of_store, verdicts};
use crate::times::parse_range;

#[derive(Clone)]
struct Explain {
    store: Store,
    live: Arc<Live>,
}

/// The route.
pub fn router(store: Store, live: Arc<Live>) -> Router {
    Router::new().route("/api/v1/explain", get(explain)).with_state(Explain { store, live })
}

async fn explain(
    State(explain): State<Explain>,
    RawQuery(query): RawQuery,
) -> Result<axum::Json<Story>, Failure> {
    let (key, range) = read_query(query.as_deref().unwrap_or_default())
        .map_err(|message| Failure(StatusCode::BAD_REQUEST, message))?;
    let done = tokio::task::spawn_blocking(move || explain.story(key, range));
    done.await
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
        .map(axum::Json)
}

/// `key=NAME=VALUE`, several times for a joint key, `from` and `to`.
fn read_query(query: &str) -> Result<(Vec<KeyPart>, TimeRange), String> {
    let (mut key, mut from, mut to) = (Vec::new(), None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "key" => key.push(KeyPart::parse(&value)?),
            "from" => from = Some(value),
            "to" => to = Some(value),
            other => {
                return Err(format!("unknown parameter `{other}`: there are key, from and to"));
            }
        }
    }
    if key.is_empty() {
        return Err("a key is missing: add ?key=correlation_id=VALUE".to_owned());
    }
    let range = parse_range(from.as_deref(), to.as_deref(), Timestamp::now())?;
    Ok((key, range))
}

impl Explain {
    fn story(&self, mut key: Vec<KeyPart>, range: TimeRange) -> Result<Story, Failure> {
        let contracts: Vec<_> = self.live.monitor().contracts().map(|c| (**c).clone()).collect();
        let contracts = ContractSet::from_contracts(contracts);
        key.iter_mut().for_each(|part| part.learn(&contracts));
        let search = Search::new(key)
            .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))?;
        let search = of_store(&self.store, search, range)
            .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        let mut story = search.finish();
        verdicts(&mut story, &self.live.monitor());
        Ok(story)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_checked() {
        let (key, range) = read_query("key=correlation_id%3Da%3Db&key=span.tenant=7").unwrap();
        assert_eq!((&*key[0].name, &*key[0].value), ("correlation_id", "a=b"));
        assert_eq!((&*key[1].name, &*key[1].value), ("tenant", "7"));
        assert_eq!(range, TimeRange::ALL);
        for (bad, says) in [
            ("", "a key is missing"),
            ("key=x", "an attribute and its value"),
            ("key=a=1&form=1h", "unknown parameter `form`"),
            ("key=a=1&from=yesterday", "not a time"),
        ] {
            let error = read_query(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
