use super::*;

#[test]
fn a_form_is_a_text_or_a_json_object_with_a_star() {
    for (written, prefix, json) in [
        ("AUTH *", "AUTH ", false),
        ("[*]", "[", false),
        ("{\"a\":\"*\"}", "{\"a\":\"", true),
        ("{ \"a\" : { \"b c\" : \"*\", \"d\": 1 } }", "{\"a\":{\"b c\":\"", true),
        ("{\"a\":[1, \"*\"]}", "", true),
    ] {
        match Form::parse(written) {
            Ok(form) => assert_eq!((form.prefix(), form.is_json()), (prefix, json), "{written}"),
            // A place in a list is no place of its own.
            Err(why) => assert!(prefix.is_empty() && why.starts_with("needs \"*\" as a string"), "{written}: {why}"),
        }
    }
}

#[test]
fn the_credential_of_a_text_stands_between_prefix_and_suffix() {
    let form = Form::parse("AUTH <*>").unwrap();
    for (message, credential) in [
        ("AUTH <abc>", Some("abc")),
        ("AUTH <a<b>c>", Some("a<b>c")),
        ("AUTH <a b>", Some("a b")),
        ("AUTH <>", None),
        ("AUTH <", None),
        ("AUTH <abc> ", None),
        ("AUTH <a\r\nb>", None),
        ("AUTH <a\0b>", None),
        ("AUTH <a\x7fb>", None),
        ("auth <abc>", None),
    ] {
        let found = form.credential(message.as_bytes());
        assert_eq!(found.as_deref(), credential.map(str::as_bytes), "{message:?}");
    }
    assert_eq!(form.credential(b"AUTH <\xff\xfe>").as_deref(), Some(&b"\xff\xfe"[..]), "a key may have any bytes");
}

#[test]
fn the_credential_of_a_json_object_is_a_member() {
    let form = Form::parse("{\"type\":\"auth\",\"data\":{\"token\":\"*\",\"v\":1}}").unwrap();
    for (message, credential) in [
        (r#"{"type":"auth","data":{"token":"x.y-z","v":1}}"#, Some("x.y-z")),
        (r#" { "id":7, "type":"auth", "data":{"token":"a\u002fb\/c","v":1,"w":[]} } "#, Some("a/b/c")),
        (r#"{"type":"auth","data":{"token":"x","v":2}}"#, None),
        (r#"{"type":"auth","data":{"token":"x"}}"#, None),
        (r#"{"type":"other","data":{"token":"x","v":1}}"#, None),
        (r#"{"type":"auth","data":{"token":1,"v":1}}"#, None),
        (r#"{"type":"auth","data":{"token":null,"v":1}}"#, None),
        (r#"{"type":"auth","data":{"token":"","v":1}}"#, None),
        (r#"{"type":"auth","data":{"token":"a\nb","v":1}}"#, None),
        (r#"{"type":"auth","data":{"token":"x","token":"y","v":1}}"#, None),
        (r#"{"type":"auth","data":"token"}"#, None),
        (r#"{"type":"auth","data":{"token":"x","v":1}"#, None),
        (r#"{"type":"auth","data":{"token":"x","v":1}}{}"#, None),
        ("", None),
    ] {
        let found = form.credential(message.as_bytes());
        assert_eq!(found.as_deref(), credential.map(str::as_bytes), "{message}");
    }
}

#[test]
fn one_is_judged_at_a_time_and_one_in_a_second() {
    let mut refreshing = Refreshing::default();
    assert!(refreshing.may_begin(5_000));
    refreshing.begin(b"sesame".to_vec());
    for now in [5_000, 6_000, 60_000] {
        assert!(!refreshing.may_begin(now), "{now}");
    }
    assert_eq!(refreshing.credential(), Some(&b"sesame"[..]));
    assert!(!format!("{refreshing:?}").contains("115"));
    refreshing.end();
    assert!(refreshing.may_begin(60_000) && !refreshing.may_begin(60_999) && refreshing.may_begin(61_000));
    assert_eq!(refreshing.credential(), None);
}

#[test]
fn a_client_without_a_name_is_not_known_to_be_the_same() {
    let client = |subject: &str, method: &str| Identity {
        subject: subject.to_owned(),
        method: method.to_owned(),
        ..Identity::default()
    };
    for (new, old, same) in [
        (("ada", "users"), ("ada", "users"), true),
        (("ada", "users"), ("ada", "keys"), false),
        (("eve", "users"), ("ada", "users"), false),
        (("", "users"), ("", "users"), false),
    ] {
        assert_eq!(client(new.0, new.1).is_of(&client(old.0, old.1)), same, "{new:?} {old:?}");
    }
}
