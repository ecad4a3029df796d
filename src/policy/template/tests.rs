//! Templates by table and by property: what they parse to, what they render to in a header, a path
//! and a location, and that nothing a client sends gets out of its value, through the writers.

use super::*;
use crate::policy::ClientCert;
use crate::policy::headers::HeaderRules;
use crate::policy::reply::{LocationFault, Redirect};
use crate::proto::handshake::{Forwarding, write_request, write_switching};
use crate::proto::http1::{Field, HeadScan, Response, parse_request, parse_response, write_reply, write_response};
use proptest::prelude::*;
use std::sync::Arc;

const CAPTURES: [&str; 3] = ["room", "host", "rest"];

fn names() -> Names<'static> {
    Names { captures: &CAPTURES, groups: &[] }
}

fn parsed(text: &str) -> Template {
    Template::parse(text, &names()).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
}

fn captures() -> Captures {
    [("room", "7%2f"), ("host", "cap"), ("rest", "a/b")]
        .map(|(name, text)| (Arc::from(name), text.to_owned()))
        .into_iter()
        .collect()
}

const QUERY: &str = "?a=1&b=x+y%2Fz&c&a=2&%64=4&crlf=%0d%0aX:%201&nul=%00&high=%ff&p=50%";

/// A request of a client that has shown a certificate.
fn with_facts<R>(use_: impl FnOnce(&Facts<'_>) -> R) -> R {
    let field = |name: &'static str, value: &'static str| Field { name, value: value.as_bytes() };
    let fields = vec![
        field("X-One", "1"),
        field("Cookie", "a=1; id=7; b=\"q\""),
        field("x-one", "2, 3"),
        field("X-Tab", "a\tb"),
        field("X-Empty", ""),
        field("Cookie", "id=8; last=z"),
    ];
    let request = Request {
        is_http10: false,
        method: "GET",
        target: "/r/7?..",
        path: "/r//%7e",
        query: QUERY,
        host: "Ex.Ample:80",
        fields,
    };
    let cert = ClientCert { subject: "CN=a\\,b, O=x", sha256: "00ff" };
    use_(&Facts { cert: Some(cert), ..Facts::of(&request) })
}

fn field_value(text: &str) -> Option<String> {
    with_facts(|facts| {
        let captures = captures();
        let value =
            parsed(text).field_value(&Variables { facts, route: "chat", captures: &captures, identity: None })?;
        Some(String::from_utf8_lossy(&value).into_owned())
    })
}

fn target(text: &str) -> String {
    with_facts(|facts| {
        let captures = captures();
        parsed(text).target(&Variables { facts, route: "chat", captures: &captures, identity: None })
    })
}

#[test]
fn every_variable_has_its_value_in_a_header_and_in_a_target() {
    for (text, in_header, in_target) in [
        ("plain", "plain", "plain"),
        ("{{}}", "{}", "%7B%7D"),
        ("{{{client_ip}}}", "{203.0.113.7}", "%7B203.0.113.7%7D"),
        ("{{client_ip}}", "{client_ip}", "%7Bclient_ip%7D"),
        ("{client_ip}", "203.0.113.7", "203.0.113.7"),
        ("{method}", "GET", "GET"),
        ("{host}", "ex.ample", "ex.ample"),
        ("{path}", "/r//%7e", "/r//%7e"),
        ("{query}", QUERY, QUERY),
        ("{request_id}", "id-1", "id-1"),
        ("{route}", "chat", "chat"),
        ("{tls.subject}", "CN=a\\,b, O=x", "CN%3Da%5C%2Cb%2C%20O%3Dx"),
        ("{tls.sha256}", "00ff", "00ff"),
        ("{query.a}", "1", "1"),
        ("{query.b}", "x y/z", "x%20y%2Fz"),
        ("{query.d}", "4", "4"),
        ("{query.crlf}", "\r\nX: 1", "%0D%0AX%3A%201"),
        ("{query.nul}", "\0", "%00"),
        ("{query.high}", "\u{fffd}", "%FF"),
        ("{query.p}", "50%", "50%25"),
        ("{header.x-one}", "1, 2, 3", "1%2C%202%2C%203"),
        ("{header.X-ONE}", "1, 2, 3", "1%2C%202%2C%203"),
        ("{header.x-tab}", "a\tb", "a%09b"),
        ("{cookie.id}", "7", "7"),
        ("{cookie.b}", "\"q\"", "%22q%22"),
        ("{cookie.last}", "z", "z"),
        ("{room}", "7%2f", "7%2f"),
        ("{path.room}", "7%2f", "7%2f"),
        ("{path.host}", "cap", "cap"),
        ("{rest}", "a/b", "a/b"),
        ("a{room}b{rest}c", "a7%2fba/bc", "a7%2fba/bc"),
        ("{query.none}x{room}", "x7%2f", "x7%2f"),
    ] {
        assert_eq!(field_value(text).as_deref(), Some(in_header), "{text}");
        // Literal braces are refused where they may not stand; here they show that they are text.
        assert_eq!(target(text), in_target.replace("%7B", "{").replace("%7D", "}"), "{text}");
        assert_eq!(parsed(text).source(), text);
    }
}

#[test]
fn a_value_without_anything_is_none() {
    for text in ["{query.none}", "{query.c}", "{header.none}", "{header.x-empty}", "{cookie.ID}", "{cookie.i}"] {
        for text in [text.to_owned(), format!("Bearer {text}"), format!("{text}{text}x")] {
            assert_eq!(field_value(&text), None, "{text}");
        }
        assert!(field_value(&format!("{text}{{route}}")).is_some());
    }
    assert_eq!(field_value("always").as_deref(), Some("always"));
}

#[test]
fn faults_are_told_apart() {
    let unknown = |name: &str| Fault::Unknown(name.to_owned());
    for (text, fault) in [
        ("{", Fault::Unclosed),
        ("a{host", Fault::Unclosed),
        ("{{{", Fault::Unclosed),
        ("}", Fault::Unopened),
        ("{host}}", Fault::Unopened),
        ("{}", unknown("")),
        ("{ host}", unknown(" host")),
        ("{Host}", unknown("Host")),
        ("{query.}", unknown("query.")),
        ("{header.}", unknown("header.")),
        ("{tls.issuer}", unknown("tls.issuer")),
        ("{path.none}", unknown("path.none")),
        ("{room.x}", unknown("room.x")),
        ("{0}", unknown("0")),
        ("{1}", unknown("1")),
        ("{a{host}", unknown("a{host")),
    ] {
        assert_eq!(Template::parse(text, &names()), Err(fault), "{text}");
    }
}

#[test]
fn groups_come_before_names_of_the_route_and_after_variables() {
    let groups = [None, Some("room".to_owned()), None];
    let names = Names { captures: &CAPTURES, groups: &groups };
    let part = |text: &str| Template::parse(text, &names).unwrap().parts()[0].clone();
    for (text, variable) in [
        ("{room}", Variable::Group(1)),
        ("{path.room}", Variable::Capture("room".into())),
        ("{rest}", Variable::Capture("rest".into())),
        ("{host}", Variable::Host),
        ("{0}", Variable::Group(0)),
        ("{2}", Variable::Group(2)),
        ("{02}", Variable::Group(2)),
    ] {
        assert_eq!(part(text), Part::Variable(variable), "{text}");
    }
    for text in ["{3}", "{99999999999999999999}", "{-1}", "{+1}"] {
        assert!(Template::parse(text, &names).is_err(), "{text}");
    }
}

#[test]
fn locations_name_their_host() {
    use LocationFault as F;
    for (text, judged) in [
        ("/", Ok(())),
        ("/a{query.x}", Ok(())),
        ("{path}", Ok(())),
        ("{path}{query}", Ok(())),
        ("https://a", Ok(())),
        ("http://a:8080/{header.x-one}", Ok(())),
        ("https://{host}", Ok(())),
        ("https://{host}:8443{path}", Ok(())),
        ("https://www.{host}/{room}", Ok(())),
        ("https://a{path}{query.x}", Ok(())),
        ("https://a{query}{query.x}", Ok(())),
        ("https://a?{query.x}", Ok(())),
        ("https://a#{room}", Ok(())),
        ("", Err(F::NotAbsolute)),
        ("a", Err(F::NotAbsolute)),
        ("ftp://a/", Err(F::NotAbsolute)),
        ("javascript:x", Err(F::NotAbsolute)),
        ("{query}", Err(F::NotAbsolute)),
        ("{host}/", Err(F::NotAbsolute)),
        ("{rest}", Err(F::NotAbsolute)),
        ("HTTPS://a/", Err(F::NotAbsolute)),
        ("//a", Err(F::NetworkPath)),
        ("https://", Err(F::Authority)),
        ("https:///a", Err(F::Authority)),
        ("https://?a", Err(F::Authority)),
        ("https://{path}", Err(F::Authority)),
        ("https://{query}", Err(F::Authority)),
        ("https://{room}/", Err(F::Authority)),
        ("https://a{room}/", Err(F::Authority)),
        ("https://{host}{header.x-one}/", Err(F::Authority)),
        ("https://a.{query.x}", Err(F::Authority)),
        ("https://{client_ip}", Err(F::Authority)),
        ("/a b", Err(F::Character)),
        ("/\\a", Err(F::Character)),
        ("/a\r\nX: 1", Err(F::Character)),
        ("/\u{e9}", Err(F::Character)),
        ("/{{a}}", Err(F::Character)),
    ] {
        assert_eq!(Redirect::judge(&parsed(text)), judged, "{text}");
    }
}

/// Bytes that a client may put where a variable looks: all of them, line ends more often.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => prop::sample::select(b"\r\n\0: {}%".to_vec())], 0..24)
}

/// As a query parameter in which every byte is encoded.
fn encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

const RULED: [&str; 6] = ["x-q", "x-h", "x-c", "x-s", "x-p", "set-cookie"];

fn rules() -> HeaderRules {
    let values = ["{query.v}", "a{header.v}b", "{cookie.v}", "{tls.subject}", "{path}{query}{room}", "v={query.v}"];
    let set = RULED.iter().zip(values).map(|(name, text)| ((*name).to_owned(), parsed(text)));
    HeaderRules { set: set.collect(), ..HeaderRules::default() }
}

/// The names of `head`, which is one whole head and nothing behind it.
fn field_names(head: &[u8]) -> Vec<String> {
    assert_eq!(HeadScan::default().advance(head), Ok(Some(head.len())), "{:?}", String::from_utf8_lossy(head));
    let lines = str::from_utf8(head).map(str::to_owned).unwrap_or_else(|_| String::from_utf8_lossy(head).into_owned());
    let names = lines.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.to_ascii_lowercase()).collect()
}

/// The names in order, without those of `rules`: whatever the client sends, they are the same.
fn others(head: &[u8]) -> Vec<String> {
    let mut names = field_names(head);
    names.retain(|name| !RULED.contains(&name.as_str()));
    names
}

const SWITCHING: &[u8] = b"HTTP/1.1 101 S\r\nServer: x\r\n\r\n";

/// What leaves for a request with these values: to the upstream, the 101, another response, a
/// redirect.
fn heads(value: &[u8], room: &str) -> [Vec<u8>; 4] {
    let query = format!("?v={}", encoded(value));
    let subject = String::from_utf8_lossy(value).into_owned();
    // A parsed head holds no control byte; here it does, and still nothing gets out.
    let cookie = [b"v=", value].concat();
    let fields = vec![Field { name: "V", value }, Field { name: "Cookie", value: &cookie }];
    let clean = parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let request = Request { query: &query, fields, ..clean };
    let cert = ClientCert { subject: &subject, sha256: "" };
    let facts = Facts { cert: Some(cert), ..Facts::of(&request) };
    let captures: Captures = [(Arc::from("room"), room.to_owned())].into_iter().collect();
    let variables = Variables { facts: &facts, route: "r", captures: &captures, identity: None };
    let edits = rules().edits(&variables);
    let sent = Request { fields: Vec::new(), ..parse_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap() };
    let add = Forwarding {
        path: "/",
        query: None,
        host: None,
        peer: facts.peer,
        trusted: false,
        secure: false,
        headers: Default::default(),
        client: facts.client,
        cert: None,
        request_id: "id",
        trace_seed: [1; 24],
        edits: &edits,
        plain: None,
    };
    let response: Response<'_> = parse_response(SWITCHING).unwrap();
    let other = parse_response(b"HTTP/1.1 403 No\r\nServer: x\r\n\r\n").unwrap();
    let redirect =
        Redirect { status: 302, location: parsed("/{room}/{query.v}{header.v}{cookie.v}{tls.subject}{query}") };
    let reply = redirect.refusal(&variables).reply.unwrap();
    [
        write_request(&sent, &add),
        write_switching(&response, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &edits),
        write_response(&other, "id", &edits),
        write_reply(&reply, "id", (true, true)),
    ]
}

proptest! {
    #[test]
    fn nothing_of_a_client_gets_out_of_its_value(value in hostile(), room in "[!-~&&[^#?\"<>\\\\]]{0,12}") {
        let ordinary = heads(b"v", "7");
        for (head, ordinary) in heads(&value, &room).iter().zip(&ordinary) {
            prop_assert_eq!(others(head), others(ordinary));
            let names = field_names(head);
            for name in RULED {
                prop_assert!(names.iter().filter(|known| *known == name).count() <= 1);
            }
        }
    }

    #[test]
    fn a_location_leads_to_no_other_host(value in hostile(), room in "[!-~&&[^#?\"<>\\\\]]{0,12}") {
        let [.., redirect] = heads(&value, &room);
        let text = String::from_utf8(redirect).unwrap();
        let location = text.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap();
        prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{}", location);
        prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
        prop_assert!(!location.contains('\\'), "{}", location);
    }

    #[test]
    fn parsing_never_panics_and_literals_render_as_they_are(text in "\\PC*|[a-z{}.]{0,12}") {
        if let Ok(template) = Template::parse(&text, &names()) {
            let literal: String = template.texts().collect();
            if template.parts().iter().all(|part| matches!(part, Part::Text(_))) {
                prop_assert_eq!(field_value(&text).unwrap(), literal);
            }
        }
        let escaped = text.replace('{', "{{").replace('}', "}}");
        prop_assert_eq!(field_value(&escaped).unwrap(), text);
    }
}
