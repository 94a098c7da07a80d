//! What must hold of a data folder, whatever became of its files.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::{SignalKind, otlp};
use lacuna_store::files::{Entry, Files, ReadFile, WriteFile};
use lacuna_store::{Options, Store, StoreError, TimeRange};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

type Content = Arc<Mutex<Vec<u8>>>;

/// A file system in memory: a thousand times as fast as one that syncs.
#[derive(Clone, Default)]
struct MemoryFiles {
    files: Arc<Mutex<BTreeMap<PathBuf, Content>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_there() -> io::Error {
    io::ErrorKind::NotFound.into()
}

struct MemoryFile(Content);

impl WriteFile for MemoryFile {
    fn append(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut content = lock(&self.0);
        parts.iter().for_each(|part| content.extend_from_slice(part));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        lock(&self.0).truncate(len as usize);
        Ok(())
    }
}

impl ReadFile for MemoryFile {
    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = lock(&self.0);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(content.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl MemoryFiles {
    fn content(&self, path: &Path) -> io::Result<Content> {
        lock(&self.files).get(path).cloned().ok_or_else(not_there)
    }

    /// Files of its own with the same content.
    fn copy(&self) -> Self {
        let files = lock(&self.files);
        let copied = files
            .iter()
            .map(|(path, content)| (path.clone(), Arc::new(Mutex::new(lock(content).clone()))));
        Self { files: Arc::new(Mutex::new(copied.collect())) }
    }
}

impl Files for MemoryFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let content = Content::default();
        lock(&self.files).insert(path.to_owned(), content.clone());
        Ok(Box::new(MemoryFile(content)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn ReadFile>> {
        Ok(Arc::new(MemoryFile(self.content(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        let content = files.remove(from).ok_or_else(not_there)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.files).remove(path).map(drop).ok_or_else(not_there)
    }

    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        lock(&*self.content(path)?).truncate(len as usize);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let files = lock(&self.files);
        let inside = files.iter().filter(|(path, _)| path.parent() == Some(folder));
        let entry = |(path, content): (&PathBuf, &Content)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Entry { name, size: lock(content).len() as u64 })
        };
        Ok(inside.filter_map(entry).collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        // The lock is a real file: the operating system releases it however a process ends.
        std::fs::create_dir_all(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// A folder as it was written, and what is in it.
struct Written {
    folder: PathBuf,
    files: MemoryFiles,
    /// Name and start of each span, by id.
    spans: HashMap<u64, (String, i64)>,
}

fn options(files: &MemoryFiles) -> Options {
    let mut options = Options::default();
    options.files = Arc::new(files.clone());
    options.background = false;
    options.disk_reserve_bytes = 0;
    options
}

fn request(number: u64) -> Vec<Span> {
    (0..1 + number % 4)
        .map(|i| {
            let id = number * 8 + i + 1;
            let value = AnyValue { value: Some(Value::StringValue(format!("value {number}"))) };
            Span {
                trace_id: (u128::from(number) + 1).to_be_bytes().to_vec(),
                span_id: id.to_be_bytes().to_vec(),
                name: format!("operation {id}"),
                start_time_unix_nano: 1_000 + id,
                end_time_unix_nano: 2_000 + id,
                attributes: vec![KeyValue {
                    key: "key".to_owned(),
                    value: Some(value),
                    ..KeyValue::default()
                }],
                ..Span::default()
            }
        })
        .collect()
}

/// Two segments, one of them merged, and a log.
fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("lacuna-fuzz-{}", std::process::id()));
        let files = MemoryFiles::default();
        let store = Store::open(&folder, options(&files)).expect("a new folder");
        let mut spans = HashMap::new();
        for number in 0..24 {
            let of_request = request(number);
            for span in &of_request {
                let id = u64::from_be_bytes(span.span_id.clone().try_into().expect("eight bytes"));
                spans.insert(id, (span.name.clone(), span.start_time_unix_nano as i64));
            }
            let scope = ScopeSpans { spans: of_request, ..ScopeSpans::default() };
            let resource = ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() };
            let request = ExportTraceServiceRequest { resource_spans: vec![resource] };
            let body = Bytes::from(request.encode_to_vec());
            let batch = otlp::decode(SignalKind::Spans, body.clone()).expect("a request").batch;
            store.append_wait(SignalKind::Spans, body, batch).expect("room");
            match number {
                6 => store.flush().expect("room"),
                12 => store.compact().expect("room"),
                18 => store.flush().expect("room"),
                _ => {}
            }
        }
        drop(store);
        Written { folder, files, spans }
    })
}

/// Changes the files of a good folder as `edits` says, eight bytes an edit, and opens it: nothing
/// wrong is served, and what is missing is told.
pub fn check_folder(edits: &[u8]) {
    let written = written();
    let files = written.files.copy();
    let paths: Vec<PathBuf> = lock(&files.files).keys().cloned().collect();
    // A log cut between two frames looks as it did before the later one was written.
    let mut cut_log = false;
    for edit in edits.chunks_exact(8).take(16) {
        let path = &paths[usize::from(edit[0]) % paths.len()];
        let Ok(content) = files.content(path) else { continue };
        let mut content = lock(&content);
        let at = u32::from_le_bytes([edit[1], edit[2], edit[3], 0]) as usize % (content.len() + 1);
        let in_log = path.starts_with(written.folder.join("wal"));
        match edit[4] % 5 {
            0 | 1 => {
                if let Some(byte) = content.get_mut(at) {
                    *byte = if edit[4] & 8 == 0 { edit[5] } else { *byte ^ (1 << (edit[5] % 8)) };
                }
            }
            2 => {
                content.truncate(at);
                cut_log |= in_log;
            }
            3 => content.insert(at, edit[5]),
            _ => {
                let end = (at + usize::from(edit[5])).min(content.len());
                cut_log |= in_log && end == content.len();
                content.drain(at..end);
            }
        }
    }
    let store = match Store::open(&written.folder, options(&files)) {
        Ok(store) => store,
        // A version may turn into the next one.
        Err(StoreError::OtherFormat { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let mut served = 0;
    let scan = store.scan(SignalKind::Spans, None, TimeRange::ALL, None, usize::MAX);
    let mut scan = scan.expect("a scan");
    for batch in scan.by_ref() {
        let batch = batch.expect("damage is told, not an error");
        let rows = SpanRows::new(&batch);
        for row in 0..batch.num_rows() {
            let id = u64::from_be_bytes(rows.span_id(row).expect("an id").0);
            let (name, start) = written.spans.get(&id).expect("a span that was written");
            assert_eq!((rows.name(row), rows.start(row)), (name.as_str(), *start));
            served += 1;
        }
    }
    let recovery = store.recovery();
    let told = !recovery.findings.is_empty() || !scan.damaged().is_empty();
    assert!(served == written.spans.len() || told || cut_log, "{served} of {}", written.spans.len());
    store.check(|_| {}).expect("damage is told, not an error");
}
