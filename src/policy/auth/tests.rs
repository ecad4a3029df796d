use super::*;
use crate::proto::http1::parse_request;

fn hash(key: &str) -> [u8; 32] {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes()).as_ref().try_into().unwrap()
}

fn keys(name: &str, from: &[Source], keys: &[(&str, &str, &[&str])]) -> Requirement {
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    let key = |(key, owner, scopes): &(&str, &str, &[&str])| ApiKey {
        limits: None,
        hash: hash(key),
        owner: (*owner).to_owned(),
        scopes: owned(scopes),
        roles: Vec::new(),
    };
    let kind = Kind::ApiKeys(ApiKeys::new(keys.iter().map(key).collect()));
    Requirement::Method(Arc::new(Method { name: name.to_owned(), from: from.to_vec(), kind }))
}

/// Who is admitted, or why not.
fn judged(auth: &Auth, fields: &str) -> Result<String, String> {
    let head = format!("GET /ws?{} HTTP/1.1\r\nHost: h\r\n{}\r\n", query_of(fields), headers_of(fields));
    let request = parse_request(head.as_bytes()).unwrap();
    match auth.judge(&Facts::of(&request), &Answers::default()) {
        Judgement::Granted(identity) => Ok(format!("{} {}", identity.method, identity.subject)),
        Judgement::Refused(refusal) => Err(format!("{} {}", refusal.status(), refusal.cause.name())),
        Judgement::Ask(check) => panic!("{check:?}"),
    }
}

/// `?a=b | Header: value | ...`.
fn query_of(text: &str) -> &str {
    text.split(" | ").find_map(|part| part.strip_prefix('?')).unwrap_or_default()
}

fn headers_of(text: &str) -> String {
    let headers = text.split(" | ").filter(|part| !part.starts_with('?') && !part.is_empty());
    headers.map(|header| format!("{header}\r\n")).collect()
}

fn everywhere() -> Vec<Source> {
    vec![
        Source::Authorization("Bearer"),
        Source::Header("X-Key".into()),
        Source::Cookie("key".into()),
        Source::Query("key".into()),
        Source::SubprotocolPrefix("key.".into()),
        Source::SubprotocolAfter("token".into()),
    ]
}

#[test]
fn keys_are_taken_from_their_sources_and_once() {
    let auth = Auth::new(keys("k", &everywhere(), &[("s3cret", "acme", &[])]), vec![], vec![]);
    for (fields, expected) in [
        ("", Err("401 no-credentials")),
        ("Authorization: Bearer s3cret", Ok("k acme")),
        ("Authorization: bearer   s3cret", Ok("k acme")),
        ("Authorization: BEARER s3cret", Ok("k acme")),
        ("Authorization: Bearers3cret", Err("401 no-credentials")),
        ("Authorization: Bearer", Err("401 no-credentials")),
        ("Authorization: Basic s3cret", Err("401 no-credentials")),
        ("Authorization: s3cret", Err("401 no-credentials")),
        ("Authorization: Bearer S3cret", Err("401 bad-credentials")),
        ("Authorization: Bearer s3cret2", Err("401 bad-credentials")),
        ("Authorization: Bearer s3cre", Err("401 bad-credentials")),
        ("Authorization: Bearer s3cret s3cret", Err("401 bad-credentials")),
        ("Authorization: Bearer s3cret | Authorization: Bearer s3cret", Err("401 bad-credentials")),
        ("X-Key: s3cret", Ok("k acme")),
        ("x-key: s3cret", Ok("k acme")),
        ("X-Key: s3cret | X-Key: other", Err("401 bad-credentials")),
        ("X-Key: s3cret, s3cret", Err("401 bad-credentials")),
        ("Cookie: a=1; key=s3cret", Ok("k acme")),
        ("Cookie: key=s3cret; key=x", Err("401 bad-credentials")),
        ("Cookie: Key=s3cret", Err("401 no-credentials")),
        ("?key=s3cret", Ok("k acme")),
        ("?a=1&key=s3cret&b", Ok("k acme")),
        ("?%6bey=s3cre%74", Ok("k acme")),
        ("?key=s3cret&key=s3cret", Err("401 bad-credentials")),
        ("?key=s3cret&%6bey=x", Err("401 bad-credentials")),
        ("?key", Err("401 bad-credentials")),
        ("?key=", Err("401 bad-credentials")),
        ("Sec-WebSocket-Protocol: chat, key.s3cret", Ok("k acme")),
        ("Sec-WebSocket-Protocol: key.s3cret, key.x", Err("401 bad-credentials")),
        ("Sec-WebSocket-Protocol: token, s3cret, chat", Ok("k acme")),
        ("Sec-WebSocket-Protocol: token | Sec-WebSocket-Protocol: s3cret", Ok("k acme")),
        ("Sec-WebSocket-Protocol: chat, token", Err("401 no-credentials")),
        ("Sec-WebSocket-Protocol: token, s3cret, token, x", Err("401 bad-credentials")),
        // The first source that has something decides.
        ("Authorization: Bearer x | X-Key: s3cret", Err("401 bad-credentials")),
        ("Authorization: Basic x | X-Key: s3cret", Ok("k acme")),
    ] {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(judged(&auth, fields), expected, "{fields}");
    }
}

#[test]
fn any_takes_the_first_that_admits_and_all_takes_each() {
    let one = || keys("one", &[Source::Header("X-One".into())], &[("1", "a", &["chat", "read"])]);
    let two = || keys("two", &[Source::Header("X-Two".into())], &[("2", "b", &["write"])]);
    let any = Auth::new(Requirement::Any(vec![one(), two()]), vec![], vec![]);
    let all = Auth::new(Requirement::All(vec![one(), two()]), vec!["read".into(), "write".into()], vec![]);
    for (fields, for_any, for_all) in [
        ("", Err("401 no-credentials"), Err("401 no-credentials")),
        ("X-One: 1", Ok("one a"), Err("401 no-credentials")),
        ("X-Two: 2", Ok("two b"), Err("401 no-credentials")),
        ("X-One: 1 | X-Two: 2", Ok("one a"), Ok("one a")),
        ("X-One: 1 | X-Two: 1", Ok("one a"), Err("401 bad-credentials")),
        ("X-One: 2 | X-Two: 2", Ok("two b"), Err("401 bad-credentials")),
        ("X-One: 2 | X-Two: 1", Err("401 bad-credentials"), Err("401 bad-credentials")),
        ("X-Two: 1", Err("401 bad-credentials"), Err("401 no-credentials")),
    ] {
        let owned = |expected: Result<&str, &str>| expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(judged(&any, fields), owned(for_any), "any, {fields}");
        assert_eq!(judged(&all, fields), owned(for_all), "all, {fields}");
    }
}

#[test]
fn scopes_and_roles_are_all_needed() {
    let key = || keys("k", &[Source::Header("X-Key".into())], &[("1", "a", &["chat", "read"])]);
    for (scopes, roles, expected) in [
        (vec!["chat"], vec![], Ok("k a")),
        (vec!["read", "chat"], vec![], Ok("k a")),
        (vec!["read", "write"], vec![], Err("403 not-permitted")),
        (vec!["Chat"], vec![], Err("403 not-permitted")),
        (vec![], vec!["admin"], Err("403 not-permitted")),
    ] {
        let owned = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let auth = Auth::new(key(), owned(scopes.clone()), owned(roles));
        assert_eq!(judged(&auth, "X-Key: 1"), expected.map(str::to_owned).map_err(str::to_owned), "{scopes:?}");
    }
}

#[test]
fn what_was_shown_stays_with_the_proxy() {
    let auth = Auth::new(keys("k", &everywhere(), &[]), vec![], vec![]);
    for (query, public) in [
        ("", ""),
        ("?", "?"),
        ("?a=1&b", "?a=1&b"),
        ("?key=s", ""),
        ("?key=s&a=1", "?a=1"),
        ("?a=1&key=s&b=2&%6bey=t&key", "?a=1&b=2"),
        ("?keys=1&Key=2", "?keys=1&Key=2"),
    ] {
        assert_eq!(auth.public_query(query), public, "{query}");
    }
    let names = ["key".to_owned()];
    for (target, shown) in [
        ("/a", "/a"),
        ("/a?b=1", "/a?b=1"),
        ("/key=1?key=s3cret&b=1", "/key=1?key=***&b=1"),
        ("/a?%6bey=s3cret=x&key", "/a?%6bey=***&key"),
        ("/a?b=?key=s", "/a?b=?key=s"),
    ] {
        assert_eq!(redacted_target(target, &names), shown, "{target}");
    }
    for (offered, sent, chosen) in [
        ("chat", None, None),
        ("key.s3cret", Some(""), Some("key.s3cret")),
        ("chat, key.s3cret, v2", Some("chat, v2"), Some("key.s3cret")),
        ("token, s3cret, chat", Some("chat"), Some("token")),
        ("chat, token", Some("chat"), Some("token")),
        ("token, token, chat", Some("chat"), Some("token")),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Protocol: {offered}\r\n\r\n");
        let request = parse_request(head.as_bytes()).unwrap();
        let (mut edits, mut response) = (FieldEdits::new(), FieldEdits::new());
        auth.conceal(&request, &mut edits, &mut response);
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let now = edits
            .removes("sec-websocket-protocol")
            .then(|| edits.added().next().map(|(_, value)| text(value)).unwrap_or_default());
        assert_eq!(now.as_deref(), sent, "{offered}");
        assert_eq!(response.missing().next().map(|(_, value)| text(value)).as_deref(), chosen, "{offered}");
    }
}

#[test]
fn no_text_for_people_holds_a_key() {
    let auth = Auth::new(keys("k", &everywhere(), &[("s3cret", "acme", &[])]), vec![], vec![]);
    let hex = crate::text::hex(&hash("s3cret"));
    let text = format!("{auth:?} {auth:#?} {}", auth.requirement);
    assert!(!text.contains("s3cret") && !text.contains(&hex[..32]), "{text}");
}
