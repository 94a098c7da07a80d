//! OTLP/JSON requests as OTLP protobuf: there is one encoding in the log and one decoder.
//!
//! The text is read once from front to back and the protobuf written as it goes, by the tables in
//! [`fields`]. As OTLP and protobuf's JSON mapping ask of a reader, it is lenient: 64-bit numbers
//! as strings or numbers, ids in hex of any case, bytes in either base64, enums by number or name,
//! field names in camelCase or snake_case, `null` for what is absent, unknown fields passed over.

mod error;
mod fields;
mod parse;
mod scalar;
#[cfg(test)]
mod tests;
pub(super) mod write;

use bytes::Bytes;

use crate::schema::SignalKind;

use self::error::{Bad, Stop, Syntax};
use self::fields::{Field, Message, Role, Value};
use self::parse::{Json, Kind};
use self::write::{close, open, put_tag};
use super::any::MAX_DEPTH;
use super::wire::{Message as WireMessage, WireError};
use super::{DecodeError, ItemError, Limits, Rejected, check_size};

/// Reads an OTLP/JSON export request of `kind` and gives it in protobuf, for [`super::decode`].
///
/// A span, log record or point with a bad value is left out, counted and reported with the value's
/// place, such as `resourceSpans[0].scopeSpans[1].spans[7].traceId: "xyz" is not hex`; so is a bad
/// attribute of a resource or scope, or a log's id that is not hex, without the items it belongs
/// to. It fails with [`DecodeError::Json`] if the text is not JSON, and with
/// [`DecodeError::Unreadable`] if it is not a request, has nothing but unknown fields, or every item
/// in it is bad.
///
/// Source: OTLP 1.x, "JSON Protobuf Encoding".
pub fn decode_json(kind: SignalKind, body: &[u8]) -> Result<(Bytes, Rejected), DecodeError> {
    check_size(body.len(), &Limits::default())?;
    let mut encoder = Encoder {
        json: Json::new(body),
        out: Vec::with_capacity(body.len() / 2),
        path: Vec::new(),
        depth: 0,
        items: 0,
        rejected: Rejected::default(),
    };
    let request = fields::request(kind);
    let read = encoder.message(request).and_then(|()| Ok(encoder.json.end()?));
    let Encoder { out, items, rejected, .. } = encoder;
    match read {
        // Nothing of it is known: a request of another kind, or a misspelt name. An emitter that
        // is told "success" would go on losing everything.
        Ok(()) if out.is_empty() && rejected.is_empty() => match unknown_fields(request, body) {
            Ok(names) if names.is_empty() => Ok((Bytes::new(), rejected)),
            Ok(names) => {
                let expected = request.fields.first().map_or("", |field| field.name);
                let first = format!("unknown field {}, expected `{expected}`", names.join(", "));
                Err(DecodeError::Unreadable { kind: kind.name(), first })
            }
            Err(error) => Err(syntax_error(&error, body)),
        },
        Err(Stop::Syntax(error)) => Err(syntax_error(&error, body)),
        Err(Stop::Bad(bad)) => {
            let first = format!("{}{}", bad.place.trim_start_matches('.'), bad.what);
            Err(DecodeError::Unreadable { kind: kind.name(), first })
        }
        Ok(()) => match rejected.reasons.first() {
            Some(first) if items == 0 && rejected.items > 0 => {
                Err(DecodeError::Unreadable { kind: kind.name(), first: first.clone() })
            }
            _ => Ok((Bytes::from(out), rejected)),
        },
    }
}

/// Which kind of export request an OTLP/JSON text is, by its first member that says so; `None` if
/// none does. The rest of the text is not looked at.
pub fn json_kind(body: &[u8]) -> Result<Option<SignalKind>, DecodeError> {
    first_kind(body).map_err(|error| syntax_error(&error, body))
}

fn first_kind(body: &[u8]) -> Result<Option<SignalKind>, Syntax> {
    let mut json = Json::new(body);
    if json.peek()? != Kind::Object {
        return Ok(None);
    }
    json.open();
    let mut first = true;
    while let Some(key) = json.member(&mut first)? {
        for kind in SignalKind::ALL {
            if fields::request(kind).find(key, 0).is_some() {
                return Ok(Some(kind));
            }
        }
        json.skip()?;
    }
    Ok(None)
}

/// The first few names of the object's members if `request` has none of them.
fn unknown_fields(request: &Message, body: &[u8]) -> Result<Vec<String>, Syntax> {
    const MOST: usize = 3;
    let mut json = Json::new(body);
    json.peek()?;
    json.open();
    let (mut first, mut names) = (true, Vec::new());
    while let Some(key) = json.member(&mut first)? {
        if request.find(key, 0).is_some() {
            return Ok(Vec::new());
        }
        if names.len() < MOST {
            names.push(format!("`{}`", String::from_utf8_lossy(key)));
        }
        json.skip()?;
    }
    Ok(names)
}

fn syntax_error(error: &Syntax, body: &[u8]) -> DecodeError {
    let (line, column) = error.line_and_column(body);
    DecodeError::Json { line, column, what: error.what }
}

struct Encoder<'a> {
    json: Json<'a>,
    out: Vec<u8>,
    /// The messages around the cursor in which something may be lost by itself.
    path: Vec<(&'static str, Option<usize>)>,
    /// How deep the cursor is in an `AnyValue`.
    depth: usize,
    /// Items kept.
    items: u64,
    rejected: Rejected,
}

/// Where a value begins, to go back to if it is bad.
struct Mark {
    json: usize,
    out: usize,
    items: u64,
    rejected: u64,
}

impl Encoder<'_> {
    /// Writes the fields of the message at the cursor.
    fn message(&mut self, message: &'static Message) -> Result<(), Stop> {
        expect(&mut self.json, Kind::Object)?;
        self.json.open();
        let start = self.out.len();
        let (mut first, mut guess, mut seen) = (true, 0, 0u32);
        while let Some(key) = self.json.member(&mut first)? {
            let Some(i) = message.find(key, guess) else {
                self.json.skip()?;
                continue;
            };
            guess = i + 1;
            if self.json.peek()? == Kind::Null {
                self.json.word()?;
            } else {
                seen |= 1 << i;
                self.field(&message.fields[i])?;
            }
        }
        for (i, field) in message.fields.iter().enumerate() {
            if matches!(field.value, Value::Id { required: true, .. }) && seen & 1 << i == 0 {
                return Err(Stop::bad("is missing").below(|| format!(".{}", field.name)));
            }
        }
        match message.check {
            Some(check) => check(&self.out[start..]).map_err(Stop::bad),
            None => Ok(()),
        }
    }

    fn field(&mut self, field: &'static Field) -> Result<(), Stop> {
        let mark = self.mark();
        if !field.list {
            let done = self.value(field, None);
            return self.settle(field, None, &mark, done);
        }
        if let Err(stop) = expect(&mut self.json, Kind::Array) {
            return self.settle(field, None, &mark, Err(stop));
        }
        self.json.open();
        let mut first = true;
        let packed = !matches!(field.value, Value::Text | Value::Message(_) | Value::Any);
        let start = if packed { open(&mut self.out, field.number) } else { 0 };
        let mut index = 0;
        while self.json.item(&mut first)? {
            if packed {
                self.scalar(field).map_err(|stop| stop.below(|| step(field.name, Some(index))))?;
            } else if self.json.peek()? == Kind::Null {
                self.json.word()?;
                // In an `AnyValue`'s list, it stands for a value that is empty.
                if matches!(field.value, Value::Any) {
                    let start = open(&mut self.out, field.number);
                    close(&mut self.out, start);
                }
            } else {
                let mark = self.mark();
                let done = self.value(field, Some(index));
                self.settle(field, Some(index), &mark, done)?;
            }
            index += 1;
        }
        if packed {
            close(&mut self.out, start);
        }
        Ok(())
    }

    /// Writes the value at the cursor with its tag.
    fn value(&mut self, field: &'static Field, index: Option<usize>) -> Result<(), Stop> {
        match &field.value {
            Value::Message(message) => {
                let start = open(&mut self.out, field.number);
                if field.role != Role::Part {
                    self.path.push((field.name, index));
                }
                let done = self.message(message);
                if field.role != Role::Part {
                    self.path.pop();
                }
                done?;
                close(&mut self.out, start);
                Ok(())
            }
            Value::Any => {
                if self.depth > MAX_DEPTH {
                    return Err(Stop::bad(WireError::Depth.to_string()));
                }
                let start = open(&mut self.out, field.number);
                self.depth += 1;
                let done = self.message(&fields::ANY_VALUE);
                self.depth -= 1;
                done?;
                close(&mut self.out, start);
                Ok(())
            }
            value => {
                put_tag(&mut self.out, field.number, value.wire_type());
                self.scalar(field)
            }
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            json: self.json.position(),
            out: self.out.len(),
            items: self.items,
            rejected: self.rejected.items,
        }
    }

    /// After a value: counts it if it was an item; leaves it out if it was bad and may be left out
    /// by itself.
    fn settle(
        &mut self,
        field: &'static Field,
        index: Option<usize>,
        mark: &Mark,
        done: Result<(), Stop>,
    ) -> Result<(), Stop> {
        let bad = match done {
            Ok(()) => {
                self.items += u64::from(field.role == Role::Item);
                return Ok(());
            }
            Err(Stop::Bad(bad)) if !matches!(field.role, Role::Part | Role::Body) => bad,
            Err(stop) => return Err(stop.below(|| step(field.name, index))),
        };
        self.out.truncate(mark.out);
        self.json.go_back(mark.json);
        self.items = mark.items;
        self.rejected.items = mark.rejected;
        match field.role {
            Role::Metric if index.is_some() => {
                self.rejected.items += count_points(&mut self.json)?.max(1);
            }
            role => {
                self.json.skip()?;
                match role {
                    Role::Detail => self.rejected.attributes += 1,
                    Role::Link => {
                        let start = open(&mut self.out, field.number);
                        close(&mut self.out, start);
                    }
                    _ => self.rejected.items += 1,
                }
            }
        }
        let Bad { place, what } = *bad;
        let path = &self.path;
        self.rejected.reason(|| {
            let steps = path.iter().map(|(name, index)| step(name, *index));
            let steps: String = steps.chain([step(field.name, index), place]).collect();
            format!("{}: {what}", steps.trim_start_matches('.'))
        });
        Ok(())
    }
}

fn step(name: &str, index: Option<usize>) -> String {
    match index {
        Some(index) => format!(".{name}[{index}]"),
        None => format!(".{name}"),
    }
}

fn expect(json: &mut Json<'_>, kind: Kind) -> Result<(), Stop> {
    let found = json.peek()?;
    if found == kind {
        return Ok(());
    }
    Err(Stop::bad(format!("expected {}, found {}", kind.name(), found.name())))
}

/// Passes the metric at the cursor and counts its points.
fn count_points(json: &mut Json<'_>) -> Result<u64, Syntax> {
    let mut points = 0;
    members(json, |json, key| {
        match fields::METRIC.find(key, 0).map(|i| &fields::METRIC.fields[i]) {
            Some(Field { value: Value::Message(data), role: Role::Body, .. }) => {
                members(json, |json, key| {
                    let field = data.find(key, 0).map(|i| &data.fields[i]);
                    if !field.is_some_and(|field| field.role == Role::Item)
                        || json.peek()? != Kind::Array
                    {
                        return json.skip();
                    }
                    json.open();
                    let mut first = true;
                    while json.item(&mut first)? {
                        points += u64::from(json.peek()? != Kind::Null);
                        json.skip()?;
                    }
                    Ok(())
                })
            }
            _ => json.skip(),
        }
    })?;
    Ok(points)
}

/// Passes the value at the cursor; if it is an object, `member` passes the value of each key.
fn members<'a>(
    json: &mut Json<'a>,
    mut member: impl FnMut(&mut Json<'a>, &[u8]) -> Result<(), Syntax>,
) -> Result<(), Syntax> {
    if json.peek()? != Kind::Object {
        return json.skip();
    }
    json.open();
    let mut first = true;
    while let Some(key) = json.member(&mut first)? {
        let key = key.to_vec();
        member(json, &key)?;
    }
    Ok(())
}

/// The decoder's rule on the buckets of an encoded histogram point.
fn check_buckets(point: &[u8]) -> Result<(), String> {
    let (mut counts, mut bounds) = (0, 0);
    let mut message = WireMessage::new(point);
    let read: Result<(), WireError> = (|| {
        while let Some((number, field)) = message.next_field()? {
            match number {
                6 => field.each_fixed64(6, |_| counts += 1)?,
                7 => field.each_fixed64(7, |_| bounds += 1)?,
                _ => {}
            }
        }
        Ok(())
    })();
    read.map_err(|error| error.to_string())?;
    ItemError::check_buckets(counts, bounds).map_err(|error| error.to_string())
}
