//! What must hold of every contract file.

use lacuna_contract::ContractSet;

/// Reads `text` as a contract file: good contracts have names and sides, and each error stands at a
/// place of the text and says what would be right.
pub fn check_contracts(text: &str) {
    match ContractSet::parse("fuzz.yaml", text) {
        Ok(set) => {
            for contract in set.contracts() {
                assert!(!contract.name.is_empty(), "a contract without a name");
                assert!(contract.sides().next().is_some(), "a contract without sides");
            }
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "refused without a reason");
            let lines = text.split('\n').count();
            for error in &errors.errors {
                assert!((1..=lines).contains(&error.line()), "{error}");
                let line = text.split('\n').nth(error.line() - 1).unwrap_or_default();
                assert!((1..=line.chars().count() + 1).contains(&error.column()), "{error}");
                assert!(text.contains(error.text()), "{error}");
                assert!(!error.message().is_empty() && !error.to_string().is_empty());
            }
        }
    }
}
