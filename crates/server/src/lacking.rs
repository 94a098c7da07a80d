//! What an answer of the store lacks, in words: one wording for every API and the command line.

use lacuna_store::{Finding, Found};

/// The words for damaged places.
pub fn damage(damaged: &[Finding]) -> Vec<String> {
    damaged.iter().map(|finding| format!("a part may be missing: {finding}")).collect()
}

/// That not all `what` were read.
pub fn cut(what: &str) -> String {
    format!("only a part: there are more {what} than are read at once")
}

/// What `found`, an answer made of `what`, lacks: it was cut off, or damage was met.
pub fn lacking<T>(found: &Found<T>, what: &str) -> Vec<String> {
    found.cut.then(|| cut(what)).into_iter().chain(damage(&found.damaged)).collect()
}

/// Adds to `all` those of `more` that are not in it.
pub fn note(all: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for warning in more {
        if !all.contains(&warning) {
            all.push(warning);
        }
    }
}
