//! `key=value` pairs as Grafana's data sources send them (logfmt, as `go-logfmt` reads it).

/// The pairs of `text`: separated by spaces, a value with spaces in double quotes with the escapes of
/// JSON. A key without `=` has an empty value.
///
/// # Errors
/// What is wrong, and at which character.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    let column = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c == '"' || c.is_whitespace());
        let (key, tail) = rest.split_at(end.unwrap_or(rest.len()));
        if key.is_empty() || tail.starts_with('"') {
            let at = column(if key.is_empty() { rest } else { tail });
            return Err(format!("character {at}: expected a key, such as in `key=\"a value\"`"));
        }
        let (value, tail) = match tail.strip_prefix('=') {
            None => (String::new(), tail),
            Some(quoted) if quoted.starts_with('"') => {
                let at = column(quoted);
                quoted_value(quoted).map_err(|why| format!("character {at}: {why}"))?
            }
            Some(tail) => {
                let end = tail.find(char::is_whitespace).unwrap_or(tail.len());
                let (value, tail) = tail.split_at(end);
                if let Some(at) = value.find(['=', '"']) {
                    let before = key.chars().count() + 1 + value[..at].chars().count();
                    let at = column(rest) + before;
                    return Err(format!("character {at}: put a value with `=` or `\"` in quotes"));
                }
                (value.to_owned(), tail)
            }
        };
        pairs.push((key.to_owned(), value));
        rest = tail.trim_start();
    }
    Ok(pairs)
}

/// A text in quotes at the start of `text`, and what follows.
fn quoted_value(text: &str) -> Result<(String, &str), String> {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at + 1)
    });
    let end = end.ok_or("a quote that is not closed")?;
    let (quoted, tail) = text.split_at(end);
    let value = serde_json::from_str(quoted).map_err(|_| "an unknown escape in a quoted value")?;
    Ok((value, tail))
}

/// `text` as a regular expression that matches it alone.
pub fn regex_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        // Only these: a backslash gives some other marks a meaning, such as `\<`.
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_as_grafana_writes_them() {
        let read = |text| pairs(text).unwrap();
        let owned = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        assert_eq!(read(""), []);
        assert_eq!(read(" a=1  b "), owned(&[("a", "1"), ("b", "")]));
        assert_eq!(
            read(r#"service.name="essay service" q="say \"x\"" e="#),
            owned(&[("service.name", "essay service"), ("q", "say \"x\""), ("e", "")])
        );
        for (bad, at) in [("=a", 1), ("a=\"b", 3), ("a=b=c", 4), ("a=\"\\y\"", 3), ("ä\"", 2)] {
            let error = pairs(bad).unwrap_err();
            assert!(error.starts_with(&format!("character {at}:")), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn quoted_values_read_back(values in proptest::collection::vec(".{0,8}", 0..4)) {
            let written: Vec<String> = values
                .iter()
                .map(|value| format!("k={}", serde_json::to_string(value).unwrap()))
                .collect();
            let read: Vec<String> =
                pairs(&written.join(" ")).unwrap().into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,40}") {
            let _ = pairs(&text);
        }
    }
}
