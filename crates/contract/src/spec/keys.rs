//! `key`: the fields that join the sides of a contract.

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{FieldAccess, SelectorError};

use super::map::Map;
use super::read::Reader;
use super::yaml::{Node, Value};

/// The sides' names beside `key:`, in the order of the sides.
const SIDES: [[&str; 2]; 3] = [["when", "left"], ["expect", "right"], ["refused_by", "refused_by"]];

/// Reads `key` for the sides that select something (`kinds`: when, expect, refused_by) and gives each
/// its fields. What is wrong is told, also where a selector is wrong too.
pub(super) fn read(
    reader: &mut Reader<'_>,
    map: &Map<'_>,
    kinds: [Option<SignalKind>; 3],
    names: [&'static str; 2],
    optional: bool,
) -> Option<[Vec<FieldAccess>; 3]> {
    let Some(node) = map.get("key") else {
        if optional {
            return Some(Default::default());
        }
        reader.missing(map, "key", "add `key: [span.correlation_id]`: what joins the two sides");
        return None;
    };
    let nodes = match &node.value {
        Value::Map(_) => by_side(reader, node, names)?,
        _ => [Some(node), Some(node), Some(node)],
    };
    let names = [names[0], names[1], "refused_by"];
    let sides: Vec<(&str, SignalKind, &Node)> = names
        .into_iter()
        .zip(kinds)
        .zip(nodes)
        .filter_map(|((name, kind), node)| Some((name, kind?, node?)))
        .collect();
    let mut fields: [Option<Vec<FieldAccess>>; 3] = [None, None, None];
    let mut done: Vec<*const Node> = Vec::new();
    for (_, _, node) in &sides {
        // Sides that share a list are told about it once.
        if done.contains(&std::ptr::from_ref(*node)) {
            continue;
        }
        done.push(*node);
        let users: Vec<(&str, SignalKind)> = sides
            .iter()
            .filter(|(_, _, other)| std::ptr::eq(*other, *node))
            .map(|(name, kind, _)| (*name, *kind))
            .collect();
        let Some(lists) = shared(reader, node, &users) else { continue };
        for ((name, _), list) in users.iter().zip(lists) {
            if let Some(at) = names.iter().position(|known| known == name) {
                fields[at] = Some(list);
            }
        }
    }
    lengths(reader, node, &fields, optional)?;
    let [when, expect, refused] = fields;
    // A side without a kind is absent; its key is nobody's.
    let get = |fields: Option<Vec<FieldAccess>>, kind: Option<SignalKind>| match kind {
        Some(_) => fields,
        None => Some(Vec::new()),
    };
    Some([get(when, kinds[0])?, get(expect, kinds[1])?, get(refused, kinds[2])?])
}

/// `key: {when: […], expect: […]}`: the node of each side.
fn by_side<'m>(
    reader: &mut Reader<'_>,
    node: &'m Node,
    names: [&'static str; 2],
) -> Option<[Option<&'m Node>; 3]> {
    let Value::Map(entries) = &node.value else { return None };
    for (key, _) in entries {
        if !SIDES.iter().flatten().any(|side| *side == key.name) {
            let help = format!("sides are {}, {} and refused_by", names[0], names[1]);
            reader.fail(&key.span, format!("unknown side `{}`", key.name), help);
        }
    }
    let get = |at: usize| {
        entries.iter().find(|(key, _)| SIDES[at].contains(&key.name.as_str())).map(|(_, n)| n)
    };
    let (Some(when), Some(expect)) = (get(0), get(1)) else {
        let lacks = if get(0).is_none() { names[0] } else { names[1] };
        let help =
            format!("name the fields of both: `key: {{{}: […], {}: […]}}`", names[0], names[1]);
        reader.fail(&node.span, format!("a key that one side lacks: `{lacks}` has none"), help);
        return None;
    };
    Some([Some(when), Some(expect), Some(get(2).unwrap_or(expect))])
}

/// Reads a list of fields for all sides that use it; one list for each, in their order.
fn shared(
    reader: &mut Reader<'_>,
    node: &Node,
    users: &[(&str, SignalKind)],
) -> Option<Vec<Vec<FieldAccess>>> {
    let single = std::slice::from_ref(node);
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Str(_) => single,
        other => {
            let message = format!("`key` is {} instead of a list of fields", other.what());
            reader.fail(&node.span, message, "write `key: [span.correlation_id]`");
            return None;
        }
    };
    let mut lists: Vec<Vec<FieldAccess>> = vec![Vec::new(); users.len()];
    let mut whole = true;
    for item in items {
        let Value::Str(text) = &item.value else {
            let message = format!("{} instead of a field", item.value.what());
            reader.fail(&item.span, message, "write a field, such as span.correlation_id");
            whole = false;
            continue;
        };
        let mut wrong: Vec<(&str, SignalKind, SelectorError)> = Vec::new();
        for ((name, kind), list) in users.iter().zip(&mut lists) {
            match FieldAccess::parse(*kind, text) {
                Ok(field) => list.push(field),
                Err(error) => wrong.push((name, *kind, error)),
            }
        }
        whole &= wrong.is_empty();
        // What no side can read is wrong in itself; what one side reads is what the other lacks.
        if wrong.len() == users.len() && wrong.iter().all(|(_, _, e)| *e == wrong[0].2) {
            if let Some((_, _, error)) = wrong.first() {
                let place = (error.offset(), error.offset() + error.len());
                reader.fail_inside(&item.span, text, place, error.problem(), error.help());
            }
            continue;
        }
        for (name, kind, error) in wrong {
            let problem = format!("the `{name}` side lacks this key: {}", error.problem());
            let own = kind.own_scope().name();
            let rest = text.split_once('.').map_or(text.as_str(), |(_, rest)| rest);
            let help = if error.problem().contains(" have no `") {
                format!(
                    "`.{rest}` fits both; or name each side's: \
                     `key: {{{}: […], {}: […]}}`, here with `{own}.{rest}`",
                    users[0].0,
                    users.get(1).map_or("expect", |user| user.0)
                )
            } else {
                error.help().to_owned()
            };
            let place = (error.offset(), error.offset() + error.len());
            reader.fail_inside(&item.span, text, place, &problem, &help);
        }
    }
    whole.then_some(lists)
}

fn lengths(
    reader: &mut Reader<'_>,
    node: &Node,
    fields: &[Option<Vec<FieldAccess>>; 3],
    optional: bool,
) -> Option<()> {
    let lengths = fields.iter().flatten().map(Vec::len);
    if lengths.clone().min() != lengths.clone().max() {
        let help = "each side names as many fields, in the same order";
        reader.fail(&node.span, "the sides' keys differ in length", help);
        return None;
    }
    if lengths.clone().max() == Some(0) && !optional {
        reader.fail(&node.span, "an empty key", "name at least one field that both sides have");
        return None;
    }
    Some(())
}
