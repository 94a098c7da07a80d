//! From YAML tree to contracts, field by field.

use std::ops::Range;

use lacuna_signal::finding::Severity;

use super::error::{LoadError, Source};
use super::map::Map;
use super::sides::{self, Parsed};
use super::yaml::{Key, Node, Value, parse};
use super::{Contract, Kind, Per, Places, condition, keys};

/// A contract and where its name stands; without the contract if something is wrong with it.
pub(super) struct Named {
    pub(super) contract: Option<Contract>,
    pub(super) places: Places,
    pub(super) name: String,
    pub(super) place: Range<usize>,
}

const FIELDS: [&str; 18] = [
    "name",
    "description",
    "runbook_url",
    "severity",
    "kind",
    "when",
    "expect",
    "refused_by",
    "key",
    "within",
    "per",
    "where",
    "count",
    "every",
    "at_least",
    "left",
    "right",
    "before_data",
];

/// Fields that every kind has.
const COMMON: [&str; 5] = ["name", "description", "runbook_url", "severity", "kind"];

fn fields_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "precedence" => &["when", "expect", "key", "within", "where", "before_data"],
        "absence" => &["when", "expect", "key", "within", "per", "where"],
        "exactly" => &["when", "expect", "key", "within", "per", "where", "count"],
        "balance" => &["left", "right", "key", "within", "before_data"],
        "heartbeat" => &["when", "expect", "key", "every", "at_least"],
        _ => &["when", "expect", "refused_by", "key", "within", "per", "where"],
    }
}

/// Reads a whole file. What is wrong goes to `errors`; what is right is returned.
pub(super) fn read_file(source: &Source, errors: &mut Vec<LoadError>) -> Vec<Named> {
    let tree = match parse(source.text()) {
        Ok(tree) => tree,
        Err((span, message)) => {
            let help = if message.contains("tab") {
                "YAML is indented by spaces: replace the tab by spaces"
            } else {
                "a contract file is YAML: `contracts:` and a list of contracts"
            };
            errors.push(LoadError::at(source, span, message, help.to_owned()));
            return Vec::new();
        }
    };
    let mut reader = Reader { source, errors };
    let help = "a contract file is a map: `contracts:` and a list of contracts";
    let Value::Map(entries) = &tree.value else {
        if tree.value != Value::Null {
            reader.fail(&tree.span, format!("{} instead of a map", tree.value.what()), help);
        }
        return Vec::new();
    };
    let mut named = Vec::new();
    for (key, node) in entries {
        match (&*key.name, &node.value) {
            ("contracts", Value::List(items)) => {
                named.extend(items.iter().filter_map(|item| reader.contract(item)));
            }
            ("contracts", Value::Null) => {}
            ("contracts", other) => {
                let message = format!("`contracts` is {} instead of a list", other.what());
                reader.fail(&node.span, message, "begin each contract with `- name: …`");
            }
            (other, _) => {
                reader.fail(&key.span, format!("unknown field `{other}`"), help);
            }
        }
    }
    named
}

/// Reports problems of one file.
pub(super) struct Reader<'a> {
    source: &'a Source,
    errors: &'a mut Vec<LoadError>,
}

impl Reader<'_> {
    pub(super) fn fail(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.errors.push(LoadError::at(self.source, span.clone(), message.into(), help.into()));
    }

    /// Reports a problem with bytes `start..end` of a text that stands at `span`.
    pub(super) fn fail_inside(
        &mut self,
        span: &Range<usize>,
        text: &str,
        (start, end): (usize, usize),
        message: &str,
        help: &str,
    ) {
        // Inside quotes or plain, the text stands in the file as it is; folded or escaped it does
        // not, and then the whole value is the best place to point at.
        let raw = self.source.text().get(span.clone()).unwrap_or_default();
        let inner = match raw.find(text) {
            Some(at) if !text.is_empty() => span.start + at + start..span.start + at + end,
            _ => span.clone(),
        };
        self.fail(&inner, message, help);
    }

    fn contract(&mut self, item: &Node) -> Option<Named> {
        let before = self.errors.len();
        let Value::Map(entries) = &item.value else {
            let message = format!("{} instead of a contract", item.value.what());
            self.fail(&item.span, message, "a contract is a map that begins with `name: …`");
            return None;
        };
        let mut map = Map { entries, place: item.span.clone(), kind: None, meant: Vec::new() };
        map.kind = self.kind_name(&map);
        map.meant = self.unknown_fields(&map);
        let name = self.text(&map, "name");
        let (name, place) = match name {
            Some((name, span)) if !name.trim().is_empty() => (name.to_owned(), span),
            Some((_, span)) => {
                self.fail(&span, "an empty name", "give the contract a unique name");
                (String::new(), span)
            }
            None => {
                if map.get("name").is_none() && !map.meant.contains(&"name") {
                    let place =
                        entries.first().map_or(item.span.clone(), |(key, _)| key.span.clone());
                    self.fail(&place, "a contract without `name`", "add `name: …`, unique");
                }
                (String::new(), item.span.clone())
            }
        };
        let contract = self.body(&map, &name);
        let contract = contract.filter(|_| self.errors.len() == before);
        let places = Places::new(self.source, &map);
        (!name.is_empty()).then_some(Named { contract, places, name, place })
    }

    fn kind_name(&mut self, map: &Map<'_>) -> Option<&'static str> {
        let Some((text, span)) = self.text(map, "kind") else { return Some("response") };
        let known = Kind::NAMES.into_iter().find(|name| *name == text);
        if known.is_none() {
            let help = format!("kinds are {}", Kind::NAMES.join(", "));
            self.fail(&span, format!("`{text}` is not a kind of contract"), help);
        }
        known
    }

    /// Complains about fields that are not known or do not belong, and says which fields were meant
    /// by misspelt ones: those are not missing.
    fn unknown_fields(&mut self, map: &Map<'_>) -> Vec<&'static str> {
        let mut meant = Vec::new();
        let allowed = map.kind.map_or(FIELDS.as_slice(), fields_of);
        for (Key { name, span }, _) in map.entries {
            if COMMON.contains(&name.as_str()) || allowed.contains(&name.as_str()) {
                continue;
            }
            let kind = map.kind.unwrap_or("response");
            let list =
                format!("fields of `{kind}` are {}, {}", COMMON.join(", "), allowed.join(", "));
            if FIELDS.contains(&name.as_str()) {
                let kinds: Vec<_> = Kind::NAMES
                    .into_iter()
                    .filter(|kind| fields_of(kind).contains(&name.as_str()))
                    .collect();
                let help = match kinds.as_slice() {
                    [only] if map.get("kind").is_none() => format!("add `kind: {only}`"),
                    kinds => format!("it is a field of {}", kinds.join(", ")),
                };
                self.fail(span, format!("`{name}` does not go with kind `{kind}`"), help);
            } else {
                let near = sides::nearest(name, COMMON.iter().chain(allowed).copied());
                // A field that is there too was not meant by another.
                let near = near.filter(|near| map.get(near).is_none());
                let near = near.and_then(|near| FIELDS.into_iter().find(|field| *field == near));
                meant.extend(near);
                let help = near.map_or(list, |near| format!("did you mean `{near}`?"));
                self.fail(span, format!("unknown field `{name}`"), help);
            }
        }
        meant
    }

    /// Complains that a field is missing, unless something else that was told already explains it.
    pub(super) fn missing(&mut self, map: &Map<'_>, field: &'static str, help: &str) {
        let Some(kind) = map.kind else { return };
        let instead = match field {
            "when" => "left",
            "expect" => "right",
            "left" => "when",
            "right" => "expect",
            "within" => "every",
            "every" => "within",
            _ => field,
        };
        if map.meant.contains(&field) || map.get(instead).is_some() {
            return;
        }
        self.fail(&map.head(), format!("a `{kind}` contract without `{field}`"), help);
    }

    fn body(&mut self, map: &Map<'_>, name: &str) -> Option<Contract> {
        // Of an unknown kind, what is there is checked and nothing is missed.
        let kind_name = map.kind.unwrap_or("response");
        let severity = self.choice(
            map,
            "severity",
            &[
                ("info", Severity::Info),
                ("warning", Severity::Warning),
                ("critical", Severity::Critical),
            ],
        );
        let per = self.choice(map, "per", &[("key", Per::Key), ("event", Per::Event)]);
        let before_data = [("nothing", false), ("unknown", true)];
        let before_data = self.choice(map, "before_data", &before_data);
        let balance = kind_name == "balance" || (map.kind.is_none() && map.get("left").is_some());
        let names = if balance { ["left", "right"] } else { ["when", "expect"] };
        let when = self.side(map, names[0], balance);
        let expect = self.side(map, names[1], balance);
        let refused_by = match map.get("refused_by") {
            Some(_) => self.side(map, "refused_by", false),
            None => Parsed::Absent,
        };
        let refuses = map.get("refused_by").is_some();
        let within = self.within(map, kind_name);
        let sides = [when.kind(), expect.kind(), refused_by.kind()];
        let keys = keys::read(self, map, sides, names, kind_name == "heartbeat");
        let kind = match kind_name {
            "precedence" => Kind::Precedence,
            "absence" => Kind::Absence,
            "exactly" => Kind::Exactly { count: self.count(map, "count", 1) },
            "balance" => Kind::Balance,
            "heartbeat" => Kind::Heartbeat { at_least: self.count(map, "at_least", 1) },
            _ => Kind::Response,
        };
        let description = self.text(map, "description").map(|(text, _)| text.to_owned());
        let runbook_url = self.text(map, "runbook_url").map(|(text, _)| text.to_owned());
        let [when_key, expect_key, refused_key] = keys?;
        let (mut when, mut expect) = (when.good()?.with(when_key), expect.good()?.with(expect_key));
        let refused_by = match refused_by.good() {
            Some(side) => Some(side.with(refused_key)),
            None if refuses => return None,
            None => None,
        };
        let same =
            when.selector == expect.selector && when.key == expect.key && when.sum == expect.sum;
        // That a thing happens exactly so often, or so often in a window, is worth saying of itself.
        let counts = matches!(kind, Kind::Heartbeat { .. } | Kind::Exactly { .. });
        if same && !counts && map.get("where").is_none() {
            let place = self.text(map, names[1]).map_or(map.head(), |(_, span)| span);
            let message = format!("`{}` selects the same as `{}`", names[1], names[0]);
            let help = "each event would be its own outcome: select what must come of it";
            self.fail(&place, message, help);
            return None;
        }
        let conditions = self.conditions(map, &mut when, &mut expect)?;
        Some(Contract {
            name: name.to_owned(),
            description,
            runbook_url,
            severity: severity.unwrap_or_default(),
            kind,
            per: per.unwrap_or_default(),
            when,
            expect,
            refused_by,
            within,
            unknown_before_data: before_data.unwrap_or(false),
            conditions,
        })
    }

    fn conditions(
        &mut self,
        map: &Map<'_>,
        when: &mut super::Side,
        expect: &mut super::Side,
    ) -> Option<Vec<super::Condition>> {
        let Some((text, span)) = self.text(map, "where") else { return Some(Vec::new()) };
        let kinds = (when.selector.kind(), expect.selector.kind());
        match condition::parse(text, kinds, &mut when.fields, &mut expect.fields) {
            Ok(conditions) => Some(conditions),
            Err(error) => {
                let place = (error.start, error.end);
                self.fail_inside(&span, text, place, &error.message, &error.help);
                None
            }
        }
    }

    fn within(&mut self, map: &Map<'_>, kind: &str) -> Option<i64> {
        let field = if kind == "heartbeat" { "every" } else { "within" };
        let Some(node) = map.get(field) else {
            if kind != "precedence" {
                self.missing(map, field, &format!("add `{field}: 30s`"));
            }
            return None;
        };
        let parsed = match &node.value {
            Value::Str(text) => sides::duration(text),
            _ => None,
        };
        let nanos = parsed.filter(|nanos| *nanos > 0);
        if nanos.is_none() {
            let help = "write a positive duration with its unit, such as 500ms, 30s, 5m or 1h30m";
            self.fail(&node.span, format!("`{field}` is not a duration"), help);
        }
        nanos
    }

    fn count(&mut self, map: &Map<'_>, field: &str, default: u32) -> u32 {
        let Some(node) = map.get(field) else { return default };
        let count = match node.value {
            Value::Int(value) => u32::try_from(value).ok().filter(|count| *count > 0),
            _ => None,
        };
        if count.is_none() {
            let help = if field == "count" {
                "write a whole number from 1; for never, use kind `absence`"
            } else {
                "write a whole number from 1"
            };
            self.fail(&node.span, format!("`{field}` is not a count"), help);
        }
        count.unwrap_or(default)
    }

    fn choice<T: Copy>(&mut self, map: &Map<'_>, field: &str, known: &[(&str, T)]) -> Option<T> {
        let (text, span) = self.text(map, field)?;
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let help = format!("`{field}` is one of {}", names.join(", "));
            self.fail(&span, format!("`{text}` is not a `{field}`"), help);
        }
        found
    }

    /// The text of a field and its place; another type is an error, an absent field is not.
    pub(super) fn text<'m>(
        &mut self,
        map: &Map<'m>,
        field: &str,
    ) -> Option<(&'m str, Range<usize>)> {
        let node = map.get(field)?;
        match &node.value {
            Value::Str(text) => Some((text, node.span.clone())),
            other => {
                let message = format!("`{field}` is {} instead of text", other.what());
                self.fail(&node.span, message, "put it in quotes");
                None
            }
        }
    }

    fn side(&mut self, map: &Map<'_>, field: &'static str, balance: bool) -> Parsed {
        if map.get(field).is_none() {
            let selector = if balance { "count { … }" } else { "{ … }" };
            self.missing(map, field, &format!("add `{field}: '{selector}'`, a selector"));
            return Parsed::Absent;
        }
        match self.text(map, field) {
            Some((text, span)) => sides::side(self, text, &span, balance),
            None => Parsed::Absent,
        }
    }
}
