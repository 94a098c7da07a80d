//! One signal that everything in a process ends by.

use std::io::Read;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::error::Error;

/// Cloned into every task; see [`Stop::wait`].
#[derive(Clone, Debug)]
pub struct Stop {
    sender: std::sync::Arc<watch::Sender<bool>>,
}

impl Stop {
    /// Stops on SIGTERM, SIGINT and, where asked, the end of standard input.
    pub fn on_signals(stdin_too: bool) -> Result<Self, Error> {
        let stop = Self { sender: std::sync::Arc::new(watch::Sender::new(false)) };
        let mut terminate =
            signal(SignalKind::terminate()).map_err(Error::io("SIGTERM handler"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::io("SIGINT handler"))?;
        let on_signal = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            on_signal.now();
        });
        if stdin_too {
            let on_end = stop.clone();
            // A plain thread: the runtime would wait at its end for a blocking read of its own.
            std::thread::spawn(move || {
                let mut buffer = [0_u8; 64];
                let mut stdin = std::io::stdin().lock();
                while matches!(stdin.read(&mut buffer), Ok(n) if n > 0) {}
                on_end.now();
            });
        }
        Ok(stop)
    }

    /// Tells every holder to end.
    pub fn now(&self) {
        self.sender.send_replace(true);
    }

    /// Returns when it is time to end.
    pub async fn wait(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives in `self`, so this cannot fail before the value is there.
        let _ = receiver.wait_for(|stop| *stop).await;
    }
}
