//! Contract files, folders of them, and sets of contracts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{LoadError, LoadErrors, Source};
use super::read::{Named, read_file};
use super::{Contract, Places};

/// Contracts with unique names.
#[derive(Debug, Clone, Default)]
pub struct ContractSet {
    contracts: Vec<Arc<Contract>>,
    /// Where each stands; of contracts that were not read from files, nowhere.
    places: Vec<Option<Places>>,
}

impl ContractSet {
    /// Reads every `*.yaml` and `*.yml` file of a folder, in order of name. Folders inside it are
    /// not read.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files. A folder without contract files is empty,
    /// not wrong.
    pub fn load_dir(folder: &Path) -> Result<Self, LoadErrors> {
        Self::load_files(&files_of(folder)?)
    }

    /// Reads files, and the contract files of folders, as one set; also gives the number of files.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, or the first folder that cannot be read.
    pub fn load_paths(paths: &[PathBuf]) -> Result<(Self, usize), LoadErrors> {
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                files.extend(files_of(path)?);
            } else {
                files.push(path.clone());
            }
        }
        Ok((Self::load_files(&files)?, files.len()))
    }

    /// Reads files as one set.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, names given twice included.
    pub fn load_files(files: &[PathBuf]) -> Result<Self, LoadErrors> {
        let mut errors = Vec::new();
        let mut sources = Vec::new();
        for file in files {
            match std::fs::read_to_string(file) {
                Ok(text) => sources.push(Source::new(&file.display().to_string(), &text)),
                Err(error) => errors.push(LoadError::unreadable(file, &error)),
            }
        }
        Self::from_sources(&sources, errors)
    }

    /// Reads one file's text; `file` is its name for messages.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, LoadErrors> {
        Self::from_sources(&[Source::new(file, text)], Vec::new())
    }

    fn from_sources(sources: &[Source], mut errors: Vec<LoadError>) -> Result<Self, LoadErrors> {
        let mut set = Self::default();
        let mut seen: HashMap<String, String> = HashMap::new();
        for source in sources {
            for Named { contract, places, name, place } in read_file(source, &mut errors) {
                let here = format!("{}:{}", source.file(), line(source.text(), place.start));
                if let Some(first) = seen.get(&name) {
                    let message = format!("the name `{name}` is taken");
                    let help = format!("it is first used at {first}; names are unique");
                    errors.push(LoadError::at(source, place, message, help));
                    continue;
                }
                seen.insert(name, here);
                if let Some(contract) = contract {
                    set.contracts.push(Arc::new(contract));
                    set.places.push(Some(places));
                }
            }
        }
        // As a reader meets them: file by file, from top to bottom.
        let order =
            |error: &LoadError| sources.iter().position(|source| source.file() == error.file());
        errors.sort_by_key(|error| (order(error), error.line(), error.column()));
        if errors.is_empty() { Ok(set) } else { Err(LoadErrors { errors }) }
    }

    /// A set of contracts that were made otherwise; of two with one name the first is kept.
    pub fn from_contracts(contracts: impl IntoIterator<Item = Contract>) -> Self {
        let mut set = Self::default();
        for contract in contracts {
            if set.get(&contract.name).is_none() {
                set.contracts.push(Arc::new(contract));
                set.places.push(None);
            }
        }
        set
    }

    /// A complaint about a field of contract number `at`, if it stands in a file.
    pub(super) fn complain(
        &self,
        at: usize,
        field: &str,
        message: String,
        help: String,
    ) -> Option<LoadError> {
        self.places.get(at)?.as_ref().map(|places| places.complain(field, message, help))
    }

    /// The contracts, in the order of their files.
    pub fn contracts(&self) -> &[Arc<Contract>] {
        &self.contracts
    }

    /// The contract called `name`.
    pub fn get(&self, name: &str) -> Option<&Arc<Contract>> {
        self.contracts.iter().find(|contract| contract.name == name)
    }

    /// Number of contracts.
    pub fn len(&self) -> usize {
        self.contracts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.contracts.is_empty()
    }
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The `*.yaml` and `*.yml` files of a folder, in order of name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, LoadErrors> {
    let fail = |error| LoadErrors { errors: vec![LoadError::unreadable(folder, &error)] };
    if folder.is_file() {
        return Err(LoadErrors { errors: vec![LoadError::not_a_folder(folder)] });
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml")) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
