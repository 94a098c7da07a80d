//! Pages of a v3 search: `query.pagination.pageSize` and `pageToken`.
//!
//! A token says how many traces were given and which was the last. What came since the first page is
//! newer and stands before that trace, so that the next page goes on behind it; if it is gone, by the
//! count.

use lacuna_signal::TraceId;

use super::error::ApiError;
use super::go;
use super::query::{Query, malformed};
use super::search::MAX_LIMIT;

const SIZE: &str = "query.pagination.pageSize";
const TOKEN: &str = "query.pagination.pageToken";

/// Which page of what is found is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    size: usize,
    given: usize,
    last: Option<TraceId>,
}

impl Page {
    /// Reads the parameters; `None` if there are none. A page has `default` traces unless they say
    /// otherwise.
    pub fn parse(query: &Query, default: usize) -> Result<Option<Self>, ApiError> {
        let size = query.v3(&[SIZE], |text| {
            let size = go::parse_int(text)?;
            usize::try_from(size).map_err(|_| format!("parsing {text:?}: value out of range"))
        })?;
        let token = query.get(TOKEN);
        if size.is_none() && token.is_none() {
            return Ok(None);
        }
        let size = size.filter(|size| *size > 0).unwrap_or(default).min(MAX_LIMIT);
        let (given, last) = match token {
            None => (0, None),
            Some(token) => {
                let read = token.split_once('-').and_then(|(given, last)| {
                    Some((given.parse().ok()?, last.parse::<TraceId>().ok()?))
                });
                let why = "it is not one that an answer gave as nextPageToken";
                let (given, last) = read.ok_or_else(|| malformed(TOKEN, why))?;
                (given, Some(last))
            }
        };
        Ok(Some(Self { size, given, last }))
    }

    /// How many traces have to be found to give the page, and to know whether there is another.
    pub fn find(&self) -> usize {
        self.given.saturating_add(self.size).saturating_add(1).min(MAX_LIMIT)
    }

    /// The page of `found`, which is what was found from the start on, and the token of the next.
    pub fn of(&self, mut found: Vec<TraceId>) -> (Vec<TraceId>, Option<String>) {
        let behind = self.last.and_then(|last| found.iter().position(|id| *id == last));
        let start = behind.map_or(self.given, |position| position + 1).min(found.len());
        let mut page = found.split_off(start);
        let more = page.len() > self.size;
        page.truncate(self.size);
        let next = page.last().filter(|_| more);
        let token = next.map(|last| format!("{}-{last}", start + page.len()));
        (page, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u8>) -> Vec<TraceId> {
        numbers.into_iter().map(|number| TraceId([number; 16])).collect()
    }

    #[test]
    fn pages_go_on_behind_the_last_trace_whatever_came_or_went() {
        let page = |token: Option<&str>| {
            let token = token.map_or(String::new(), |token| format!("&{TOKEN}={token}"));
            let query = Query::parse(Some(&format!("{SIZE}=2{token}")));
            Page::parse(&query, 20).unwrap().unwrap()
        };
        let (first, token) = page(None).of(ids(1..=5));
        assert_eq!(first, ids([1, 2]));
        let token = token.unwrap();
        // Two newer ones came.
        let (second, token) = page(Some(&token)).of(ids([8, 9, 1, 2, 3, 4, 5]));
        assert_eq!(second, ids([3, 4]));
        // The last is gone.
        let (third, end) = page(Some(&token.unwrap())).of(ids([8, 9, 1, 2, 3, 5]));
        assert_eq!((third, end), (ids([]), None));
        assert_eq!(Page::parse(&Query::parse(None), 20).unwrap(), None);
        for bad in ["pageSize=-1", "pageSize=x", "pageToken=x", "pageToken=1-x"] {
            let query = Query::parse(Some(&format!("query.pagination.{bad}")));
            assert!(Page::parse(&query, 20).is_err(), "{bad}");
        }
    }
}
