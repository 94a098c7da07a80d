//! What a process has used, from `/proc`.

use crate::error::BenchError;

/// Processor time of a process, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// In its own code.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

impl Cpu {
    /// Both together.
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    /// What was used since `before`.
    pub fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}

/// Processor time so far (`proc_pid_stat(5)`, fields 14 and 15).
pub fn cpu(pid: u32) -> Result<Cpu, BenchError> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(BenchError::io(path))?;
    // The name, field 2, is in parentheses and may itself contain spaces.
    let after = text.rsplit_once(") ").map_or("", |(_, after)| after);
    let field = |n: usize| after.split(' ').nth(n).and_then(|v| v.parse::<u64>().ok());
    match (field(11), field(12)) {
        (Some(user), Some(system)) => {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            Ok(Cpu { user: user as f64 / ticks, system: system as f64 / ticks })
        }
        _ => Err(BenchError::Wrong(format!("/proc/{pid}/stat has no processor times"))),
    }
}

/// A memory figure of `/proc/<pid>/status` in MiB: `VmHWM` (peak) or `VmRSS` (now).
pub fn memory(pid: u32, field: &str) -> Result<f64, BenchError> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(BenchError::io(path.clone()))?;
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok())
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| BenchError::Wrong(format!("{path} has no {field}")))
}
