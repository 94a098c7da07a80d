//! The query string of a request.

use super::error::ApiError;
use super::go::{self, Reason};

/// Parameters in the order in which they came; a name may occur several times.
#[derive(Debug, Clone)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes a raw query string. Escapes that are not UTF-8 become U+FFFD.
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(raw.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// Every value of `name`, empty ones included.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of `name`, unless it is empty: Jaeger takes an empty parameter for none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }

    /// The first of `names` that has a value: its name and value. v3 has a new and an old spelling
    /// of each parameter.
    pub fn first<'n>(&self, names: &[&'n str]) -> Option<(&'n str, &str)> {
        names.iter().find_map(|name| Some((*name, self.get(name)?)))
    }

    /// A v1 parameter, read by `parse`.
    pub fn v1<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Reason>,
    ) -> Result<Option<T>, ApiError> {
        self.get(name).map(|text| parse(text).map_err(|why| unable(name, &why))).transpose()
    }

    /// A v3 parameter under any of `names`, read by `parse`.
    pub fn v3<T>(
        &self,
        names: &[&str],
        parse: impl Fn(&str) -> Result<T, Reason>,
    ) -> Result<Option<T>, ApiError> {
        self.first(names)
            .map(|(name, text)| parse(text).map_err(|why| malformed(name, &why)))
            .transpose()
    }

    /// Whether v1 answers are to be indented.
    pub fn pretty(&self) -> bool {
        self.get("prettyPrint").is_some_and(|value| value != "false")
    }
}

/// v1's words for a parameter that cannot be read.
pub fn unable(name: &str, why: &str) -> ApiError {
    ApiError::Bad(format!("unable to parse param '{name}': {why}"))
}

/// v3's words for a parameter that cannot be read.
pub fn malformed(name: &str, why: &str) -> ApiError {
    ApiError::Bad(format!("malformed parameter {name}: {why}"))
}

/// A number of `unit` nanoseconds since the epoch, as nanoseconds.
pub fn units(unit: i64) -> impl Fn(&str) -> Result<i64, Reason> {
    move |text| Ok(go::parse_int(text)?.saturating_mul(unit))
}
