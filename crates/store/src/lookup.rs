//! What an index can be asked: terms of a selector that every selected row satisfies.

use lacuna_signal::schema::{AttrType, Scope, SignalKind, attribute_column};
use lacuna_signal::selector::{Field, FieldScope, Intrinsic, Selector};
use lacuna_signal::{TraceId, schema};

/// One term: a row satisfies it only if one of `columns` holds `text` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Columns, as segments name them. [`event_column`] stands for attributes of span events.
    pub columns: Vec<String>,
    /// The value as text ([`Value::to_text`](lacuna_signal::Value::to_text)).
    pub text: String,
    /// Columns of arrays under the same keys, of which an element may be `text`: where one of them is,
    /// an index of whole values cannot tell.
    pub arrays: Vec<String>,
}

/// What is looked up in an index before rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookup {
    /// Terms; a row must satisfy all.
    pub terms: Vec<Term>,
    /// The trace that all rows are of.
    pub trace: Option<TraceId>,
    /// No row can be selected.
    pub never: bool,
}

const EVENT: &str = "event.";

/// The name under which an index keeps the values of attribute `key` of span events.
pub fn event_column(key: &str) -> String {
    format!("{EVENT}{key}")
}

/// Whether `name` is one that [`event_column`] makes.
pub fn is_event_column(name: &str) -> bool {
    name.starts_with(EVENT)
}

impl Lookup {
    /// What `selector` lets an index tell.
    pub fn of(selector: Option<&Selector>) -> Self {
        let mut lookup = Self::default();
        let Some(selector) = selector else { return lookup };
        let kind = selector.kind();
        for equality in selector.required_equalities() {
            match equality.field {
                Field::Intrinsic(Intrinsic::TraceId) => match equality.text.parse() {
                    Ok(id) if lookup.trace.is_none_or(|t| t == id) => lookup.trace = Some(id),
                    _ => lookup.never = true,
                },
                field => {
                    if let Some(columns) = columns(kind, field, &equality.text, equality.number) {
                        let (arrays, text) = (arrays(kind, field), equality.text.into_owned());
                        lookup.terms.push(Term { columns, text, arrays });
                    }
                }
            }
        }
        lookup
    }
}

/// The columns in which a row must have the text of an equality on `field`; `None` if no index
/// covers it.
fn columns(kind: SignalKind, field: &Field, wanted: &str, number: bool) -> Option<Vec<String>> {
    let own = kind.own_scope();
    // What is in the overflow is known under the name of the text's column.
    let types: &[AttrType] = match number {
        false => &[AttrType::Str],
        true => &[AttrType::Str, AttrType::Int, AttrType::Double],
    };
    let text = |scopes: &[Scope], key: &str| {
        let names = |scope: &Scope| {
            let scope = *scope;
            types.iter().map(move |ty| attribute_column(scope, *ty, key))
        };
        scopes.iter().flat_map(names).collect()
    };
    match field {
        Field::Attribute { scope, key } => Some(match scope {
            FieldScope::Unscoped => text(&[own, Scope::Resource], key),
            FieldScope::Span => text(&[Scope::Span], key),
            FieldScope::Log => text(&[Scope::Log], key),
            FieldScope::Point => text(&[Scope::Point], key),
            FieldScope::Resource => text(&[Scope::Resource], key),
            FieldScope::Instrumentation => text(&[Scope::Instrumentation], key),
            FieldScope::Event => vec![event_column(key)],
            FieldScope::Link
            | FieldScope::Parent
            | FieldScope::ParentSpan
            | FieldScope::ParentResource => return None,
            // An array or a list is looked for as it is shown, and kept as OTLP/JSON writes it.
            FieldScope::Any if wanted.is_empty() || wanted.starts_with(['[', '{']) => {
                return None;
            }
            FieldScope::Any => {
                let scopes = [own, Scope::Resource, Scope::Instrumentation];
                let mut columns: Vec<_> = scopes
                    .into_iter()
                    .flat_map(|s| AttrType::ALL.map(|ty| attribute_column(s, ty, key)))
                    .collect();
                if kind == SignalKind::Spans {
                    columns.push(event_column(key));
                }
                columns
            }
        }),
        Field::Intrinsic(Intrinsic::Name) => Some(vec![schema::NAME.to_owned()]),
        Field::Intrinsic(Intrinsic::EventName) => Some(vec![schema::EVENT_NAME.to_owned()]),
        Field::Intrinsic(_) => None,
    }
}

/// The columns of arrays of an attribute whose elements are asked too.
fn arrays(kind: SignalKind, field: &Field) -> Vec<String> {
    let Field::Attribute { scope, key } = field else { return Vec::new() };
    let own = kind.own_scope();
    let scopes: &[Scope] = match scope {
        FieldScope::Unscoped => &[own, Scope::Resource],
        FieldScope::Span => &[Scope::Span],
        FieldScope::Log => &[Scope::Log],
        FieldScope::Point => &[Scope::Point],
        FieldScope::Resource => &[Scope::Resource],
        FieldScope::Instrumentation => &[Scope::Instrumentation],
        // Compared whole, as text.
        _ => &[],
    };
    scopes.iter().map(|scope| attribute_column(*scope, AttrType::Any, key)).collect()
}
