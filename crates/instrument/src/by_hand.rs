//! Reading what a function returns that an attribute macro wraps, whatever its type is: for the
//! macros' expansion. The implementation that applies is found by auto-referencing, as in
//! [`crate::field`]: the one with the most references in front of its type that fits.

use std::convert::Infallible;
use std::fmt::Display;

/// What a function returned, borrowed.
#[derive(Debug)]
pub struct Returned<'r, R>(pub &'r R);

/// Tells a value from an error.
pub trait Split<'r> {
    /// What is returned in success.
    type Value: 'r;
    /// What is returned in failure.
    type Error: 'r;

    /// The one or the other.
    ///
    /// # Errors
    /// What was returned as an error.
    fn split(&self) -> Result<&'r Self::Value, &'r Self::Error>;
}

impl<'r, T, E> Split<'r> for Returned<'r, Result<T, E>> {
    type Value = T;
    type Error = E;

    fn split(&self) -> Result<&'r T, &'r E> {
        self.0.as_ref()
    }
}

/// What is no `Result` is a value.
impl<'r, R> Split<'r> for &Returned<'r, R> {
    type Value = R;
    type Error = Infallible;

    fn split(&self) -> Result<&'r R, &'r Infallible> {
        Ok(self.0)
    }
}

/// An error, borrowed.
#[derive(Debug)]
pub struct Failed<'e, E>(pub &'e E);

/// An error in words.
pub trait Text {
    /// Its own, if it has any.
    fn text(&self) -> String;
}

impl<E: Display> Text for Failed<'_, E> {
    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl<E> Text for &Failed<'_, E> {
    fn text(&self) -> String {
        "an error without words".to_owned()
    }
}
