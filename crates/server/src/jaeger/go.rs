//! Values in query parameters, read as Jaeger's Go code reads them, with its error texts: clients
//! show these texts, and some match on them.

use lacuna_signal::TraceId;

/// Why a text is not a value; the text of Go's own error.
pub type Reason = String;

/// Go's `strconv.ParseInt(text, 10, 64)`.
pub fn parse_int(text: &str) -> Result<i64, Reason> {
    text.parse::<i64>().map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let what = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {what}")
    })
}

/// Go's `strconv.ParseBool`.
pub fn parse_bool(text: &str) -> Result<bool, Reason> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// Go's `strconv.ParseFloat(text, 64)`, decimal forms only.
pub fn parse_float(text: &str) -> Result<f64, Reason> {
    text.parse().map_err(|_| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax"))
}

/// Go's `time.ParseDuration`: nanoseconds of a text such as `1.5ms`, `2h45m` or `-3s`.
pub fn parse_duration(text: &str) -> Result<i64, Reason> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let nanos = unit_nanos(unit)
            .ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = whole
            .checked_mul(nanos)
            .and_then(|part| part.checked_add(fraction_nanos(fraction, nanos)))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

fn unit_nanos(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign U+00B5 and the Greek letter mu U+03BC.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `0.fraction` of `unit` nanoseconds, rounded down. Digits beyond what a nanosecond of an hour can
/// show are dropped.
fn fraction_nanos(fraction: &str, unit: i128) -> i128 {
    let digits = &fraction[..fraction.len().min(15)];
    let scale = 10_i128.pow(u32::try_from(digits.len()).unwrap_or(0));
    digits.parse::<i128>().unwrap_or(0) * unit / scale
}

/// A trace id as Jaeger takes it: up to 32 hex digits of any case, or base64 of 8 or 16 bytes.
/// `Ok(None)` for an id of zeros only, which no trace has.
pub fn parse_trace_id(text: &str) -> Result<Option<TraceId>, Reason> {
    if text.ends_with('=') {
        let bytes = base64_bytes(text).ok_or_else(|| invalid_id(text))?;
        let mut id = [0; TraceId::LEN];
        match bytes.len() {
            TraceId::LEN | 8 => id[TraceId::LEN - bytes.len()..].copy_from_slice(&bytes),
            _ => return Err("invalid length for TraceID".to_owned()),
        }
        return Ok(TraceId::from_bytes(&id));
    }
    if text.len() > 2 * TraceId::LEN {
        return Err(format!("TraceID cannot be longer than 32 hex characters: {text}"));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(invalid_id(text));
    }
    Ok(text.parse().ok())
}

fn invalid_id(text: &str) -> Reason {
    format!("strconv.ParseUint: parsing {text:?}: invalid syntax")
}

/// Base64 with padding, in the standard or the URL alphabet.
fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    let data = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - data.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(data.len() * 3 / 4);
    let (mut word, mut bits) = (0u32, 0);
    for digit in data.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = (word << 6 | u32::from(value)) & 0xfff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

/// An RFC 3339 time as nanoseconds since the epoch. A client that does not percent-encode its
/// query turns the `+` of a time zone into a space (Grafana's does); that is understood too.
pub fn parse_rfc3339(text: &str) -> Result<i64, Reason> {
    let fixed = text.rsplit_once(' ').map(|(time, zone)| format!("{time}+{zone}"));
    let time = fixed.as_deref().unwrap_or(text);
    let bad = || {
        format!(
            "parsing time {text:?} as RFC 3339: it should look like \"2006-01-02T15:04:05.999Z\""
        )
    };
    // The parser also takes forms with seconds left out or with words for the zone, which RFC 3339
    // does not have.
    if time.len() < 20 || !time.as_bytes()[10].eq_ignore_ascii_case(&b't') {
        return Err(bad());
    }
    let timestamp: jiff::Timestamp = time.parse().map_err(|_| bad())?;
    i64::try_from(timestamp.as_nanosecond()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_go_durations() {
        let good = [
            ("0", 0),
            ("1.2ms", 1_200_000),
            ("5us", 5_000),
            ("5µs", 5_000),
            ("5μs", 5_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("-3s", -3_000_000_000),
            ("+7ns", 7),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("0.0000000000000000001h", 0),
        ];
        for (text, nanos) in good {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        let bad = [
            ("", "time: invalid duration \"\""),
            ("NaN", "time: invalid duration \"NaN\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5 s", "time: unknown unit \" s\" in duration \"5 s\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            (".s", "time: invalid duration \".s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ];
        for (text, message) in bad {
            assert_eq!(parse_duration(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn trace_ids_are_hex_or_base64() {
        let id = |text: &str| parse_trace_id(text).unwrap().map(|id| id.to_string());
        assert_eq!(id("123456aBC").unwrap(), format!("{:0>32}", "123456abc"));
        assert_eq!(id("AAAAAAAAAP///////////w==").unwrap(), "00000000000000ffffffffffffffffff");
        assert_eq!(id("AAAAAAAAAP___________w==").unwrap(), "00000000000000ffffffffffffffffff");
        assert_eq!(id("AAAAAAAAAAE=").unwrap(), "00000000000000000000000000000001");
        assert_eq!(id("0"), None);
        for bad in ["", "chumbawumba", "é", "=", "A===", "AAAA==", &"a".repeat(33)] {
            assert!(parse_trace_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let second = 1_000_000_000;
        assert_eq!(parse_rfc3339("1970-01-01T00:00:01Z"), Ok(second));
        assert_eq!(parse_rfc3339("1970-01-01T02:00:01.5+02:00"), Ok(second * 3 / 2));
        assert_eq!(parse_rfc3339("1970-01-01T02:00:01 02:00"), Ok(second));
        for bad in [
            "",
            "NaN",
            "1970-01-01",
            "1970-01-01T00:00:01",
            "12345678901234567890",
            "9999-12-31T23:59:59Z",
        ] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (parse_int(&text), parse_bool(&text), parse_float(&text), parse_duration(&text));
            let _ = (parse_trace_id(&text), parse_rfc3339(&text));
        }

        #[test]
        fn whole_durations_read_back(n in -100_000i64..100_000, unit in 0usize..6) {
            let (name, nanos) = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000i64)][unit];
            prop_assert_eq!(parse_duration(&format!("{n}{name}")).ok(), n.checked_mul(nanos));
        }
    }
}
