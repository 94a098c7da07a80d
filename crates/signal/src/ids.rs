//! Trace and span ids: fixed-size bytes, written as lower-case hex everywhere outside.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a trace or span id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: expected 1 to {digits} hexadecimal digits, not all zero")]
pub struct IdError {
    text: String,
    what: &'static str,
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;

            /// The id in `bytes`, or `None` if they have another length or are all zero, which
            /// the W3C Trace Context recommendation calls invalid.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let id: [u8; $bytes] = bytes.try_into().ok()?;
                (id != [0; $bytes]).then_some(Self(id))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        /// Hex of any case; a shorter id is padded with zeros on the left, as Jaeger does.
        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = || IdError { text: text.to_owned(), what: $what, digits: $bytes * 2 };
                if text.is_empty() || text.len() > $bytes * 2 || !text.is_ascii() {
                    return Err(error());
                }
                let mut id = [0; $bytes];
                hex::decode_to_slice(format!("{text:0>width$}", width = $bytes * 2), &mut id)
                    .map_err(|_| error())?;
                Self::from_bytes(&id).ok_or_else(error)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A trace's id: 16 bytes (W3C Trace Context, `trace-id`).
    TraceId, 16, "trace id"
);
id!(
    /// A span's id: 8 bytes (W3C Trace Context, `parent-id`).
    SpanId, 8, "span id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_upper_case_hex_is_padded_and_lowered() {
        let id: TraceId = "ABC".parse().unwrap();
        assert_eq!(id.to_string(), "00000000000000000000000000000abc");
    }

    #[test]
    fn rejects_zero_empty_long_and_non_hex() {
        for bad in ["", "0", "00000000000000000", "xyz", "é"] {
            assert!(bad.parse::<SpanId>().is_err(), "{bad:?}");
        }
    }
}
