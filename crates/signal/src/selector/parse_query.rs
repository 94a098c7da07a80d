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
    parser
        .expect_end("join selectors by > >> < << ~, by one of them after ! or &, by && or by ||")?;
    Ok(query)
}

impl Parser<'_> {
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
