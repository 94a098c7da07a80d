//! A TCP proxy that keeps a server's answers back, or breaks, at a chosen moment: what is dropped or
//! lost "while it is on the wire" is so in every run.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// What happens when the client sends what is waited for. The server gets it in any case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Its answers are kept back until [`Proxy::release`].
    Hold,
    /// It answers, and the client's connection breaks instead.
    Break,
}

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    armed: Mutex<Option<(&'static str, Then)>>,
    seen: Notify,
    released: watch::Sender<bool>,
}

impl Proxy {
    /// In front of `server`, `host:port`.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<State>::default();
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(carry(client, server, shared.clone()));
            }
        });
        Self { port, state }
    }

    /// The next connection that sends `text` meets `then`; once.
    pub fn at(&self, text: &'static str, then: Then) {
        *self.state.armed.lock().unwrap() = Some((text, then));
    }

    /// Waits until the text was passed on to the server.
    pub async fn seen(&self) {
        self.state.seen.notified().await;
    }

    /// Lets the answers go that were kept back.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }
}

async fn carry(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let met = Arc::new(Mutex::new(None));
    let meets = met.clone();
    let released = state.released.subscribe();
    let up = async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_client.read(&mut buffer).await {
            let hit = {
                let mut armed = state.armed.lock().unwrap();
                let hit = armed.filter(|(text, _)| {
                    buffer[..n].windows(text.len()).any(|w| w == text.as_bytes())
                });
                if hit.is_some() {
                    *armed = None;
                }
                hit
            };
            if let Some((_, then)) = hit {
                *meets.lock().unwrap() = Some(then);
            }
            if to_server.write_all(&buffer[..n]).await.is_err() {
                break;
            }
            if hit.is_some() {
                state.seen.notify_one();
            }
        }
    };
    let down = async move {
        let (mut buffer, mut released) = (vec![0; 65_536], released);
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            let then = *met.lock().unwrap();
            match then {
                Some(Then::Break) => break,
                Some(Then::Hold) if released.wait_for(|r| *r).await.is_err() => break,
                _ => {}
            }
            if to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}
