//! Selectors joined by structural operators, from tokens.

use super::error::SelectorError;
use super::lexer::TokenKind;
use super::parser::{MAX_TERMS, Parser};
use super::query::{Keep, Query, Relation};
use crate::schema::SignalKind;

/// Reads selectors joined by structural operators.
pub(super) fn parse_query(source: &str) -> Result<Query, SelectorError> {
    let mut parser = Parser::new(source)?;
    parser.whole = true;
    let query = parser.query(0)?;
    parser.refuse_pipelines()?;
    parser
        .expect_end("join selectors by > >> < << ~, by one of them after ! or &, by && or by ||")?;
    Ok(query)
}

/// Stages of a pipeline that make metrics.
const METRICS: [&str; 11] = [
    "rate",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "avg_over_time",
    "sum_over_time",
    "quantile_over_time",
    "histogram_over_time",
    "compare",
    "topk",
    "bottomk",
];

impl Parser<'_> {
    /// Says what to ask instead of a pipeline, if one comes next.
    fn refuse_pipelines(&self) -> Result<(), SelectorError> {
        if self.token().kind != TokenKind::Symbol("|") {
            return Ok(());
        }
        let stage = self.after();
        let (end, name) = match &stage.kind {
            TokenKind::Word(word) => (stage.end, word.as_str()),
            _ => (self.token().end, ""),
        };
        let help = match name {
            "select" => {
                "spans come with the attributes that the query reads: name one in it, such as \
                 `(span.x != nil || span.x = nil)`"
            }
            "count" | "avg" | "min" | "max" | "sum" => {
                "the answer counts the selected spans of each trace (`matched`); to ask for a number of \
                 children there is `span:childCount`, for the length of a trace `traceDuration`"
            }
            name if METRICS.contains(&name) => {
                "metrics of spans are rates, errors and latencies at /api/metrics/*"
            }
            _ => "a query is selectors joined by > >> < << ~, && or ||",
        };
        let what = if METRICS.contains(&name) { "metrics of spans are" } else { "pipelines are" };
        let problem = format!("{what} not answered here");
        Err(self.fail_at(self.token().start, end, problem, help))
    }

    /// Selectors joined by operators of `level` and up: 0 `||`, 1 `&&`, 2 structural.
    fn query(&mut self, level: u8) -> Result<Query, SelectorError> {
        if level == 3 {
            if self.eat("(") {
                let inner = self.nested(|parser| parser.query(0))?;
                self.expect(")", "close the bracket")?;
                return Ok(inner);
            }
            return self.selector().map(Query::Select);
        }
        let mut left = self.query(level + 1)?;
        loop {
            let operator = self.token().clone();
            let TokenKind::Symbol(symbol) = operator.kind else { return Ok(left) };
            let structural = Relation::ALL
                .into_iter()
                .flat_map(|relation| Keep::ALL.map(|keep| (relation, keep)))
                .find(|(relation, keep)| relation.text(*keep) == symbol);
            let mine = match (level, symbol) {
                (0, "||") | (1, "&&") => true,
                (2, _) => structural.is_some(),
                _ => false,
            };
            if !mine {
                return Ok(left);
            }
            self.at += 1;
            self.terms += 1;
            if self.terms > MAX_TERMS {
                return Err(self.fail("too many selectors", format!("at most {MAX_TERMS}")));
            }
            let right = self.query(level + 1)?;
            for side in [&left, &right] {
                if side.kind() != SignalKind::Spans {
                    let help = "only spans have parents; log records stand alone";
                    let problem = "log records in a query over traces";
                    return Err(self.fail_at(operator.start, operator.end, problem, help));
                }
            }
            let (left_box, right) = (Box::new(left), Box::new(right));
            left = match structural {
                Some((relation, keep)) if level == 2 => {
                    Query::Structural { relation, keep, left: left_box, right }
                }
                _ if level == 1 => Query::And(left_box, right),
                _ => Query::Or(left_box, right),
            };
        }
    }
}
