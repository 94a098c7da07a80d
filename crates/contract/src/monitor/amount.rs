//! What the sides of a balance add up.

use lacuna_signal::Value;
use lacuna_signal::selector::FieldValue;

use super::codec::code;

/// Sums in binary of amounts in decimal differ in their last bits: by one part in so many.
const TOLERANCE: f64 = 1e-9;

/// What one event adds to its side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Int(i64),
    Double(f64),
}

impl Amount {
    /// A field's value, if it is a finite number.
    pub(super) fn new(value: FieldValue<'_>) -> Option<Self> {
        match value {
            FieldValue::Value(Value::Int(value)) => Some(Self::Int(value)),
            FieldValue::Value(Value::Double(value)) => {
                value.is_finite().then_some(Self::Double(value))
            }
            _ => None,
        }
    }
}

/// A sum: whole numbers exactly, others as well as they can be.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Sum {
    ints: i128,
    doubles: f64,
    inexact: bool,
}

code!(Sum { ints, doubles, inexact });

impl Sum {
    pub(super) fn add(&mut self, amount: Amount) {
        match amount {
            Amount::Int(value) => self.ints = self.ints.saturating_add(i128::from(value)),
            Amount::Double(value) => {
                self.doubles += value;
                self.inexact = true;
            }
        }
    }

    /// The sum, as near as a double comes to it.
    pub(super) fn total(&self) -> f64 {
        self.ints as f64 + self.doubles
    }

    /// Whether two sums agree: exactly, unless a number that is not whole took part.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        if !self.inexact && !other.inexact {
            return self.ints == other.ints;
        }
        // The whole parts may be too long for a double; their difference rarely is.
        let whole = self.ints.saturating_sub(other.ints) as f64;
        let difference = whole + (self.doubles - other.doubles);
        difference.abs() <= TOLERANCE * self.total().abs().max(other.total().abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(amounts: &[Amount]) -> Sum {
        let mut sum = Sum::default();
        amounts.iter().for_each(|amount| sum.add(*amount));
        sum
    }

    #[test]
    fn whole_numbers_agree_exactly_and_others_nearly() {
        use Amount::{Double, Int};
        let large = 3_000_000_000_000_000_001;
        assert!(!sum(&[Int(large)]).agrees(&sum(&[Int(large - 1)])));
        assert!(
            sum(&[Int(large), Int(large), Int(large), Int(large)]).agrees(&sum(&[Int(large); 4]))
        );
        assert!(sum(&[Double(0.1), Double(0.2)]).agrees(&sum(&[Double(0.3)])));
        assert!(sum(&[Int(3)]).agrees(&sum(&[Double(1.1), Double(1.9)])));
        assert!(!sum(&[Int(3)]).agrees(&sum(&[Double(1.1), Double(1.8)])));
        assert!(sum(&[Int(large), Double(0.5)]).agrees(&sum(&[Double(0.5), Int(large)])));
    }
}
