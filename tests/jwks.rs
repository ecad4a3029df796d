//! Key sets behind a URL: fetched before the process is ready, kept when the issuer fails, fetched
//! again for new keys at a bounded rate. The issuer is a server of this file that also stalls,
//! drips, redirects and never ends.
#![cfg(feature = "jwt")]

mod common;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::pki::PKI;
use common::{Proxy, connect, eventually, listen, read_all, read_head, request, shim, switching};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the issuer does with a request.
#[derive(Clone, Debug)]
enum Mode {
    Answer(String),
    Status(&'static str),
    /// Never answers.
    Stall,
    /// One byte of its answer in 200 ms.
    Drip(String),
    /// 10 MiB, with a key set at the front.
    Endless(String),
    /// To a place that would answer.
    Redirect(SocketAddr),
    /// Closes in the middle of the answer.
    Cut(String),
}

struct Issuer {
    addr: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    /// When its requests came.
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Issuer {
    fn start(mode: Mode) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer =
            Issuer { addr: listener.local_addr().unwrap(), mode: Arc::new(Mutex::new(mode)), asked: Arc::default() };
        let (mode, asked) = (Arc::clone(&issuer.mode), Arc::clone(&issuer.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (mode, asked) = (mode.lock().unwrap().clone(), Arc::clone(&asked));
                std::thread::spawn(move || answer(&stream, mode, &asked));
            }
        });
        issuer
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(mut stream: &TcpStream, mode: Mode, asked: &Mutex<Vec<Instant>>) {
    let begins = |line: std::io::Result<String>| line.is_ok_and(|line| line.starts_with("GET /keys HTTP/1.1"));
    let mut lines = BufReader::new(stream).lines();
    // In front of it a TLS handshake may have failed: then nothing comes.
    if !lines.next().is_some_and(begins) || !lines.any(|line| line.is_ok_and(|line| line.is_empty())) {
        return;
    }
    asked.lock().unwrap().push(Instant::now());
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    // The proxy may have had enough: a write that fails is what most of these are for.
    let _ = match mode {
        Mode::Answer(body) => stream.write_all((head(body.len()) + &body).as_bytes()),
        Mode::Status(status) => {
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
        }
        Mode::Stall => {
            read_all(stream);
            Ok(())
        }
        Mode::Drip(body) => (head(body.len()) + &body).bytes().try_for_each(|byte| {
            std::thread::sleep(Duration::from_millis(200));
            stream.write_all(&[byte])
        }),
        Mode::Endless(body) => {
            let spaces = " ".repeat((10 << 20) - body.len());
            stream.write_all((head(10 << 20) + &body + &spaces).as_bytes())
        }
        Mode::Redirect(to) => stream.write_all(
            format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/keys\r\nContent-Length: 0\r\n\r\n").as_bytes(),
        ),
        Mode::Cut(body) => stream.write_all((head(body.len()) + &body[..body.len() / 2]).as_bytes()),
    };
}

/// A key with its id.
struct Key {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Key {
    fn new(id: &'static str) -> Key {
        Key { id, pair: Ed25519KeyPair::generate().unwrap() }
    }

    fn token(&self) -> String {
        let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
        let base64 = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = base64(json!({ "alg": "EdDSA", "kid": self.id }).to_string());
        let message = format!("{header}.{}", base64(json!({ "sub": "alice", "exp": exp }).to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
    }
}

fn jwks(keys: &[&Key]) -> String {
    let jwk = |key: &&Key| {
        let x = URL_SAFE_NO_PAD.encode(key.pair.public_key().as_ref());
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.id, "alg": "EdDSA" })
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() }).to_string()
}

struct Rig {
    proxy: Proxy,
    listener: TcpListener,
}

fn start(url: &str, more: &str) -> Rig {
    let (listener, addr) = listen();
    listener.set_nonblocking(true).unwrap();
    let auth = format!("auth = \"users\"\n[[auth]]\nname = \"users\"\ntype = \"jwt\"\njwks_url = \"{url}\"\n{more}\n");
    Rig { proxy: Proxy::alone_before(addr, &format!("{auth}[log]\naccess = \"stdout\"\n")), listener }
}

fn url(issuer: &Issuer) -> String {
    format!("http://{}/keys", issuer.addr)
}

impl Rig {
    /// The status that a token gets; 101 if it reaches the upstream.
    fn status(&self, token: &str) -> u16 {
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/", &format!("Authorization: Bearer {token}\r\n")).as_bytes()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        // Either the upstream gets a connection, or the client an answer.
        let status = |head: &str| head.split(' ').nth(1).and_then(|word| word.parse().ok());
        eventually("an answer or a connection", || {
            if let Ok((mut upstream, _)) = self.listener.accept() {
                upstream.set_nonblocking(false).unwrap();
                read_head(&upstream);
                upstream.write_all(switching("").as_bytes()).unwrap();
                return Some(());
            }
            client.peek(&mut [0]).ok().map(drop)
        });
        client.set_read_timeout(Some(common::PATIENCE)).unwrap();
        status(&read_head(&client)).unwrap()
    }
}

#[test]
fn keys_come_before_ready_and_new_ones_are_noticed_at_a_bounded_rate() {
    let (old, new, unknown) = (Key::new("old"), Key::new("new"), Key::new("made-up"));
    let issuer = Issuer::start(Mode::Answer(jwks(&[&old])));
    let rig = start(&url(&issuer), "");
    assert_eq!((issuer.asked(), rig.status(&old.token())), (1, 101), "the first request after ready");
    issuer.set(Mode::Answer(jwks(&[&new])));
    for _ in 0..20 {
        assert_eq!(rig.status(&unknown.token()), 401);
    }
    eventually("the new key is known", || (rig.status(&new.token()) == 101).then_some(()));
    for _ in 0..20 {
        assert_eq!(rig.status(&unknown.token()), 401);
    }
    assert_eq!(rig.status(&old.token()), 401, "a key that the issuer has withdrawn");
    let asked = issuer.asked.lock().unwrap().clone();
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(9_900), "{:?}", pair[1] - pair[0]);
    }
    assert_eq!(asked.len(), 2);
    rig.proxy.said.wait_for(": 1 keys from http://");
}

/// Each failure in a proxy of its own, because fetches are ten seconds apart.
#[test]
fn an_issuer_that_fails_leaves_the_keys_as_they_are() {
    let (key, other) = (Key::new("a"), Key::new("b"));
    let forged = jwks(&[&other]);
    let elsewhere = Issuer::start(Mode::Answer(forged.clone()));
    let modes = [
        Mode::Status("500 Internal Server Error"),
        Mode::Status("404 Not Found"),
        Mode::Stall,
        Mode::Drip(forged.clone()),
        Mode::Endless(forged.clone()),
        Mode::Redirect(elsewhere.addr),
        Mode::Cut(forged.clone()),
        Mode::Answer("<html>login</html>".to_owned()),
        Mode::Answer("{\"keys\":[]}".to_owned()),
        Mode::Answer("{\"keys\":[{\"kty\":\"oct\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}".to_owned()),
    ];
    std::thread::scope(|scope| {
        for mode in modes {
            let (key, other) = (&key, &other);
            scope.spawn(move || {
                let issuer = Issuer::start(Mode::Answer(jwks(&[key])));
                let mut rig = start(&url(&issuer), "");
                issuer.set(mode.clone());
                let failures = "framegate_jwks_failures_total{auth=\"users\"}";
                eventually("a fetch fails", || {
                    assert_eq!(rig.status(&other.token()), 401, "{mode:?}");
                    (rig.proxy.metric(failures) == 1.0).then_some(())
                });
                assert_eq!(rig.status(&key.token()), 101, "{mode:?}");
                assert_eq!(rig.proxy.metric("framegate_jwks_keys{auth=\"users\"}"), 1.0);
                assert!(rig.proxy.metric("framegate_jwks_age_seconds{auth=\"users\"}") >= 9.0);
                let line = rig.proxy.said.wait_for("cannot fetch");
                assert!(line.contains(" http://127.0.0.1:") && line.contains(", keeping 1 keys, "), "{line}");
                rig.proxy.stop();
            });
        }
    });
    assert_eq!(elsewhere.asked(), 0, "no redirect is followed");
}

#[test]
fn without_keys_tokens_are_refused_until_they_come() {
    let key = Key::new("a");
    let issuer = Issuer::start(Mode::Stall);
    let rig = start(&url(&issuer), "");
    assert_eq!(rig.status(&key.token()), 503);
    assert_eq!(rig.status("x.y.z"), 401, "what is no token needs no keys");
    let line = rig.proxy.log.wait_for("keys-unavailable");
    assert!(line.contains("503"), "{line}");
    rig.proxy.said.wait_for("there are no keys yet");
    issuer.set(Mode::Answer(jwks(&[&key])));
    eventually("the keys have come", || (rig.status(&key.token()) == 101).then_some(()));
}

#[test]
fn a_reload_keeps_the_keys_of_a_url_and_fetches_those_of_another() {
    let (key, other) = (Key::new("a"), Key::new("b"));
    let issuer = Issuer::start(Mode::Answer(jwks(&[&key])));
    let second = Issuer::start(Mode::Answer(jwks(&[&other])));
    let rig = start(&url(&issuer), "");
    issuer.set(Mode::Status("500 Internal Server Error"));
    let text = std::fs::read_to_string(&rig.proxy.config).unwrap();
    std::fs::write(&rig.proxy.config, text.replace("type = \"jwt\"", "type = \"jwt\"\nleeway = \"10s\"")).unwrap();
    rig.proxy.signal("HUP");
    rig.proxy.said.wait_for("configuration reloaded");
    assert_eq!((rig.status(&key.token()), issuer.asked()), (101, 1));
    std::fs::write(&rig.proxy.config, text.replace(&url(&issuer), &url(&second))).unwrap();
    rig.proxy.signal("HUP");
    eventually("the other URL", || (rig.status(&other.token()) == 101).then_some(()));
    assert_eq!(rig.status(&key.token()), 401);
    assert_eq!((issuer.asked(), second.asked()), (1, 1));
}

#[test]
fn keys_come_over_tls_from_who_the_authority_names_alone() {
    let key = Key::new("a");
    let issuer = Issuer::start(Mode::Answer(jwks(&[&key])));
    let secured = format!("https://localhost:{}/keys", shim::before_plain(issuer.addr).port());
    let rig = start(&secured, &format!("jwks_ca = {:?}", PKI.ca()));
    assert_eq!(rig.status(&key.token()), 101);
    // The authorities of the system do not know it.
    let rig = start(&secured, "");
    assert_eq!(rig.status(&key.token()), 503);
    let line = rig.proxy.said.wait_for("cannot fetch https://localhost:");
    assert!(line.contains("there are no keys yet"), "{line}");
    assert_eq!(issuer.asked(), 1);
}
