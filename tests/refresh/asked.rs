//! New credentials about which others are asked: the session goes on meanwhile, whatever they do.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::net::Shutdown;
use std::time::Duration;

/// Fetches of a key set are ten seconds apart.
const FETCH_PAUSE: Duration = Duration::from_millis(10_500);

struct Rig {
    proxy: Proxy,
    upstream: TcpListener,
    server: TcpListener,
}

const INTROSPECTION: &str = "type = \"introspection\"\nurl = \"{url}/introspect\"\nttl = \"0s\"\nnegative_ttl = \"0s\"";
const FORWARD: &str = "type = \"forward\"\nurl = \"{url}/auth\"\nidentity_header = \"X-User\"";

/// A route whose clients are known to the server that the test plays.
fn start(section: &str) -> Rig {
    let ((upstream, addr), (server, server_addr)) = (listen(), listen());
    let section = section.replace("{url}", &format!("http://{server_addr}"));
    let route = format!("auth = \"sso\"\ncredentials = {{ refresh = \"AUTH *\"{TOLD} }}");
    let more = format!("{route}\n[[auth]]\nname = \"sso\"\n{section}\n[log]\naccess = \"stdout\"");
    Rig { proxy: Proxy::alone_before(addr, &more), upstream, server }
}

/// Says that a token is of `subject`, and for how long.
fn active(subject: &str, seconds: u64) -> String {
    let body = format!("{{\"active\":true,\"sub\":\"{subject}\",\"exp\":{}}}", unix_ms() / 1_000 + seconds);
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

impl Rig {
    /// The server is asked: its connection, and what it has got.
    #[track_caller]
    fn asked(&self) -> (TcpStream, String) {
        let stream = accept(&self.server);
        let head = read_head(&stream);
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
        let body = String::from_utf8(read_exact(&stream, length)).unwrap();
        (stream, head + &body)
    }

    /// An established session whose credentials the server has admitted with this response.
    #[track_caller]
    fn open(&self, response: &str) -> (TcpStream, TcpStream) {
        let mut client = connect(self.proxy.addr);
        client.write_all(request("/room?a=1", &bearer("first")).as_bytes()).unwrap();
        let (stream, asked) = self.asked();
        assert!(asked.contains("first"), "{asked}");
        answer(stream, response);
        let mut upstream = accept(&self.upstream);
        read_head(&upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
        (client, upstream)
    }
}

fn answer(mut stream: TcpStream, response: &str) {
    stream.write_all(response.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Another one may be judged now.
fn a_second() {
    let begun = Instant::now();
    eventually("a second", || (begun.elapsed() > Duration::from_millis(1_050)).then_some(()));
}

#[test]
fn a_slow_server_does_not_delay_the_session_and_its_answer_counts() {
    let rig = start(INTROSPECTION);
    let (mut client, mut upstream) = rig.open(&active("ada", 4));
    let first_ends = Instant::now() + Duration::from_secs(4);
    send(&mut client, "AUTH second token");
    let (stream, asked) = rig.asked();
    assert!(asked.ends_with("token=second%20token&token_type_hint=access_token"), "{asked}");
    // Others are not judged while this one is, and the session goes on.
    a_second();
    send(&mut client, "AUTH third");
    for _ in 0..3 {
        echo(&mut client, &mut upstream);
    }
    counted(&rig.proxy, "excess", 1.0);
    answer(stream, &active("ada", 60));
    hears(&client, "welcome");
    eventually("the first end", || (Instant::now() > first_ends + Duration::from_millis(500)).then_some(()));
    echo(&mut client, &mut upstream);
}

#[test]
fn a_server_that_fails_changes_nothing() {
    let rig = start(&format!("{INTROSPECTION}\ntimeout = \"500ms\""));
    let (mut client, mut upstream) = rig.open(&active("ada", 60));
    let inactive = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"active\":false}";
    // Not at all, half, an error, no.
    for response in [None, Some("HTTP/1.1 200 OK\r\nContent-Le"), Some("HTTP/1.1 500 E\r\n\r\n"), Some(inactive)] {
        send(&mut client, "AUTH x");
        let (stream, _) = rig.asked();
        let stream = match response {
            None => Some(stream),
            Some(response) => {
                answer(stream, response);
                None
            }
        };
        hears(&client, "no");
        drop(stream);
        echo(&mut client, &mut upstream);
        a_second();
    }
    // It is gone.
    let Rig { proxy, server, .. } = rig;
    drop(server);
    send(&mut client, "AUTH x");
    hears(&client, "no");
    echo(&mut client, &mut upstream);
    counted(&proxy, "refused", 5.0);
}

#[test]
fn who_the_server_names_must_be_the_same_client() {
    let rig = start(INTROSPECTION);
    let (mut client, upstream) = rig.open(&active("ada", 60));
    send(&mut client, "AUTH x");
    answer(rig.asked().0, &active("eve", 60));
    ends_with(&client, &upstream, (4403, "other credentials"));
}

#[test]
fn an_answer_for_a_session_that_is_over_is_not_waited_for() {
    let rig = start(INTROSPECTION);
    let (mut client, upstream) = rig.open(&active("ada", 60));
    send(&mut client, "AUTH x");
    let (stream, _) = rig.asked();
    reset(client);
    // The call goes with the session.
    assert_eq!(read_all(&stream).0, b"");
    drop(upstream);
    let cancelled = "framegate_auth_questions_total{auth=\"sso\",result=\"cancelled\"}";
    eventually("the call is cancelled", || (rig.proxy.metric(cancelled) == 1.0).then_some(()));
}

#[test]
fn an_authorization_server_gets_it_as_a_bearer_token() {
    let rig = start(FORWARD);
    let admitted = |user: &str| format!("HTTP/1.1 204 No Content\r\nX-User: {user}\r\n\r\n");
    let (mut client, mut upstream) = rig.open(&admitted("ada"));
    send(&mut client, "AUTH second\r\nX-Evil: 1");
    hears(&client, "no");
    a_second();
    send(&mut client, "AUTH second");
    let (stream, asked) = rig.asked();
    assert!(asked.contains("\r\nAuthorization: Bearer second\r\n"), "{asked}");
    assert!(asked.contains("\r\nX-Forwarded-Uri: /room?a=1\r\n"), "{asked}");
    answer(stream, &admitted("ada"));
    hears(&client, "welcome");
    echo(&mut client, &mut upstream);
    a_second();
    send(&mut client, "AUTH third");
    answer(rig.asked().0, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    hears(&client, "no");
    a_second();
    send(&mut client, "AUTH fourth");
    answer(rig.asked().0, &admitted("eve"));
    ends_with(&client, &upstream, (4403, "other credentials"));
}

#[cfg(feature = "basic")]
#[test]
fn passwords_are_verified_while_the_session_goes_on() {
    use base64::engine::general_purpose::STANDARD;
    let file = temp_path("htpasswd");
    let hash = |password: &str| bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string();
    std::fs::write(&file, format!("ada:{}\neve:{}\n", hash("open sesame"), hash("x"))).unwrap();
    let (listener, addr) = listen();
    let route = format!("auth = \"staff\"\ncredentials = {{ refresh = \"AUTH *\"{TOLD} }}");
    let auth = format!("[[auth]]\nname = \"staff\"\ntype = \"basic\"\nfile = {file:?}");
    let proxy = Proxy::before(addr, &format!("{route}\n{auth}"));
    let login = |login: &str| STANDARD.encode(login);
    let first = format!("Authorization: Basic {}\r\n", login("ada:open sesame"));
    let (mut client, mut upstream) = open_with(&proxy, &listener, &first);
    for (shown, told) in [("ada:wrong", "no"), ("carol:x", "no"), ("ada:open sesame", "welcome")] {
        send(&mut client, &format!("AUTH {}", login(shown)));
        hears(&client, told);
        echo(&mut client, &mut upstream);
        a_second();
    }
    send(&mut client, &format!("AUTH {}", login("eve:x")));
    ends_with(&client, &upstream, (4403, "other credentials"));
}

#[test]
fn a_token_with_a_new_key_is_worth_a_fetch() {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    let pairs = ["old", "new"].map(|id| (id, Ed25519KeyPair::generate().unwrap()));
    let set = |count: usize| {
        let jwk = |(id, pair): &(&str, Ed25519KeyPair)| {
            let x = URL_SAFE_NO_PAD.encode(pair.public_key());
            format!("{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"{id}\",\"x\":\"{x}\"}}")
        };
        format!("{{\"keys\":[{}]}}", pairs[..count].iter().map(jwk).collect::<Vec<_>>().join(","))
    };
    let token = |(id, pair): &(&str, Ed25519KeyPair)| {
        let claims = format!("{{\"sub\":\"ada\",\"exp\":{}}}", in_seconds(300));
        let head = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{id}\"}}");
        let message = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
    };
    let ((listener, addr), (issuer, issuer_addr)) = (listen(), listen());
    let serve = |keys: String| {
        let stream = accept(&issuer);
        read_head(&stream);
        answer(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()));
    };
    let route = format!("auth = \"users\"\ncredentials = {{ refresh = \"AUTH *\"{TOLD} }}");
    let auth = format!("[[auth]]\nname = \"users\"\ntype = \"jwt\"\njwks_url = \"http://{issuer_addr}/keys\"");
    let proxy = std::thread::scope(|scope| {
        let first = scope.spawn(|| serve(set(1)));
        let proxy = Proxy::before(addr, &format!("{route}\n{auth}"));
        first.join().unwrap();
        proxy
    });
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token(&pairs[0])));
    // A new key is not asked for a moment after the last fetch.
    let begun = Instant::now();
    eventually("a fetch is worth it again", || (begun.elapsed() > FETCH_PAUSE).then_some(()));
    send(&mut client, &format!("AUTH {}", token(&pairs[1])));
    let stream = accept(&issuer);
    read_head(&stream);
    echo(&mut client, &mut upstream);
    let keys = set(2);
    answer(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{keys}", keys.len()));
    hears(&client, "welcome");
    echo(&mut client, &mut upstream);
}
