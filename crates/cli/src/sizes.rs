//! Sizes as people write them on a command line.

/// Bytes: `1048576`, `512KiB`, `64MiB`, `10GiB`, `1TiB`, also `10GB` and `10G`. Powers of 1024 with
/// an `i` or without a `B`, of 1000 otherwise.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 512MiB, 10GiB or 1TB".to_owned();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let (prefix, base) = match unit.as_str() {
        "" | "b" => ("", 1024u64),
        unit if unit.ends_with("ib") => (&unit[..unit.len() - 2], 1024),
        unit if unit.ends_with('b') => (&unit[..unit.len() - 1], 1000),
        unit => (unit, 1024),
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == prefix);
    let factor = base.pow(u32::try_from(power.ok_or_else(wrong)?).map_err(|_| wrong())?);
    let whole = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    let bytes = whole.or_else(|| {
        let number: f64 = number.parse().ok().filter(|_| number.contains('.'))?;
        Some((number * factor as f64) as u64)
    });
    bytes.filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, expected) in [
            ("1", 1),
            ("512KiB", 512 << 10),
            ("64MiB", 64 << 20),
            ("64m", 64 << 20),
            ("1.5 GiB", 3 << 29),
            ("10GB", 10_000_000_000),
            ("2T", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for bad in ["", "0", "-1", "MiB", "1x", "1.2.3G", "99999999999999TiB"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
