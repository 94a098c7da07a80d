//! What a trace search asks for: a query, or Tempo's older tags and durations.

use std::collections::BTreeSet;

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{Expr, Field, Intrinsic, Literal, Op, Query, StatusCode};

use super::{Failure, Params, bad};
use crate::logfmt;

/// Parameters that `/api/search` reads.
const KNOWN: [&str; 8] =
    ["q", "tags", "minDuration", "maxDuration", "limit", "spss", "start", "end"];

/// The query, and what is said of parameters that nothing reads: an answer to less than was asked
/// must not look like one to all of it.
pub fn query(params: &Params) -> Result<(Query, Vec<String>), Failure> {
    let unknown: BTreeSet<&str> = params
        .0
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| !KNOWN.contains(name))
        .collect();
    let warning = |name| format!("parameter `{name}` is not known and was passed over");
    let warnings = unknown.into_iter().map(warning).collect();
    let older = ["tags", "minDuration", "maxDuration"];
    let older = older.into_iter().find(|name| params.get(name).is_some());
    let query = match (params.get("q"), older) {
        (Some(_), Some(name)) => {
            let why = "put it into q, as `span.key = \"value\"` or `traceDuration >= 1s`";
            return Err(bad(format!("q and {name} are two ways to ask: {why}")));
        }
        (Some(q), None) => Query::parse(q)?,
        (None, None) => Query::parse("{ }")?,
        (None, Some(_)) => Query::of_spans(Expr::all(older_terms(params)?))?,
    };
    if query.kind() != SignalKind::Spans {
        return Err(bad("q selects log records: GET /api/v1/logs finds them"));
    }
    Ok((query, warnings))
}

/// Tempo's search before TraceQL: tags that a span has, or its resource, and how long the trace took.
fn older_terms(params: &Params) -> Result<Vec<Expr>, Failure> {
    let mut terms = Vec::new();
    let mut seen = BTreeSet::new();
    let tags = logfmt::pairs(params.get("tags").unwrap_or_default())
        .map_err(|why| bad(format!("tags: {why}")))?;
    for (key, value) in tags {
        terms.push(tag(&key, &value)?);
        if !seen.insert(key.clone()) {
            return Err(bad(format!("tags: `{key}` is given twice")));
        }
    }
    let least = params.duration("minDuration")?;
    let most = params.duration("maxDuration")?;
    if least.zip(most).is_some_and(|(least, most)| least > most) {
        return Err(bad("maxDuration is less than minDuration"));
    }
    let took = |op, nanos| Expr::compare(Intrinsic::TraceDuration, op, Literal::Duration(nanos));
    terms.extend(least.map(|nanos| took(Op::Ge, nanos)));
    terms.extend(most.map(|nanos| took(Op::Le, nanos)));
    Ok(terms)
}

/// Names and services hold the text anywhere; every other attribute is compared whole, as Tempo's
/// blocks do.
fn tag(key: &str, value: &str) -> Result<Expr, Failure> {
    let holds = |field: Field| {
        let pattern = format!(".*{}.*", logfmt::regex_escape(value));
        Expr::compare(field, Op::Match, Literal::Str(pattern))
    };
    Ok(match key {
        "name" => holds(Intrinsic::Name.into()),
        "service.name" => holds(Field::service()),
        "root.name" => holds(Intrinsic::RootName.into()),
        "root.service.name" => holds(Intrinsic::RootService.into()),
        "status.code" => {
            let status = StatusCode::from_name(value).ok_or_else(|| {
                bad(format!("tags: status.code is `{value}`: expected unset, ok or error"))
            })?;
            Expr::compare(Intrinsic::Status, Op::Eq, Literal::Status(status))
        }
        // As Grafana's older search form asks for errors.
        "error" if value == "true" => Expr::any([
            Expr::compare(Intrinsic::Status, Op::Eq, Literal::Status(StatusCode::Error)),
            Expr::tag(key, value),
        ]),
        _ => Expr::tag(key, value),
    })
}
