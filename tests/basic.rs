//! Users with passwords through real sockets: who gets in, what the log has of it, and what happens
//! when more passwords come than can be verified.
#![cfg(feature = "basic")]

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Proxy, accept, connect, field, listen, read_all, read_head, request, switching, temp_path};
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Instant;

struct Rig {
    proxy: Proxy,
    listener: TcpListener,
    file: PathBuf,
}

fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash_with_salt(password, cost, [7; 16]).unwrap().to_string()
}

fn start(users: &str) -> Rig {
    let file = temp_path("htpasswd");
    std::fs::write(&file, users).unwrap();
    let (listener, addr) = listen();
    let auth = "auth = \"staff\"\nrequest_headers = { set = { X-User = \"{identity}\" } }\n[[auth]]\nname = \"staff\"";
    let more =
        format!("{auth}\ntype = \"basic\"\nfile = {file:?}\nrealm = \"The staff\"\n[log]\naccess = \"stdout\"\n");
    Rig { proxy: Proxy::before(addr, &more), listener, file }
}

fn basic(login: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(login))
}

impl Rig {
    fn refused(&self, fields: &str) -> String {
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/", fields).as_bytes()).unwrap();
        String::from_utf8(read_all(&client).0).unwrap()
    }

    /// What the upstream gets, and how long that took.
    fn admitted(&self, fields: &str) -> (String, f64) {
        let begun = Instant::now();
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/", fields).as_bytes()).unwrap();
        let mut upstream = accept(&self.listener);
        let sent = read_head(&upstream);
        let took = begun.elapsed().as_secs_f64();
        upstream.write_all(switching("").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
        (sent, took)
    }
}

#[test]
fn passwords_admit_and_everything_else_is_401() {
    let mut rig = start(&format!("alice:{}\nbob:{}\n", hash("open sesame", 4), hash("x", 4)));
    for fields in [
        String::new(),
        basic("alice:s3cret"),
        basic("alice:x"),
        basic("bob:open sesame"),
        basic("carol:s3cret"),
        basic("alice"),
        basic(""),
        "Authorization: Basic s3cret!\r\n".to_owned(),
        "Authorization: Bearer s3cret\r\n".to_owned(),
        basic("alice:open sesame") + &basic("alice:open sesame"),
    ] {
        let answer = rig.refused(&fields);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{fields}: {answer}");
        let challenge = "\r\nWWW-Authenticate: Basic realm=\"The staff\", charset=\"UTF-8\"\r\n";
        assert!(answer.contains(challenge), "{answer}");
    }
    let (sent, _) = rig.admitted(&(basic("alice:open sesame") + "X-User: root\r\n"));
    assert!(sent.contains("\r\nX-User: alice\r\n") && !sent.contains("root"), "{sent}");
    let line = rig.proxy.log.wait_for(" open ");
    assert_eq!(field(&line, "user"), Some("alice"));
    for line in rig.proxy.stop().iter().chain(&rig.proxy.said.all()) {
        assert!(!line.contains("s3cret") && !line.contains("sesame") && !line.contains("$2"), "{line}");
    }
}

#[test]
fn results_are_remembered_and_a_reload_reads_the_file_again() {
    // Cost 12 takes a quarter of a second.
    let rig = start(&format!("alice:{}\n", hash("open", 12)));
    let (_, first) = rig.admitted(&basic("alice:open"));
    let (_, second) = rig.admitted(&basic("alice:open"));
    assert!(first > 0.1 && second < first / 2.0, "{first} {second}");
    std::fs::write(&rig.file, "alice:plain\n").unwrap();
    rig.proxy.signal("HUP");
    let line = rig.proxy.said.wait_for("reload failed");
    assert!(line.contains("auth.file: ") && line.contains("line 1: is neither bcrypt nor argon2"), "{line}");
    rig.admitted(&basic("alice:open"));
    std::fs::write(&rig.file, format!("alice:{}\n", hash("shut", 4))).unwrap();
    rig.proxy.signal("HUP");
    rig.proxy.said.wait_for("configuration reloaded");
    assert!(rig.refused(&basic("alice:open")).starts_with("HTTP/1.1 401 "));
    rig.admitted(&basic("alice:shut"));
}

#[test]
fn a_full_queue_is_503_and_the_loop_goes_on() {
    let rig = start(&format!("alice:{}\n", hash("open", 12)));
    let mut clients = Vec::new();
    for n in 0..100 {
        let mut client = connect(rig.proxy.addr);
        client.write_all(request("/", &basic(&format!("alice:guess{n}"))).as_bytes()).unwrap();
        clients.push(client);
    }
    // What needs no password is answered at once, while the thread is busy.
    let begun = Instant::now();
    assert!(rig.refused("").starts_with("HTTP/1.1 401 "));
    let waited = begun.elapsed();
    let answers: Vec<_> = clients.iter().map(|client| String::from_utf8(read_all(client).0).unwrap()).collect();
    let busy: Vec<_> = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 503 ")).collect();
    // 64 wait, one is verified; a fast machine has verified some by then.
    assert!((1..=35).contains(&busy.len()), "{} of {}", busy.len(), answers.len());
    assert!(busy.iter().all(|answer| answer.contains("\r\nRetry-After: 5\r\n")), "{busy:?}");
    assert!(waited.as_secs_f64() < 1.0, "{waited:?}");
}
