//! The binary: standard output, standard error and exit codes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

fn framegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.stdin(Stdio::null());
    command
}

/// Output and errors as text, and the exit code.
fn ran(args: &[&str]) -> (String, String, i32) {
    let output = framegate().args(args).output().expect("framegate starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code().expect("no signal"))
}

/// A file that is removed after the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("framegate-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a file in the temporary folder");
        TempFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn example_config_passes_check() {
    let (example, errors, code) = ran(&["example-config"]);
    assert_eq!((errors.as_str(), code), ("", 0));
    assert_eq!(example, framegate::config::EXAMPLE);
    let file = TempFile::new("example", &example);
    let (told, errors, code) = ran(&["check", "-c", file.path()]);
    assert_eq!((errors.as_str(), code), ("", 0));
    assert!(told.starts_with(&format!("{} is valid.\n\nlistener   0.0.0.0:8080\n", file.path())), "{told}");
    assert!(told.contains("\n  /* -> app, framed, "), "{told}");
    assert!(told.contains("in total\n"), "{told}");
}

#[test]
fn check_reports_every_problem_and_exits_2() {
    let file = TempFile::new("bad", "[[listener]]\nlisten = \"x\"\n[[route]]\nupstream = \"ftp://a\"\n");
    let (told, errors, code) = ran(&["check", "--config", file.path()]);
    assert_eq!((told.as_str(), code), ("", 2));
    let lines: Vec<_> = errors.lines().collect();
    let (name, count) = (file.path(), lines.len());
    assert_eq!(count, 2, "{errors}");
    assert!(lines[0].starts_with(&format!("framegate: {name}:2:10: listener.listen: \"x\" is not a")), "{errors}");
    assert!(lines[1].starts_with(&format!("framegate: {name}:4:12: route.upstream: \"ftp://a\" has")), "{errors}");
}

#[test]
fn usage_errors_are_one_line_on_stderr_and_exit_2() {
    for args in [
        &[] as &[&str],
        &["fly"],
        &["check"],
        &["check", "-c", "/no/such/file.toml"],
        &["run"],
        &["run", "-c", "/no/such/file.toml"],
        &["run", "-c", "x.toml", "--listen", "127.0.0.1:0"],
        &["run", "--listen", "127.0.0.1:0"],
        &["run", "--listen", "8080", "--upstream", "ws://127.0.0.1:9"],
        &["run", "--listen", "127.0.0.1:0", "--upstream", "ftp://127.0.0.1:9"],
        &["demo", "--listen", "nowhere"],
        &["example-config", "more"],
    ] {
        let (told, errors, code) = ran(args);
        assert_eq!((told.as_str(), code), ("", 2), "{args:?}");
        assert!(errors.starts_with("framegate: ") && errors.lines().count() == 1, "{args:?}: {errors}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for command in ["", "demo", "run", "check", "example-config"] {
        let args: Vec<_> = [command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        let (told, errors, code) = ran(&args);
        assert_eq!((errors.as_str(), code), ("", 0), "{command}");
        assert!(told.contains("Usage: framegate") && told.lines().count() <= 24, "{told}");
    }
    let (told, errors, code) = ran(&["--version"]);
    assert_eq!((errors.as_str(), code), ("", 0));
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        told,
        format!(
            "framegate {version}\ntls: rustls 0.23, aws-lc-rs\nfeatures: basic, discovery, files, jwt, redis, regex\n"
        )
    );
}

#[test]
fn closed_stdout_is_not_an_error() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = framegate().arg("example-config").stdout(writer).stderr(Stdio::piped()).output();
    let output = output.expect("framegate starts");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
