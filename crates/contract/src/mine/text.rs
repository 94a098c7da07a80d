//! Templates of log texts, found by themselves.
//!
//! A text is cut into words and what stands between them. A word with a digit in it is variable from
//! the start: ids, counts and times have them. A word without one is variable if the same text is
//! seen with many different words there (names, for instance). What is left is the template; the
//! variable words are what may be keys: `order_id=17` and `"order_id": "17"` by the name before it,
//! `batch 4f2c` by its place.

use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use foldhash::fast::RandomState;
use foldhash::quality::FixedState;
use hashbrown::HashMap;

/// Longer texts are read up to so many bytes.
const MAX_TEXT: usize = 512;
/// Texts with more words are no messages with keys but dumps.
const MAX_WORDS: usize = 40;
/// So many different words at one place of otherwise equal texts make the place variable.
const MANY: u32 = 12;
/// Templates are told apart up to so many.
const MAX_TEMPLATES: usize = 2_048;

/// A word of a text.
#[derive(Debug, Clone)]
struct Word {
    at: Range<usize>,
    variable: bool,
}

/// A template that a text fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// Its constant words, for people.
    pub(super) words: String,
    /// The expression that the texts match, whole.
    pub(super) pattern: String,
    /// Its variable places.
    pub(super) places: Vec<Place>,
}

/// A variable place of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The name that stands before it, if one does.
    pub(super) name: Option<String>,
    /// The expression whose group is the word there.
    pub(super) pattern: String,
}

/// What was made of a text: its template, and the words at the template's places.
pub(super) struct Fit {
    pub(super) template: usize,
    pub(super) words: Vec<Range<usize>>,
}

/// All templates that were seen.
#[derive(Debug, Default)]
pub(super) struct Templates {
    list: Vec<Template>,
    /// By the hash of the constant parts.
    known: HashMap<u64, usize, RandomState>,
    /// How many different words were seen at a place of otherwise equal texts.
    variety: HashMap<u64, u32, RandomState>,
    words: Vec<Word>,
}

impl Templates {
    pub(super) fn get(&self, template: usize) -> &Template {
        &self.list[template]
    }

    /// The template that `text` fits; `scope` keeps services apart.
    pub(super) fn fit(&mut self, scope: u64, text: &str) -> Option<Fit> {
        let mut end = text.len().min(MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let whole = end == text.len();
        let text = &text[..end];
        let mut words = std::mem::take(&mut self.words);
        split(text, &mut words);
        let found = if words.is_empty() || words.len() > MAX_WORDS {
            None
        } else {
            self.find(scope, text, &mut words, whole)
        };
        let fit = found.map(|template| Fit {
            template,
            words: words.iter().filter(|word| word.variable).map(|word| word.at.clone()).collect(),
        });
        self.words = words;
        fit
    }

    fn find(&mut self, scope: u64, text: &str, words: &mut [Word], whole: bool) -> Option<usize> {
        let code = hash(scope, text, words);
        if let Some(known) = self.known.get(&code) {
            return Some(*known);
        }
        // Perhaps one of its words is what varies.
        for i in 0..words.len() {
            if words[i].variable {
                continue;
            }
            words[i].variable = true;
            let without = hash(scope, text, words);
            if let Some(known) = self.known.get(&without) {
                return Some(*known);
            }
            let seen = self.variety.entry(without).or_default();
            *seen += 1;
            if *seen >= MANY {
                return self.add(without, text, words, whole);
            }
            words[i].variable = false;
        }
        if self.variety.len() > 64 * MAX_TEMPLATES {
            self.variety.clear();
        }
        self.add(code, text, words, whole)
    }

    fn add(&mut self, code: u64, text: &str, words: &[Word], whole: bool) -> Option<usize> {
        if self.list.len() >= MAX_TEMPLATES {
            return None;
        }
        self.known.insert(code, self.list.len());
        self.list.push(template(text, words, whole));
        Some(self.list.len() - 1)
    }
}

/// Characters of which words are made.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '@' | '#' | '+' | '%')
}

fn split(text: &str, words: &mut Vec<Word>) {
    words.clear();
    let mut start = None;
    let mut digit = false;
    let mut end_word = |from: usize, to: usize, digit: bool| {
        // A full stop ends a sentence, not a word.
        let trimmed = text[from..to].trim_end_matches(['.', '-', '/']);
        if !trimmed.is_empty() {
            words.push(Word { at: from..from + trimmed.len(), variable: digit });
        }
    };
    for (at, c) in text.char_indices() {
        if is_word(c) {
            start.get_or_insert(at);
            digit |= c.is_ascii_digit();
        } else if let Some(from) = start.take() {
            end_word(from, at, digit);
            digit = false;
        }
    }
    if let Some(from) = start {
        end_word(from, text.len(), digit);
    }
}

fn hash(scope: u64, text: &str, words: &[Word]) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    scope.hash(&mut hasher);
    let mut at = 0;
    for word in words.iter().filter(|word| word.variable) {
        text[at..word.at.start].hash(&mut hasher);
        at = word.at.end;
    }
    text[at..].hash(&mut hasher);
    hasher.finish()
}

fn template(text: &str, words: &[Word], whole: bool) -> Template {
    const ANY: &str = r"[\w./@#+%-]+?";
    let variable: Vec<&Word> = words.iter().filter(|word| word.variable).collect();
    let (mut pattern, mut at) = (String::new(), 0);
    for word in &variable {
        pattern.push_str(&escape(&text[at..word.at.start]));
        pattern.push_str(ANY);
        at = word.at.end;
    }
    pattern.push_str(&escape(&text[at..]));
    if !whole {
        pattern.push_str(".*");
    }
    let places = (0..variable.len())
        .map(|place| {
            // Up to and after the place, so that its word is whole.
            let (mut pattern, mut at) = ("^".to_owned(), 0);
            for (i, word) in variable.iter().enumerate().take(place + 1) {
                pattern.push_str(&escape(&text[at..word.at.start]));
                pattern.push_str(&if i == place { format!("({ANY})") } else { ANY.to_owned() });
                at = word.at.end;
            }
            let next = variable.get(place + 1).map_or(text.len(), |next| next.at.start);
            pattern.push_str(&escape(&text[at..next]));
            if place + 1 == variable.len() && whole {
                pattern.push('$');
            }
            Place { name: name_before(text, words, variable[place]), pattern }
        })
        .collect();
    let constant = words.iter().filter(|word| !word.variable).take(8);
    let words: Vec<&str> = constant.map(|word| &text[word.at.clone()]).collect();
    Template { words: words.join(" "), pattern, places }
}

/// The name in `name=word`, `name: word` and `"name":"word"`.
fn name_before(text: &str, words: &[Word], word: &Word) -> Option<String> {
    let before = words.iter().rev().find(|other| other.at.end <= word.at.start)?;
    let between = &text[before.at.end..word.at.start];
    let joins = between.chars().filter(|c| matches!(c, '=' | ':')).count() == 1
        && between.chars().all(|c| matches!(c, '=' | ':' | '"' | '\'' | ' '));
    (joins && !before.variable).then(|| text[before.at.clone()].to_owned())
}

/// `text` as an expression that matches it alone.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&str]) -> (Templates, Vec<Fit>) {
        let mut templates = Templates::default();
        let fits = texts.iter().filter_map(|text| templates.fit(0, text)).collect();
        (templates, fits)
    }

    #[test]
    fn words_with_digits_vary_and_names_stand_before_them() {
        let texts = ["Took order_id=17, batch b4f2c.", "Took order_id=18, batch a-77."];
        let (templates, fits) = of(&texts);
        assert_eq!((fits[0].template, fits[1].template), (0, 0));
        let places = &templates.get(0).places;
        assert_eq!(places[0].name.as_deref(), Some("order_id"));
        assert_eq!(places[1].name, None);
        assert_eq!(templates.get(0).words, "Took order_id batch");
        let words: Vec<&str> = fits[1].words.iter().map(|at| &texts[1][at.clone()]).collect();
        assert_eq!(words, ["18", "a-77"]);
    }

    #[test]
    fn expressions_find_what_the_places_held() {
        use lacuna_signal::selector::{FieldAccess, Selector};
        let text = r#"{"order_id": "x-1", "took": 12} done (3)."#;
        let (templates, _) = of(&[text]);
        let template = templates.get(0);
        assert_eq!(template.places.len(), 3);
        assert_eq!(template.places[0].name.as_deref(), Some("order_id"));
        assert_eq!(template.places[1].name.as_deref(), Some("took"));
        for place in &template.places {
            let field = format!("body =~ `{}`", place.pattern);
            FieldAccess::parse(lacuna_signal::SignalKind::Logs, &field).unwrap();
        }
        Selector::parse(&format!("log {{ body =~ `{}` }}", template.pattern)).unwrap();
    }

    #[test]
    fn a_word_that_varies_much_becomes_variable() {
        let names: Vec<String> = (0..40u8)
            .map(|i| {
                let name: String = [i / 6, i % 6].map(|n| char::from(b'a' + n)).iter().collect();
                format!("Welcome {name} to the shop")
            })
            .collect();
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        let (_, fits) = of(&texts);
        let last: Vec<usize> = fits[20..].iter().map(|fit| fit.template).collect();
        assert!(last.iter().all(|template| *template == last[0]), "{last:?}");
        assert_eq!(fits[39].words.len(), 1);
    }
}
