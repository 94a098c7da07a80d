//! Arrays and key-value lists: attribute values that are kept as OTLP/JSON text.

use serde_json::Value as Json;

use super::Value;

/// The OTLP/JSON text of an array or key-value list as plain JSON, as Jaeger's tags show it: `{"arrayValue":{"values":[{"intValue":"1"}]}}` becomes `[1]`. An empty value is empty text.
/// Text that nests too deeply for the JSON reader stays as it is.
pub fn plain_json(text: &str) -> String {
    match serde_json::from_str(text).map(plain) {
        Ok(Json::Null) => String::new(),
        Ok(value) => value.to_string(),
        Err(_) => text.to_owned(),
    }
}

fn plain(any_value: Json) -> Json {
    let Json::Object(members) = any_value else { return any_value };
    let Some((ty, value)) = members.into_iter().next() else { return Json::Null };
    match (ty.as_str(), value) {
        ("intValue", Json::String(text)) => {
            text.parse::<i64>().map_or(Json::String(text), Json::from)
        }
        ("arrayValue", Json::Object(mut array)) => match array.remove("values") {
            Some(Json::Array(values)) => values.into_iter().map(plain).collect(),
            _ => Json::Array(Vec::new()),
        },
        ("kvlistValue", Json::Object(mut list)) => match list.remove("values") {
            Some(Json::Array(values)) => {
                Json::Object(values.into_iter().filter_map(key_value).collect())
            }
            _ => Json::Object(serde_json::Map::new()),
        },
        (_, value) => value,
    }
}

fn key_value(member: Json) -> Option<(String, Json)> {
    let Json::Object(mut member) = member else { return None };
    let Some(Json::String(key)) = member.remove("key") else { return None };
    Some((key, member.remove("value").map_or(Json::Null, plain)))
}

/// Whether `test` accepts an element of the array that `text` is as OTLP/JSON; what is no array has
/// none. Arrays in it are no elements to ask.
pub fn any_element(text: &str, mut test: impl FnMut(&Value<'_>) -> bool) -> bool {
    // The only array is at the front; most composite values are something else.
    if !text.starts_with("{\"arrayValue\"") {
        return false;
    }
    let Ok(array) = serde_json::from_str::<Json>(text) else { return false };
    let elements = array["arrayValue"]["values"].as_array();
    elements.into_iter().flatten().any(|element| {
        let Some((ty, value)) = element.as_object().and_then(|members| members.iter().next())
        else {
            return false;
        };
        let number = || value.as_str().and_then(|text| text.parse().ok()).or(value.as_i64());
        let value = match ty.as_str() {
            "stringValue" => value.as_str().map(Value::Str),
            "intValue" => number().map(Value::Int),
            "doubleValue" => value.as_f64().map(Value::Double),
            "boolValue" => value.as_bool().map(Value::Bool),
            _ => None,
        };
        value.is_some_and(|value| test(&value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composite_values_are_plain_json_text() {
        let cases = [
            ("{}", ""),
            (
                r#"{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"1"},{"boolValue":true},{}]}}"#,
                r#"["a",1,true,null]"#,
            ),
            (
                r#"{"kvlistValue":{"values":[{"key":"k","value":{"doubleValue":0.5}},{"key":"e","value":{"arrayValue":{"values":[]}}}]}}"#,
                r#"{"e":[],"k":0.5}"#,
            ),
            (
                r#"{"arrayValue":{"values":[{"bytesValue":"AQI="},{"doubleValue":"NaN"}]}}"#,
                r#"["AQI=","NaN"]"#,
            ),
            ("not json", "not json"),
        ];
        for (otlp, expected) in cases {
            assert_eq!(plain_json(otlp), expected);
        }
    }

    #[test]
    fn elements_are_asked_by_their_type() {
        let list = r#"{"arrayValue":{"values":[{"stringValue":"a"},{"intValue":"3"},{"boolValue":true}]}}"#;
        assert!(any_element(list, |value| *value == Value::Str("a")));
        assert!(any_element(list, |value| *value == Value::Int(3)));
        assert!(!any_element(list, |value| *value == Value::Str("3")));
        assert!(any_element(list, |value| *value == Value::Bool(true)));
        for none in ["", "{}", r#"{"kvlistValue":{"values":[]}}"#, r#"{"arrayValue":{}}"#, "[1]"] {
            assert!(!any_element(none, |_| true), "{none}");
        }
    }
}
