//! Values of the attribute macros' `fields(...)`: numbers and booleans as what they are, all else by
//! its text. For the macros' expansion; the trait that applies is found by auto-referencing.

use opentelemetry::Value;
use std::fmt::Display;

/// A field's value, borrowed.
#[derive(Debug)]
pub struct Field<'v, T: ?Sized>(pub &'v T);

/// A value that an attribute can hold as it is.
pub trait AsValue {
    /// The attribute's value.
    fn attribute(&self) -> Value;
}

/// A value that an attribute holds as text.
pub trait AsText {
    /// The attribute's value.
    fn attribute(&self) -> Value;
}

macro_rules! as_it_is {
    ($($kind:ty => $as:ty),*) => {$(
        impl AsValue for Field<'_, $kind> {
            fn attribute(&self) -> Value {
                <$as>::from(*self.0).into()
            }
        }
        impl AsValue for Field<'_, &$kind> {
            fn attribute(&self) -> Value {
                <$as>::from(**self.0).into()
            }
        }
    )*};
}
as_it_is!(
    bool => bool, i8 => i64, i16 => i64, i32 => i64, i64 => i64, u8 => i64, u16 => i64, u32 => i64,
    f32 => f64, f64 => f64
);

macro_rules! as_it_fits {
    ($($kind:ty),*) => {$(
        impl AsValue for Field<'_, $kind> {
            fn attribute(&self) -> Value {
                // Attributes are 64 bits, signed; a larger one keeps its digits.
                i64::try_from(*self.0).map_or_else(|_| self.0.to_string().into(), Value::from)
            }
        }
    )*};
}
as_it_fits!(u64, usize, isize);

impl<T: Display + ?Sized> AsText for &Field<'_, T> {
    fn attribute(&self) -> Value {
        self.0.to_string().into()
    }
}
