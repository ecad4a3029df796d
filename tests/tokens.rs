//! JSON Web Tokens through real sockets: those of PyJWT and `jose` (tests/peers/tokens.*), with
//! their key sets, and what upstream, client and log get of them.
#![cfg(feature = "jwt")]

mod common;

use common::{Proxy, accept, connect, field, listen, read_all, read_head, request, switching, temp_path};
use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a library prints: `None`, and why, where it is not installed.
fn issued(program: &str) -> Option<Value> {
    let beside_tmp = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    let env = std::env::var_os("PEERS_ENV").map_or_else(beside_tmp, PathBuf::from);
    let (interpreter, file, installed) = match program {
        "PyJWT" => (env.join("python/bin/python"), "tokens.py", env.join("python/bin/python").exists()),
        _ => ("node".into(), "tokens.mjs", env.join("node/node_modules/jose").exists()),
    };
    if !installed {
        assert!(std::env::var_os("CI").is_none(), "with CI set no peer may be missing: {program}");
        eprintln!("SKIPPED: {program} is missing; run tests/peers/setup.sh");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file);
    let output = Command::new(interpreter).arg(script).env("NODE_DIR", env.join("node")).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// A proxy that admits the tokens of an issuer, and its files.
struct Rig {
    proxy: Proxy,
    listener: TcpListener,
    jwks: PathBuf,
}

fn start(issued: &Value) -> Rig {
    let (jwks, secret) = (temp_path("json"), temp_path("key"));
    std::fs::write(&jwks, issued["jwks"].to_string()).unwrap();
    std::fs::write(&secret, issued["secret"].as_str().unwrap().to_owned() + "\n").unwrap();
    let (listener, addr) = listen();
    let more = format!(
        "auth = \"users\"\nscopes = [\"chat\"]\nrequest_headers = {{ set = {{ X-User = \"{{identity}}\" }} }}\n\
         [[auth]]\nname = \"users\"\ntype = \"jwt\"\nfrom = [\"authorization\", \"query:access_token\"]\n\
         issuer = [\"https://issuer\"]\naudience = [\"chat\"]\n\
         keys = [{{ jwks = {jwks:?} }}, {{ secret_file = {secret:?}, kid = \"shared\" }}]\n[log]\naccess = \"stdout\"\n"
    );
    Rig { proxy: Proxy::before(addr, &more), listener, jwks }
}

impl Rig {
    /// The whole answer to a token that reaches no upstream.
    fn refused(&self, token: &str) -> String {
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/chat", &bearer(token)).as_bytes()).unwrap();
        String::from_utf8(read_all(&client).0).unwrap()
    }

    /// The heads that the upstream and the client get.
    fn admitted(&self, path: &str, more: &str) -> (String, String) {
        let mut client = connect(self.proxy.addr);
        client.write_all(request(path, more).as_bytes()).unwrap();
        let mut upstream = accept(&self.listener);
        let sent = read_head(&upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        (sent, read_head(&client))
    }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn texts(object: &Value) -> Vec<(&str, &str)> {
    object.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

#[test]
fn tokens_of_other_libraries_admit_and_hostile_ones_do_not() {
    for program in ["PyJWT", "jose"] {
        let Some(issued) = issued(program) else { continue };
        let mut rig = start(&issued);
        assert_eq!(texts(&issued["tokens"]).len(), 12);
        for (algorithm, token) in texts(&issued["tokens"]) {
            let (sent, answer) = rig.admitted("/chat", &(bearer(token) + "X-User: root\r\n"));
            assert!(answer.starts_with("HTTP/1.1 101 "), "{program} {algorithm}: {answer}");
            assert!(sent.contains("\r\nX-User: alice\r\n") && !sent.contains("root"), "{sent}");
        }
        for (what, token) in texts(&issued["hostile"]) {
            let answer = rig.refused(token);
            assert!(answer.starts_with("HTTP/1.1 401 "), "{program} {what}: {answer}");
            assert!(answer.contains("\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n"), "{answer}");
            assert!(answer.contains("\r\n\r\nThe credentials are not valid."), "{program} {what}: {answer}");
        }
        let answer = rig.refused(issued["expired"].as_str().unwrap());
        assert!(answer.contains("The credentials have expired.") && answer.contains("invalid_token"), "{answer}");
        let lines = rig.proxy.stop();
        let ended = |cause: &str| lines.iter().filter(|line| line.contains(cause)).count();
        assert_eq!(ended("bad-credentials"), texts(&issued["hostile"]).len());
        assert_eq!(ended("credentials-expired"), 1, "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("eyJ")), "no token in the log");
    }
}

#[test]
fn a_token_in_the_query_reaches_neither_upstream_nor_log() {
    let Some(issued) = issued("PyJWT") else { return };
    let mut rig = start(&issued);
    let token = issued["tokens"]["EdDSA"].as_str().unwrap();
    let (sent, answer) = rig.admitted(&format!("/chat?room=1&access_token={token}"), "");
    assert!(sent.starts_with("GET /chat?room=1 HTTP/1.1\r\n") && answer.starts_with("HTTP/1.1 101 "), "{sent}{answer}");
    let line = rig.proxy.log.wait_for(" open ");
    assert_eq!(field(&line, "user"), Some("alice"));
    assert!(rig.refused("").starts_with("HTTP/1.1 401 "));
    let lines = rig.proxy.stop();
    assert!(lines.iter().any(|line| line.contains("access_token=***")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains(token)), "{lines:#?}");
}

#[test]
fn a_reload_reads_the_key_files_again_or_refuses_them() {
    let Some(issued) = issued("PyJWT") else { return };
    let Some(others) = self::issued("PyJWT") else { return };
    let rig = start(&issued);
    let (ours, theirs) = (issued["tokens"]["RS256"].as_str().unwrap(), others["tokens"]["RS256"].as_str().unwrap());
    assert!(rig.refused(theirs).starts_with("HTTP/1.1 401 "));
    std::fs::write(&rig.jwks, "{\"keys\":[]}").unwrap();
    rig.proxy.signal("HUP");
    let line = rig.proxy.said.wait_for("reload failed");
    assert!(line.contains("auth.keys: ") && line.contains("has no key for signatures"), "{line}");
    rig.admitted("/chat", &bearer(ours));
    std::fs::write(&rig.jwks, others["jwks"].to_string()).unwrap();
    rig.proxy.signal("HUP");
    rig.proxy.said.wait_for("configuration reloaded");
    assert!(rig.refused(ours).starts_with("HTTP/1.1 401 "));
    let (_, answer) = rig.admitted("/chat", &bearer(theirs));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}
