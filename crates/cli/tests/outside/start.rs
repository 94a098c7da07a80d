//! Starting: what is said when it cannot be, and to whom a server listens.

use std::path::Path;
use std::process::Output;

use crate::support::server::{Serve, lacuna, run};

const GOOD: &str = r#"contracts:
  - name: taken-then-done
    when:   '{ name = "take" }'
    expect: '{ name = "done" }'
    key:    [span.correlation_id]
    within: 30s
"#;

const BROKEN: &str = r#"contracts:
  - name: taken-then-done
    when:   '{ nmae = "take" }'
    expect: '{ name = "done" && status != eror }'
    key:    [span.correlation_id]
    within: soon
"#;

/// Standard error of a command that must have failed as one that was used wrongly, with `folder`
/// written as `[DIR]`.
#[track_caller]
fn failure(output: &Output, folder: &Path) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(output.stdout, b"", "only results belong to standard output");
    stderr.replace(folder.to_str().unwrap(), "[DIR]")
}

/// The same, of which there must be one line.
#[track_caller]
fn one_line(output: &Output, folder: &Path) -> String {
    let stderr = failure(output, folder);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

/// Scenario: contract files that cannot be used.
/// Guarantees: no start, exit status 2, and for each error file, line, column, the text, and what
/// would be right.
#[test]
fn broken_contracts_are_shown_place_by_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("broken.yaml"), BROKEN).unwrap();
    let data = dir.path().join("data");
    let output = Serve::on(&data).contracts(dir.path()).fail();
    insta::assert_snapshot!("broken_contracts", failure(&output, dir.path()));
    assert!(!data.exists(), "nothing is made before the contracts are read");

    // `contracts check` says the same of the file, and of its folder.
    let file = dir.path().join("broken.yaml");
    for path in [&*file, dir.path()] {
        let check = run(["contracts".as_ref(), "check".as_ref(), path.as_os_str()]);
        assert_eq!(failure(&check, dir.path()), failure(&output, dir.path()));
    }
}

/// Scenario: one file is broken at one place, another repeats a name, a third is not YAML.
/// Guarantees: as above, for every file at once.
#[test]
fn all_files_errors_are_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.yaml", GOOD);
    write("b.yaml", GOOD);
    write("c.yml", "contracts: [\n");
    write("notes.txt", "not a contract");
    let output = Serve::on(&dir.path().join("data")).contracts(dir.path()).fail();
    insta::assert_snapshot!("several_broken_files", failure(&output, dir.path()));
}

#[test]
fn contracts_check_counts_what_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, GOOD).unwrap();
    for path in [&*file, dir.path()] {
        let output = run(["contracts".as_ref(), "check".as_ref(), path.as_os_str()]);
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 contract in 1 file: good\n");
        assert_eq!(output.stderr, b"");
    }
}

/// Scenario: folders that are not there or cannot be.
/// Guarantees: one line that names the path; exit status 2.
#[test]
fn unusable_paths_are_named_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    std::fs::write(path.join("file"), "").unwrap();
    let below = path.join("file/data");
    insta::assert_snapshot!(
        one_line(&Serve::on(&below).fail(), path),
        @"  × [DIR]/file/data: cannot create the folder: Not a directory (os error 20)"
    );
    insta::assert_snapshot!(
        one_line(&Serve::on(&path.join("data")).contracts(&path.join("none")).fail(), path),
        @"  × [DIR]/none: cannot be read: No such file or directory (os error 2) (name a readable contract file, or a folder of *.yaml and *.yml files)"
    );
    let none = path.join("none");
    let export = run(["export".as_ref(), "--data".as_ref(), none.as_os_str()]);
    insta::assert_snapshot!(one_line(&export, path), @"  × [DIR]/none: there is no such data folder");
    assert!(!none.exists(), "reading must not make a folder");
    let check = run(["contracts".as_ref(), "check".as_ref(), none.as_os_str()]);
    insta::assert_snapshot!(one_line(&check, path), @"  × [DIR]/none: cannot be read: No such file or directory (os error 2) (name a readable contract file, or a folder of *.yaml and *.yml files)");
}

/// Guarantees: a server that keeps data for less long than an obligation lasts does not start, and
/// says which.
#[test]
fn a_deadline_beyond_retention_is_told_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let text = "contracts:\n  - name: slow\n    when: '{ name = \"a\" }'\n    expect: '{ name = \"b\" }'\n    \
                key: [span.k]\n    within: 2h\n";
    std::fs::write(path.join("a.yaml"), text).unwrap();
    let serve = || Serve::on(&path.join("data")).contracts(path);
    let stderr = failure(&serve().args(&["--retention-age", "1h"]).fail(), path);
    assert!(stderr.contains("a.yaml:6:"), "{stderr}");
    assert!(stderr.contains("data is kept for 1h"), "{stderr}");
    drop(serve().args(&["--retention-age", "3h"]).start());
}

/// Scenario: a server runs; others want its port, or to change its folder.
/// Guarantees: one line that says what is taken and, for a port, which flag chooses another; exit
/// status 2; the running server is not disturbed.
#[tokio::test]
async fn what_another_process_holds_is_named_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let data = path.join("data");
    let server = Serve::on(&data).start();
    let redact = |line: String| line.replace(&server.pid().to_string(), "[PID]");

    let second = Serve::on(&data).fail();
    insta::assert_snapshot!(redact(one_line(&second, path)), @"  × [DIR]/data: the data folder is in use by another process (pid [PID])");
    let compact = run(["store".as_ref(), "compact".as_ref(), "--data".as_ref(), data.as_os_str()]);
    insta::assert_snapshot!(redact(one_line(&compact, path)), @"  × [DIR]/data: the data folder is in use by another process (pid [PID]): end that, or ask it instead, with `lacuna query … --url http://localhost:16686`, `lacuna import --url http://localhost:4318 …` and its /metrics");

    for (flag, url) in
        [("--otlp-grpc", &server.grpc), ("--otlp-http", &server.otlp), ("--query", &server.query)]
    {
        let addr = url.trim_start_matches("http://");
        let port = addr.rsplit(':').next().unwrap();
        let other = path.join("other");
        let line = one_line(&Serve::on(&other).port(flag, port).fail(), path);
        assert!(line.contains(&format!("cannot listen on {addr}")), "{line}");
        assert!(line.contains("in use"), "{line}");
        assert!(line.contains(&format!("choose another with {flag}")), "{line}");
        assert!(!other.exists(), "nothing is made before the ports are taken");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    assert!(server.stop().await.success());
}

/// Guarantees: wrong use ends with status 2 and a line that says what is wrong, before anything
/// is touched.
#[test]
fn wrong_use_is_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for (args, says) in [
        (&["serve", "--portt", "1"][..], "unexpected argument '--portt'"),
        (&["serve", "--otlp-grpc", "x"], "expected a port such as 4317"),
        (&["serve", "--query", "65536"], "expected a port such as 4317"),
        (&["serve", "--idle", "soon"], "expected a duration such as"),
        (&["serve", "--max-body", "0"], "expected a size such as 512MiB"),
        (&["serve", "--max-decompressed", "4GiB"], "at most 256MiB can be decoded"),
        (&["serve", "--memory-limit", "1MiB"], "at least 64MiB are needed"),
        (&["serve", "--retention-age", "soon"], "expected a duration such as"),
        (&["serve", "--listen", "everywhere"], "'--listen <IP>'"),
        (&["serf"], "unrecognized subcommand 'serf'"),
        (&["contracts", "check"], "<FILE|DIR>"),
        (&["export", "--rows", "0"], "'--rows <ROWS>'"),
        (&[], "Usage: lacuna <COMMAND>"),
    ] {
        let output = lacuna(args).current_dir(dir.path()).output().unwrap();
        let stderr = failure(&output, dir.path());
        assert!(stderr.contains(says), "{args:?} says:\n{stderr}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Guarantees: unless told otherwise, all that listens listens on loopback.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn listens_on_loopback_only() {
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).start();
    let listening = listening(server.pid());
    let mut said: Vec<String> = [&server.grpc, &server.otlp, &server.query]
        .map(|url| url.trim_start_matches("http://").to_owned())
        .into();
    said.sort();
    assert_eq!(listening, said);
    assert!(said.iter().all(|addr| addr.starts_with("127.0.0.1:")), "{said:?}");
}

/// Addresses on which process `pid` listens, from the kernel.
#[cfg(target_os = "linux")]
fn listening(pid: u32) -> Vec<String> {
    use std::net::Ipv4Addr;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let sockets: Vec<String> = descriptors
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.unwrap().path()).ok()?;
            let target = target.to_str()?.strip_prefix("socket:[")?;
            Some(target.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/net/{table}")) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields[1], fields[3], fields[9]);
            if state != "0A" || !sockets.iter().any(|socket| socket == inode) {
                continue;
            }
            let (ip, port) = local.split_once(':').unwrap();
            let port = u16::from_str_radix(port, 16).unwrap();
            // The kernel writes IPv4 addresses as a number of the machine's byte order.
            found.push(match u32::from_str_radix(ip, 16) {
                Ok(ip) => format!("{}:{port}", Ipv4Addr::from(ip.to_ne_bytes())),
                Err(_) => format!("[{ip}]:{port}"),
            });
        }
    }
    found.sort();
    found
}
