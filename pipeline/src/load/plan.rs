//! What a load run sends, and when: a function of its options and seed alone.

use std::time::Duration;

/// One upload: some essays of one batch in one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Number of the batch, from 0.
    pub batch: usize,
    /// The essays: file name and content.
    pub files: Vec<(String, String)>,
    /// When, after the start.
    pub at: Duration,
}

/// Batches whose uploads mix: teachers do not wait for each other.
const AT_ONCE: usize = 4;
/// Most essays in one request.
const MOST_IN_ONE: usize = 5;

/// All uploads of a run, in order of time.
pub fn uploads(batches: usize, essays: u32, rate: f64, seed: u64) -> Vec<Upload> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut waiting = (0..batches).map(|batch| (batch, 0_u32));
    let mut open: Vec<(usize, u32)> = waiting.by_ref().take(AT_ONCE).collect();
    let mut plan = Vec::new();
    let mut sent = 0_u64;
    while !open.is_empty() {
        let turn = random.usize(..open.len());
        let (batch, done) = open[turn];
        let size = (random.usize(1..=MOST_IN_ONE) as u32).min(essays - done);
        let files = (done + 1..=done + size).map(|n| essay(&mut random, n)).collect();
        plan.push(Upload { batch, files, at: Duration::from_secs_f64(sent as f64 / rate) });
        sent += u64::from(size);
        if done + size < essays {
            open[turn].1 = done + size;
        } else if let Some(next) = waiting.next() {
            open[turn] = next;
        } else {
            open.swap_remove(turn);
        }
    }
    plan
}

fn essay(random: &mut fastrand::Rng, n: u32) -> (String, String) {
    const WORDS: [&str; 12] = [
        "the", "river", "keeps", "what", "nobody", "wrote", "down", "and", "asks", "again",
        "every", "spring",
    ];
    let words: Vec<&str> =
        (0..random.usize(20..80)).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
    (format!("essay-{n:03}.txt"), words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_essay_is_sent_once_and_the_seed_decides_all() {
        let plan = uploads(7, 13, 50.0, 42);
        assert_eq!(plan, uploads(7, 13, 50.0, 42));
        assert_ne!(plan, uploads(7, 13, 50.0, 43));
        for batch in 0..7 {
            let mut names: Vec<&str> = plan
                .iter()
                .filter(|u| u.batch == batch)
                .flat_map(|u| &u.files)
                .map(|(name, _)| name.as_str())
                .collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), 13);
        }
        assert!(plan.windows(2).all(|w| w[0].at <= w[1].at));
        assert!(plan.last().is_some_and(|u| u.at < Duration::from_secs_f64(7.0 * 13.0 / 50.0)));
    }

    #[test]
    fn nothing_asked_nothing_sent() {
        assert!(uploads(0, 5, 1.0, 0).is_empty());
    }
}
