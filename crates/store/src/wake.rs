//! Telling a background thread that there is something to do.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

#[derive(Default)]
struct Flags {
    work: bool,
    closing: bool,
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy)]
pub struct Woken {
    /// Nobody asked for anything.
    pub idle: bool,
    /// The thread is to end.
    pub closing: bool,
}

/// A flag that a thread waits for.
#[derive(Default)]
pub struct Wake {
    flags: Mutex<Flags>,
    changed: Condvar,
}

impl Wake {
    /// There is something to do.
    pub fn wake(&self) {
        let mut flags = self.flags.lock();
        if !flags.work {
            flags.work = true;
            self.changed.notify_all();
        }
    }

    /// The thread is to end.
    pub fn close(&self) {
        self.flags.lock().closing = true;
        self.changed.notify_all();
    }

    /// Whether the thread is to end.
    pub fn is_closing(&self) -> bool {
        self.flags.lock().closing
    }

    /// Waits until there is something to do or `timeout` has passed.
    pub fn wait(&self, timeout: Duration) -> Woken {
        let mut flags = self.flags.lock();
        if !flags.work && !flags.closing {
            self.changed.wait_for(&mut flags, timeout);
        }
        let idle = !std::mem::take(&mut flags.work);
        Woken { idle, closing: flags.closing }
    }

    /// Waits out `pause` unless the thread is to end. `false`: end.
    pub fn pause(&self, pause: Duration) -> bool {
        let mut flags = self.flags.lock();
        if !flags.closing {
            self.changed.wait_while_for(&mut flags, |flags| !flags.closing, pause);
        }
        !flags.closing
    }
}
