//! What a contract file says, checked.

mod condition;
mod data;
mod error;
mod keys;
mod load;
mod map;
mod places;
mod read;
mod satisfiable;
mod sides;
mod yaml;

use lacuna_signal::finding::Severity;
use lacuna_signal::selector::{FieldAccess, Selector};

pub use condition::{Condition, Term};
pub use data::DataCheck;
pub use error::{LoadError, LoadErrors};
pub use load::ContractSet;
use places::Places;

/// One validated contract.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// Unique name.
    pub name: String,
    /// What it means to people.
    pub description: Option<String>,
    /// Where to read what to do.
    pub runbook_url: Option<String>,
    /// How much a violation matters.
    pub severity: Severity,
    /// What must be.
    pub kind: Kind,
    /// Whether obligations are opened by keys or by events.
    pub per: Per,
    /// What opens an obligation; the left side of a balance.
    pub when: Side,
    /// The outcome; the right side of a balance.
    pub expect: Side,
    /// An explicit no.
    pub refused_by: Option<Side>,
    /// How long the outcome may take, nanoseconds. Only a precedence can lack it; of a heartbeat
    /// it is the window's length.
    pub within: Option<i64>,
    /// Whether what lies before the data's first signal is unknown, rather than nothing: of a
    /// precedence and a balance, which look back.
    pub unknown_before_data: bool,
    /// What must hold between the two sides for a pair to count.
    pub conditions: Vec<Condition>,
}

/// Kinds of contract, by Declare's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The outcome must follow.
    Response,
    /// The outcome needs an earlier cause.
    Precedence,
    /// The outcome must not follow.
    Absence,
    /// The outcome must follow exactly so often.
    Exactly {
        /// How often, at least once.
        count: u32,
    },
    /// Two sides agree, in counts or sums.
    Balance,
    /// While there is a cause, at least so many outcomes come in every window.
    Heartbeat {
        /// How many.
        at_least: u32,
    },
}

impl Kind {
    /// The names of all kinds.
    pub const NAMES: [&'static str; 6] =
        ["response", "precedence", "absence", "exactly", "balance", "heartbeat"];

    /// The kind's name, as contract files write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Precedence => "precedence",
            Self::Absence => "absence",
            Self::Exactly { .. } => "exactly",
            Self::Balance => "balance",
            Self::Heartbeat { .. } => "heartbeat",
        }
    }
}

/// What opens an obligation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Per {
    /// A key: its first activation.
    #[default]
    Key,
    /// Every activation.
    Event,
}

/// One side of a contract: which signals, and what joins them to the other side.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// Which signals.
    pub selector: Selector,
    /// The key's fields.
    pub key: Vec<FieldAccess>,
    /// What to add up; of a balance without it, events count 1.
    pub sum: Option<FieldAccess>,
    /// Fields of this side that the conditions read, in their order.
    pub fields: Vec<FieldAccess>,
}

impl Contract {
    /// The key's fields by name, as the `when` side has them.
    pub fn key_names(&self) -> Vec<String> {
        self.when.key.iter().map(ToString::to_string).collect()
    }

    /// A side of a condition, as contract files write it.
    pub(crate) fn term_name(&self, term: &Term) -> String {
        let field = |side: &Side, at: usize| side.fields.get(at).map(ToString::to_string);
        match term {
            Term::Field(Role::When, at) => {
                format!("when.{}", field(&self.when, *at).unwrap_or_default())
            }
            Term::Field(_, at) => {
                format!("expect.{}", field(&self.expect, *at).unwrap_or_default())
            }
            Term::Text(text) => format!("{text:?}"),
            Term::Int(number) => number.to_string(),
            Term::Number(number) => number.to_string(),
            Term::Bool(value) => value.to_string(),
        }
    }

    /// The contract's sides.
    pub fn sides(&self) -> impl Iterator<Item = (Role, &Side)> {
        [(Role::When, Some(&self.when)), (Role::Expect, Some(&self.expect))]
            .into_iter()
            .chain([(Role::RefusedBy, self.refused_by.as_ref())])
            .filter_map(|(role, side)| Some((role, side?)))
    }
}

/// Which side of a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// What opens an obligation.
    When,
    /// The outcome.
    Expect,
    /// An explicit no.
    RefusedBy,
}
