//! Being asked to end, wherever an import waits or an export is.

use std::future::pending;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::commands::serve::end_asked_for;

/// Whether somebody has asked for an end, by Ctrl-C or SIGTERM. Clones know the same.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on.
    pub fn listen() -> Self {
        let (ask, asked) = watch::channel(false);
        tokio::spawn(async move {
            // Without signals, the command can only be killed, which does no harm either.
            if end_asked_for().await.is_ok() {
                ask.send_replace(true);
            }
        });
        Self(asked)
    }

    /// As `asked` says.
    #[cfg(test)]
    pub fn of(asked: watch::Receiver<bool>) -> Self {
        Self(asked)
    }

    /// Whether an end was asked for.
    pub fn asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when an end is asked for.
    pub async fn wait(&self) {
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            pending().await
        }
    }

    /// Sleeps for `time`; false if an end was asked for meanwhile. Not to be called from async code.
    pub fn sleep(&self, time: Duration) -> bool {
        Handle::current().block_on(async { timeout(time, self.wait()).await.is_err() })
    }
}
