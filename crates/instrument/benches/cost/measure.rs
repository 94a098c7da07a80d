//! Time and allocations of a call, compared in turn.

use lacuna_instrument::switch::Level;
use stats_alloc::Region;
use std::time::Instant;

/// Rounds, and calls in each: a round is shorter than a scheduler's slice, so that on a busy machine
/// most of them run undisturbed.
const ROUNDS: usize = 801;
const CALLS: u32 = 200;

/// Nanoseconds and allocations of one call.
#[derive(Clone, Copy)]
struct Cost {
    ns: f64,
    allocations: f64,
}

async fn round<F: Future<Output = ()>>(call: &mut impl FnMut() -> F) -> Cost {
    let region = Region::new(crate::GLOBAL);
    let started = Instant::now();
    for _ in 0..CALLS {
        call().await;
    }
    let ns = started.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS);
    let change = region.change();
    let made = change.allocations + change.reallocations;
    Cost { ns, allocations: made as f64 / f64::from(CALLS) }
}

/// The value below which a quarter lies: what other work on the machine only makes larger.
pub fn quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 4]
}

fn usual(rounds: &[[Cost; 5]], which: usize) -> Cost {
    Cost {
        ns: quartile(rounds.iter().map(|costs| costs[which].ns).collect()),
        allocations: quartile(rounds.iter().map(|costs| costs[which].allocations).collect()),
    }
}

/// The names of the columns that [`compare`] prints.
pub fn heading() {
    println!(
        "{:<16}{:>13}{:>13}{:>7}{:>13}{:>13}{:>13}",
        "", "by hand", "spans", "ratio", "on", "off", "not linked"
    );
}

/// Measures the span by hand, the crate's, the crate's with metrics, the crate's switched off, and the
/// operation alone.
pub async fn compare<A, B, C>(
    what: &str,
    mut by_hand: impl FnMut() -> A,
    mut ours: impl FnMut() -> B,
    mut alone: impl FnMut() -> C,
) where
    A: Future<Output = ()>,
    B: Future<Output = ()>,
    C: Future<Output = ()>,
{
    let mut rounds = vec![];
    // The first round warms up.
    for n in 0..=ROUNDS {
        crate::all(Level::Spans);
        let (bare, spans) = (round(&mut by_hand).await, round(&mut ours).await);
        crate::all(Level::On);
        let on = round(&mut ours).await;
        crate::all(Level::Off);
        let (off, none) = (round(&mut ours).await, round(&mut alone).await);
        if n > 0 {
            rounds.push([bare, spans, on, off, none]);
        }
    }
    let [bare, spans, on, off, none] = [0, 1, 2, 3, 4].map(|which| usual(&rounds, which));
    let ratio = spans.ns / bare.ns;
    let cell = |cost: Cost| format!("{:.0} ({:.0})", cost.ns, cost.allocations);
    println!(
        "{what:<16}{:>13}{:>13}{ratio:>7.2}{:>13}{:>13}{:>13}",
        cell(bare),
        cell(spans),
        cell(on),
        cell(off),
        cell(none)
    );
}
