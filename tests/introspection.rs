//! Token introspection (RFC 7662) through real sockets: what is asked, which answers admit, how
//! long they are kept, and that everything else fails closed.

mod common;
#[allow(dead_code)] // a part is used
#[path = "ask/rig.rs"]
mod rig;

use common::*;
use rig::{Rig, answer, response};
use std::fmt::Write as _;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ROUTE: &str =
    "auth = \"sso\"\nrequest_headers = { set = { X-User = \"{identity}\", X-Tenant = \"{claim.tenant}\" } }";
const SECTION: &str =
    "type = \"introspection\"\nurl = \"{url}/introspect\"\nfrom = [\"authorization\", \"query:token\"]\n";
/// Each request asks.
const UNKEPT: &str = "ttl = \"0s\"\nnegative_ttl = \"0s\"\n";

fn start(more: &str) -> Rig {
    Rig::start(ROUTE, &format!("{SECTION}{UNKEPT}{more}"))
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The server is asked; its connection, and head and form.
#[track_caller]
fn asked(rig: &Rig) -> (TcpStream, String, String) {
    let (stream, head) = rig.asked();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
    let form = String::from_utf8(read_exact(&stream, length)).unwrap();
    (stream, head, form)
}

fn says(json: &str) -> String {
    response("200 OK\r\nContent-Type: application/json", json)
}

#[track_caller]
fn answers(rig: &Rig, text: &str) {
    answer(asked(rig).0, text);
}

const TOKEN: &str = "Authorization: Bearer s3cret-token\r\n";

#[test]
fn an_active_token_admits_and_says_whose_it_is() {
    let secret = temp_path("secret");
    std::fs::write(&secret, "pa:ss wörd\n").unwrap();
    let mut rig = start(&format!("client_id = \"frame gate\"\nclient_secret_file = {secret:?}\n"));
    // As Keycloak answers.
    let exp = unix_s() + 300;
    let keycloak = format!(
        "{{\"exp\":{exp},\"iat\":{},\"jti\":\"j-1\",\"iss\":\"https://sso/realms/a\",\"aud\":[\"chat\",\"account\"],\
         \"sub\":\"f81d4fae\",\"typ\":\"Bearer\",\"azp\":\"web\",\"acr\":\"1\",\"realm_access\":{{\"roles\":[\"user\"]}},\
         \"scope\":\"openid chat\",\"email_verified\":false,\"tenant\":\"acme\",\"preferred_username\":\"ada\",\
         \"client_id\":\"web\",\"username\":\"ada\",\"active\":true}}",
        exp - 600
    );
    let client = rig.request("/chat?a=1&token=s3cret%2Btoken%26x", "X-User: root\r\n");
    let (stream, head, form) = asked(&rig);
    assert!(head.starts_with("POST /introspect HTTP/1.1\r\n"), "{head}");
    // RFC 6749 section 2.3.1: form-encoded, then Base64 of frame%20gate:pa%3ass%20w%c3%b6rd.
    assert!(head.contains("\r\nAuthorization: Basic ZnJhbWUlMjBnYXRlOnBhJTNhc3MlMjB3JWMzJWI2cmQ=\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/x-www-form-urlencoded\r\n"), "{head}");
    assert_eq!(form, "token=s3cret%2btoken%26x&token_type_hint=access_token");
    answer(stream, &says(&keycloak));
    let sent = rig.admits(&client);
    assert!(sent.starts_with("GET /chat?a=1 HTTP/1.1\r\n") && !sent.contains("s3cret"), "{sent}");
    assert!(sent.contains("\r\nX-User: f81d4fae\r\n") && sent.contains("\r\nX-Tenant: acme\r\n"), "{sent}");
    assert!(!sent.contains("root"), "{sent}");
    assert_eq!(field(&rig.proxy.log.wait_for(" open "), "user"), Some("f81d4fae"));
    let said = rig.proxy.said.all();
    for line in rig.proxy.stop().iter().chain(&said) {
        assert!(!line.contains("s3cret") && !line.contains("pa:ss") && !line.contains("ZnJhbWU"), "{line}");
    }
}

#[test]
fn scopes_roles_issuer_and_audience_decide() {
    let route = format!("{ROUTE}\nscopes = [\"chat\"]\nroles = [\"user\"]");
    let more = "issuer = [\"https://other\", \"https://sso\"]\n\
                audience = [\"chat\", \"other\"]\nroles_claim = \"realm_access.roles\"\n";
    let rig = Rig::start(&route, &format!("{SECTION}{UNKEPT}{more}"));
    let good = "\"active\":true,\"sub\":\"ada\",\"iss\":\"https://sso\",\"aud\":\"chat\",\"scope\":\"a chat\",\
                \"realm_access\":{\"roles\":[\"user\"]}";
    for (from, to, status) in [
        ("", "", 101),
        ("\"chat\"", "[\"x\",\"other\"]", 101),
        ("\"aud\":\"chat\"", "\"aud\":\"chats\"", 401),
        ("\"aud\":\"chat\"", "\"aud\":[]", 401),
        ("\"aud\":\"chat\",", "", 401),
        ("https://sso", "https://sso/", 401),
        ("\"iss\":\"https://sso\",", "", 401),
        ("a chat", "a chats", 403),
        ("\"scope\":\"a chat\",", "", 403),
        ("[\"user\"]", "\"user\"", 101),
        ("[\"user\"]", "[\"users\"]", 403),
        ("[\"user\"]", "{\"user\":true}", 403),
    ] {
        let client = rig.request("/", TOKEN);
        answers(&rig, &says(&format!("{{{}}}", good.replacen(from, to, 1))));
        match status {
            101 => drop(rig.admits(&client)),
            status => drop(rig.refuses(&client, status)),
        }
    }
}

#[test]
fn the_claim_with_the_name_can_be_chosen() {
    let rig = start("subject_claim = \"profile.name\"\n");
    for (profile, name) in
        [("{\"name\":\"ada\"}", Some("ada")), ("{\"name\":7}", None), ("{}", None), ("\"ada\"", None)]
    {
        let client = rig.request("/", TOKEN);
        answers(&rig, &says(&format!("{{\"active\":true,\"sub\":\"f81d\",\"profile\":{profile}}}")));
        match name {
            Some(name) => assert!(rig.admits(&client).contains(&format!("\r\nX-User: {name}\r\n")), "{profile}"),
            None => drop(rig.refuses(&client, 503)),
        }
    }
}

#[test]
fn tokens_that_are_not_active_are_refused() {
    let rig = start("leeway = \"30s\"\n");
    let now = unix_s();
    for (json, status) in [
        ("{\"active\":false}".to_owned(), 401),
        ("{\"active\":false,\"sub\":\"ada\"}".to_owned(), 401),
        (format!("{{\"active\":true,\"sub\":\"ada\",\"exp\":{}}}", now - 40), 401),
        (format!("{{\"active\":true,\"sub\":\"ada\",\"exp\":{}}}", now - 10), 101),
        ("{\"active\":true,\"sub\":\"ada\",\"exp\":0}".to_owned(), 401),
        (format!("{{\"active\":true,\"sub\":\"ada\",\"nbf\":{}}}", now + 60), 401),
        (format!("{{\"active\":true,\"sub\":\"ada\",\"nbf\":{}}}", now + 10), 101),
        ("{\"active\":true,\"username\":\"ada\"}".to_owned(), 101),
        ("{\"active\":true,\"client_id\":\"web\"}".to_owned(), 101),
    ] {
        let client = rig.request("/", TOKEN);
        answers(&rig, &says(&json));
        match status {
            101 => drop(rig.admits(&client)),
            status => {
                let got = rig.refuses(&client, status);
                let challenge = "\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\n";
                assert!(got.contains(challenge), "{json}: {got}");
            }
        }
    }
}

#[test]
fn what_does_not_say_that_a_token_is_active_fails_closed() {
    let rig = start("");
    let active = "{\"active\":true,\"sub\":\"ada\"}";
    let mut texts: Vec<String> = [
        "",
        "true",
        "[]",
        "{}",
        "{\"active\":\"true\",\"sub\":\"ada\"}",
        "{\"active\":1,\"sub\":\"ada\"}",
        "{\"active\":null,\"sub\":\"ada\"}",
        "{\"active\":[true],\"sub\":\"ada\"}",
        "{\"Active\":true,\"sub\":\"ada\"}",
        "{\"active\":false,\"active\":true,\"sub\":\"ada\"}",
        "{\"active\":true,\"sub\":\"ada\",\"sub\":\"root\"}",
        "{\"active\":true,\"sub\":\"ada\",\"x\":{\"a\":1,\"a\":2}}",
        "{\"active\":true,\"sub\":\"ada\"}{}",
        "{\"active\":true,\"sub\":\"ada\"",
        "{\"active\":true}",
        "{\"active\":true,\"sub\":\"\"}",
        "{\"active\":true,\"sub\":7}",
        "{\"active\":true,\"sub\":\"ada\",\"exp\":\"9999999999\"}",
        "{\"active\":true,\"sub\":\"ada\",\"exp\":-1}",
        "{\"active\":true,\"sub\":\"ada\",\"exp\":9999999999.5}",
        "{\"active\":true,\"sub\":\"ada\",\"exp\":null}",
        "{\"active\":true,\"sub\":\"ada\",\"exp\":99999999999999999999}",
        "{\"active\":true,\"sub\":\"ada\",\"nbf\":\"0\"}",
        "{\"active\":true,\"sub\":\"ada\",\"scope\":[\"chat\"]}",
        "{\"active\":true,\"sub\":\"ada\",\"aud\":7}",
        "{\"active\":true,\"sub\":\"ada\",\"aud\":[7]}",
        "{\"active\":true,\"sub\":\"ada\",\"iss\":{}}",
        "active=true&sub=ada",
        "<html>",
        "\u{feff}{\"active\":true,\"sub\":\"ada\"}",
    ]
    .iter()
    .map(|json| says(json))
    .collect();
    for head in [
        "201 Created",
        "204 No Content",
        "302 Found\r\nLocation: /",
        "401 Who",
        "403 No",
        "404 No",
        "429 Slow",
        "500 x",
    ] {
        texts.push(response(head, active));
    }
    texts.push(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{active}", active.len() + 1));
    texts.push(format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{active}"));
    texts.push(says(&format!("{{\"active\":true,\"sub\":\"ada\",\"x\":{}1{}}}", "[".repeat(500), "]".repeat(500))));
    texts.push(says(&format!("{{\"active\":true,\"sub\":\"ada\",\"x\":\"{}\"}}", "x".repeat(70_000))));
    for text in &texts {
        let (begun, client) = (Instant::now(), rig.request("/", TOKEN));
        answers(&rig, text);
        let shown = text.chars().take(200).collect::<String>();
        let got = String::from_utf8(read_all(&client).0).unwrap();
        assert!(got.starts_with("HTTP/1.1 503 ") && begun.elapsed() < rig::AT_ONCE, "{shown}: {got}");
        assert!(!got.contains("active"), "{got}");
    }
    rig.proxy.log.wait_for("decision-failed");
    let client = rig.request("/", TOKEN);
    answers(&rig, &says(active));
    rig.admits(&client);
}

#[test]
fn ten_mebibytes_are_not_read_and_silence_is_not_waited_for() {
    let rig = start("timeout = \"500ms\"\n");
    let client = rig.request("/", TOKEN);
    let (mut stream, ..) = asked(&rig);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n").unwrap();
    let chunk = [b' '; 64 << 10];
    let written = (0..160).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(written < 160, "10 MiB were read");
    rig.refuses(&client, 503);
    let (begun, client) = (Instant::now(), rig.request("/", TOKEN));
    let (stream, ..) = asked(&rig);
    rig.refuses(&client, 504);
    assert_due(begun, 500);
    assert_eq!(read_all(&stream).0, b"");
}

#[test]
fn nothing_is_asked_without_a_token_or_with_two_or_a_huge_one() {
    let rig = start("");
    let huge = format!("Authorization: Bearer {}\r\n", "x".repeat(8 * 1024 + 1));
    for (path, more) in [
        ("/", ""),
        ("/?token=", ""),
        ("/?token=a&token=b", ""),
        ("/", "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n"),
        ("/", "Authorization: Basic YTpi\r\n"),
        ("/", &huge),
    ] {
        let client = rig.request(path, more);
        rig.refuses(&client, 401);
    }
    rig.is_not_asked();
}

#[test]
fn answers_are_kept_for_their_token_and_their_time() {
    let rig = Rig::start(ROUTE, &format!("{SECTION}ttl = \"1s\"\nnegative_ttl = \"1s\"\n"));
    let begun = Instant::now();
    let client = rig.request("/", TOKEN);
    answers(&rig, &says("{\"active\":true,\"sub\":\"ada\"}"));
    rig.admits(&client);
    let client = rig.request("/?token=other", "");
    answers(&rig, &says("{\"active\":false}"));
    rig.refuses(&client, 401);
    let mut hits = 0;
    while begun.elapsed() < Duration::from_millis(600) {
        rig.admits(&rig.request("/", TOKEN));
        rig.refuses(&rig.request("/?token=other", ""), 401);
        hits += 2;
    }
    rig.is_not_asked();
    assert!(hits > 0 && rig.questions("cached") == f64::from(hits) && rig.questions("answered") == 2.0);
    // What was no answer is not kept.
    for _ in 0..2 {
        let client = rig.request("/?token=third", "");
        answers(&rig, &says("{}"));
        rig.refuses(&client, 503);
    }
    // Once its time is over, a token that was revoked meanwhile is not admitted.
    eventually("the answer gets old", || (begun.elapsed() > Duration::from_millis(1_100)).then_some(()));
    let client = rig.request("/", TOKEN);
    answers(&rig, &says("{\"active\":false}"));
    rig.refuses(&client, 401);
}

#[test]
fn a_kept_answer_does_not_outlive_its_token() {
    let rig = Rig::start(ROUTE, &format!("{SECTION}ttl = \"1h\"\n"));
    let exp = unix_s() + 2;
    let client = rig.request("/", TOKEN);
    let mut json = String::new();
    write!(json, "{{\"active\":true,\"sub\":\"ada\",\"exp\":{exp}}}").unwrap();
    answers(&rig, &says(&json));
    rig.admits(&client);
    eventually("the token ends", || (unix_s() > exp).then_some(()));
    // It is asked about again, and the clock decides whatever the answer says.
    let client = rig.request("/", TOKEN);
    answers(&rig, &says(&json));
    rig.refuses(&client, 401);
}

#[test]
fn a_client_that_leaves_takes_its_question_with_it() {
    let rig = start("");
    let client = rig.request("/", TOKEN);
    let (stream, ..) = asked(&rig);
    drop(client);
    assert_eq!(read_all(&stream).0, b"");
    answer(stream, &says("{\"active\":true,\"sub\":\"ada\"}"));
    eventually("it is counted", || (rig.questions("cancelled") == 1.0).then_some(()));
}

#[test]
fn a_secret_that_changes_is_read_on_reload() {
    let secret = temp_path("secret");
    std::fs::write(&secret, "one").unwrap();
    let section = format!("{SECTION}{UNKEPT}bearer_file = {secret:?}\n");
    let rig = Rig::start(ROUTE, &section);
    for (content, reload) in [("one", false), ("two", true)] {
        std::fs::write(&secret, content).unwrap();
        if reload {
            rig.reload(ROUTE, &section);
        }
        let client = rig.request("/", TOKEN);
        let (stream, head, _) = asked(&rig);
        assert!(head.contains(&format!("\r\nAuthorization: Bearer {content}\r\n")), "{head}");
        answer(stream, &says("{\"active\":true,\"sub\":\"ada\"}"));
        rig.admits(&client);
    }
}
