//! A receiver of notifications: takes what is posted, and answers as it is told to.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::eventually;

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// 200.
    Takes,
    /// 503.
    Fails,
    /// It reads the request and answers nothing, until the mood changes.
    Hangs,
    /// It closes the connection at once.
    Refuses,
}

/// One request that was taken.
#[derive(Debug, Clone)]
pub struct Taken {
    pub path: String,
    /// The `Idempotency-Key`.
    pub key: String,
    pub authorization: String,
    pub body: Value,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// A request whose body contains this is answered with 422.
    unwanted: Option<String>,
    taken: Vec<Taken>,
    /// Requests that were not taken.
    refused: usize,
    /// Requests that were read, whatever became of them.
    read: usize,
}

/// A receiver on a port of its own.
pub struct Receiver {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            mood,
            unwanted: None,
            taken: Vec::new(),
            refused: 0,
            read: 0,
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state }
    }

    pub fn set(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// From now on a request whose body contains `text` is answered with 422.
    pub fn will_not_take(&self, text: &str) {
        self.state.lock().unwrap().unwanted = Some(text.to_owned());
    }

    /// From now on what [`Self::will_not_take`] named is taken too.
    pub fn will_take_all(&self) {
        self.state.lock().unwrap().unwanted = None;
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state.lock().unwrap().taken.clone()
    }

    pub fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    pub fn read(&self) -> usize {
        self.state.lock().unwrap().read
    }

    /// Waits until so many requests were taken, and gives all that were.
    pub async fn await_taken(&self, count: usize) -> Vec<Taken> {
        let what = format!("{count} deliveries");
        eventually(&what, || async {
            let taken = self.taken();
            (taken.len() >= count).then_some(taken)
        })
        .await
    }
}

/// Answers the requests of one connection: HTTP/1.1 with a `Content-Length`, as clients send it.
async fn serve(mut stream: tokio::net::TcpStream, state: Arc<Mutex<State>>) {
    let mood = || state.lock().unwrap().mood;
    let mut read = Vec::new();
    loop {
        if mood() == Mood::Refuses {
            state.lock().unwrap().refused += 1;
            return;
        }
        let (head, body) = loop {
            if let Some(found) = whole(&mut read) {
                break found;
            }
            let mut buffer = [0; 16_384];
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => read.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        };
        state.lock().unwrap().read += 1;
        while mood() == Mood::Hangs {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let unwanted = {
            let state = state.lock().unwrap();
            let text = String::from_utf8_lossy(&body);
            state.unwanted.as_ref().is_some_and(|unwanted| text.contains(unwanted))
        };
        let takes = mood() == Mood::Takes && !unwanted;
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value).to_owned()
        };
        // The client may be gone: then it was not taken.
        let status = match (takes, unwanted) {
            (true, _) => "200 OK",
            (false, true) => "422 Unprocessable Entity",
            (false, false) => "503 Service Unavailable",
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        {
            let mut state = state.lock().unwrap();
            if takes {
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (key, authorization) = (field("idempotency-key"), field("authorization"));
                state.taken.push(Taken { path, key, authorization, body });
            } else {
                state.refused += 1;
            }
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The first whole request in `read`, which it is taken out of: head and body.
fn whole(read: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    (read.len() >= end + length).then(|| {
        let body = read[end..end + length].to_vec();
        read.drain(..end + length);
        (head, body)
    })
}
