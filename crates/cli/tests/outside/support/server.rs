//! The binary as a process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::http::{Answer, Http};
use super::{DEADLINE, answers};

/// The binary, with nothing in its environment that would change what it does.
pub fn lacuna<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lacuna"));
    for name in ["LACUNA_DATA", "LACUNA_CONTRACTS", "LACUNA_LOG"] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    lacuna(args).output().unwrap()
}

/// How a server is started: on ports that the system chooses.
pub struct Serve {
    args: Vec<OsString>,
}

impl Serve {
    pub fn on(data: &Path) -> Self {
        let ports = ["--otlp-grpc", "0", "--otlp-http", "0", "--query", "0"];
        let args = ["serve", "--data"].map(OsString::from).into_iter();
        let args = args.chain([data.into()]).chain(ports.map(OsString::from));
        Self { args: args.collect() }
    }

    pub fn contracts(mut self, dir: &Path) -> Self {
        self.args.extend(["--contracts".into(), dir.into()]);
        self
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    /// Another port for one of `--otlp-grpc`, `--otlp-http` and `--query`.
    pub fn port(mut self, flag: &str, port: &str) -> Self {
        let at = self.args.iter().position(|arg| arg == flag).unwrap();
        self.args[at + 1] = port.into();
        self
    }

    /// Runs it to its end: for a server that must not start.
    pub fn fail(self) -> Output {
        // One that does start after all is ended, so that its test fails instead of hanging.
        let mut child =
            lacuna(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (done, ended) = channel();
        let pid = rustix::process::Pid::from_child(&child);
        std::thread::spawn(move || {
            if ended.recv_timeout(DEADLINE).is_err() {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        });
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        child.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
        child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        let status = child.wait().unwrap();
        done.send(()).unwrap();
        Output { status, stdout, stderr }
    }

    /// Starts it and kills it after `time`, wherever it is then.
    pub fn kill_after(self, time: std::time::Duration) {
        let mut child =
            lacuna(&self.args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(time);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it and waits until it says `ready`.
    pub fn start(self) -> Server {
        let mut child =
            lacuna(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (say, said) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if say.send(line).is_err() {
                    return;
                }
            }
        });
        let mut server = Server {
            child,
            log,
            grpc: String::new(),
            otlp: String::new(),
            query: String::new(),
            http: Http::new(),
        };
        server.read_addresses(&said);
        server
    }
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    log: Arc<Mutex<String>>,
    /// `http://ADDRESS` of OTLP/gRPC.
    pub grpc: String,
    /// `http://ADDRESS` of OTLP/HTTP.
    pub otlp: String,
    /// `http://ADDRESS` of the query APIs.
    pub query: String,
    pub http: Http,
}

impl Server {
    fn read_addresses(&mut self, said: &Receiver<String>) {
        loop {
            let Ok(line) = said.recv_timeout(DEADLINE) else {
                panic!("the server did not get ready:\n{}", self.log());
            };
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["OTLP/gRPC", addr] => self.grpc = format!("http://{addr}"),
                ["OTLP/HTTP", url] => self.otlp = url.to_owned(),
                ["queries", url] => self.query = url.to_owned(),
                ["contracts", count] => assert!(count.parse::<u32>().is_ok(), "{line}"),
                ["ready"] => break,
                _ => panic!("unexpected line on standard output: {line}"),
            }
        }
        assert!(![&self.grpc, &self.otlp, &self.query].into_iter().any(String::is_empty));
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as Ctrl-C or a service manager does.
    pub async fn stop(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        // Clients must be able to answer while it says goodbye to them.
        tokio::task::spawn_blocking(move || self.child.wait().unwrap()).await.unwrap()
    }

    /// A query.
    pub async fn get(&self, path: &str) -> Answer {
        self.http.get(&format!("{}{path}", self.query)).await
    }

    /// A query that must succeed.
    pub async fn json(&self, path: &str) -> Value {
        self.get(path).await.ok().json()
    }

    /// An OTLP/HTTP request to `/v1/{signal}`.
    pub async fn send(&self, signal: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        self.http.post(&format!("{}/v1/{signal}", self.otlp), headers, body).await
    }

    /// A figure of `/metrics`, 0 if it is not there; `series` is written as it is exposed.
    pub async fn metric(&self, series: &str) -> f64 {
        answers::metric(&self.get("/metrics").await.ok().text(), series)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}
