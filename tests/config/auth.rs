//! Credentials: what sections and routes mean, and the errors of every key.

use super::{bad, good};

const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// `more` begins at line 6, behind a route that asks for nothing and in an [[auth]] section.
fn section(more: &str) -> String {
    format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n[[auth]]\n{more}\n")
}

/// `more` begins at line 10, in a route behind two sections.
fn route(more: &str) -> String {
    let keys = format!("keys = [{{ owner = \"o\", sha256 = \"{HASH}\" }}]");
    let auth = |name: &str| format!("[[auth]]\nname = \"{name}\"\ntype = \"api_keys\"\n{keys}\n");
    let routed = format!("[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n{more}\n");
    format!(
        "{}[[auth]]\nname = \"b\"\ntype = \"client_certificate\"\n{routed}[[listener]]\nlisten = \"0.0.0.0:80\"\n",
        auth("a")
    )
}

/// The error at this place, which begins so.
#[track_caller]
fn wrong(text: &str, place: &str, why: &str) -> String {
    let all = bad(text);
    let found = all.iter().find(|line| line.contains(&format!("{place}: {why}")) || line.contains(why));
    let found = found.unwrap_or_else(|| panic!("no {place}: {why} in {all:#?}"));
    assert!(found.contains(place), "{found}");
    found.clone()
}

#[test]
fn requirements_are_read() {
    for (written, meaning) in [
        ("\"a\"", "a"),
        ("{ any = [\"a\", \"b\"] }", "any of (a, b)"),
        ("{ all = [\"b\", { any = [\"a\"] }] }", "all of (b, any of (a))"),
    ] {
        let snapshot = good(&route(&format!("auth = {written}\nscopes = [\"x:y\"]\nroles = [\"r\"]")));
        let auth = snapshot.routes.entries()[0].route.auth.as_ref().unwrap();
        assert_eq!(auth.requirement.to_string(), meaning);
        assert_eq!((&auth.scopes[..], &auth.roles[..]), (&["x:y".to_owned()][..], &["r".to_owned()][..]));
    }
    assert_eq!(good(&route("auth = \"a\"")), good(&route("auth = \"a\"")), "a reload sees no change");
    assert_ne!(good(&route("auth = \"a\"")), good(&route("auth = \"b\"")));
}

#[test]
fn secret_parameters_are_those_of_all_sections() {
    let more = format!(
        "name = \"a\"\ntype = \"api_keys\"\nfrom = [\"query:b\", \"authorization\", \"query:a\"]\n\
         keys = [{{ owner = \"o\", sha256 = \"{HASH}\", roles = [\"r\"] }}]"
    );
    assert_eq!(good(&section(&more)).secret_parameters, ["a", "b"]);
}

#[test]
fn wrong_sections_are_reported() {
    const KEYS: &str = "name = \"a\"\ntype = \"api_keys\"\n";
    for (more, place, why) in [
        ("type = \"client_certificate\"", "5:1: auth.name", "missing; add for example name = \"users\""),
        ("name = \"a\"", "5:1: auth.type", "missing; add for example type = \"api_keys\""),
        ("name = \"a\"\ntype = \"api_key\"", "7:8: auth.type", "\"api_key\" is not valid; did you mean \"api_keys\"?"),
        ("name = \"a b\"\ntype = \"client_certificate\"", "6:8: auth.name", "\"a b\" is not a valid name"),
        ("name = \"a\"\ntype = \"api_keys\"", "5:1: auth.keys", "missing; add for example keys = ["),
        (
            "name = \"a\"\ntype = \"client_certificate\"\nkeys = []",
            "8:8: auth.keys",
            "belongs to type = \"api_keys\" or \"jwt\"; remove it",
        ),
        (
            "name = \"a\"\ntype = \"client_certificate\"\nfrom = [\"cookie:a\"]",
            "8:8: auth.from",
            "has no effect on certificates",
        ),
        (
            "name = \"a\"\ntype = \"client_certificate\"\n[[auth]]\nname = \"a\"\ntype = \"client_certificate\"",
            "9:8: auth.name",
            "\"a\" is the name of an earlier [[auth]]; choose another",
        ),
    ] {
        wrong(&section(more), place, why);
    }
    for (keys, why) in [
        ("[\"s3cret\"]", "is not a table; expected for example { owner = "),
        ("[{ owner = \"a\" }]", "has no owner or no sha256"),
        ("[{ owner = \"a\", sha256 = \"s3cret\" }]", "sha256: is not a SHA-256 in hexadecimal; make it with: printf"),
        ("[{ owner = \"a\", key = \"s3cret\" }]", "unknown key \"key\""),
        ("[{ owner = \"a b\", sha256 = \"\" }]", "owner: \"a b\" is not a valid name"),
    ] {
        let said = wrong(&section(&format!("{KEYS}keys = {keys}")), "8:9: auth.keys", why);
        assert!(!said.contains("s3cret"), "{said}");
    }
    let twice =
        format!("{KEYS}keys = [{{ owner = \"a\", sha256 = \"{HASH}\" }}, {{ owner = \"b\", sha256 = \"{HASH}\" }}]");
    wrong(&section(&twice), "auth.keys", "is the key of \"a\" already; each owner needs one of its own");
    for from in [
        "bearer",
        "authorization:x",
        "header:",
        "header:a b",
        "header:Authorization",
        "cookie:",
        "query:",
        "subprotocol:",
        "subprotocol:*",
        "subprotocol:,*",
        "subprotocol:a",
        "subprotocol:a b*",
    ] {
        let why = format!("\"{from}\" is not a place of credentials; expected \"authorization\", \"header:NAME\"");
        wrong(&section(&format!("{KEYS}keys = []\nfrom = [\"{from}\"]")), "9:9: auth.from", &why);
    }
    wrong(&section(&format!("{KEYS}keys = []\nfrom = []")), "9:8: auth.from", "is empty; expected");
}

#[test]
fn wrong_routes_are_reported() {
    for (more, place, why) in [
        ("auth = \"c\"", "10:8: route.auth", "no [[auth]] is named \"c\"; did you mean \"a\" or \"b\"?"),
        ("auth = 1", "10:8: route.auth", "1 is not valid; expected the name of an [[auth]], { any = [...] }"),
        ("auth = {}", "10:8: route.auth", "needs one of any and all"),
        ("auth = { any = [] }", "10:8: route.auth", "expected the name of an [[auth]]"),
        ("auth = { any = [\"a\"], all = [\"b\"] }", "10:8: route.auth", "needs one of any and all"),
        ("auth = { some = [\"a\"] }", "10:8: route.auth", "unknown key \"some\""),
        (
            "auth = { any = [{ any = [{ any = [{ any = [\"a\"] }] }] }] }",
            "10:8: route.auth",
            "is nested more than 3 levels deep",
        ),
        ("scopes = [\"a\"]", "10:10: route.scopes", "has no effect without auth"),
        ("roles = [\"a\"]", "10:9: route.roles", "has no effect without auth"),
        (
            "auth = \"a\"\non_expired_code = 999",
            "11:19: route.on_expired_code",
            "999 is not a close code that may be sent",
        ),
        ("auth = \"a\"\nscopes = [\"a b\"]", "11:11: route.scopes", "\"a b\" is not a scope or role; it has no spaces"),
    ] {
        wrong(&route(more), place, why);
    }
    let many = (0..17).map(|_| "\"a\"").collect::<Vec<_>>().join(", ");
    wrong(&route(&format!("auth = {{ any = [{many}] }}")), "10:8: route.auth", "combines 17 methods; at most 16");
}
