//! Contracts run over the history that a command is pointed at.

use jiff::Timestamp;
use lacuna_contract::ContractSet;
use lacuna_contract::history::History;
use lacuna_store::TimeRange;

use crate::source::Source;
use crate::{Failure, Outcome};

/// Shows `contracts` all that decides of the obligations that are opened in `range`, which is
/// everything before its end; only those obligations are to be told. [`Outcome::Findings`] if damage
/// left some of it out.
pub async fn judge(
    contracts: &ContractSet,
    source: &Source,
    range: TimeRange,
) -> Result<(History, Outcome), Failure> {
    let mut history = History::new(contracts);
    if range.start != TimeRange::ALL.start
        && let Ok(from) = Timestamp::from_nanosecond(i128::from(range.start))
    {
        history.count_from(from);
    }
    if source.input.is_empty() {
        // Of files nobody knows by whose clock they are; what a server took in is of now.
        history.end_by(Timestamp::now());
    }
    let all = TimeRange { start: TimeRange::ALL.start, ..range };
    let read = source.read(all, |batch| history.observe(batch)).await?;
    Ok((history, read))
}
