//! Who may come: origins and addresses, what `check` says about them, and what is wrong with a
//! line.

use super::{LEAST, NAME, bad, bad_beside, good, good_beside};
use framegate::policy::origin::Origins;
use std::path::PathBuf;

/// As `WRONG` in the parent.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "origins = []\n",
        "5:11: route.origins",
        "an empty list refuses all requests; expected for example [\"https://example.com\"], or \
         [\"*\"] for all origins",
    ),
    (
        "origins = [\"https://a.example\", \"a.example\"]\n",
        "5:33: route.origins",
        "\"a.example\" is not valid: expected for example \"https://example.com\", \"https://*.example.com\", \
         \"null\", \"absent\" or \"*\"",
    ),
    (
        "origins = [\"https://a.example/\"]\n",
        "5:12: route.origins",
        "\"https://a.example/\" is not valid: an origin has no path; remove it, and the last slash",
    ),
    (
        "origins = [\"wss://a.example\"]\n",
        "5:12: route.origins",
        "\"wss://a.example\" is not valid: an origin has the scheme of the page; use https://",
    ),
    (
        "origins = [\"https://bücher.example\"]\n",
        "5:12: route.origins",
        "\"https://bücher.example\" is not valid: browsers send names in Punycode (xn--...); write it so",
    ),
    (
        "origins = [\"https://*.0.0.1\"]\n",
        "5:12: route.origins",
        "\"https://*.0.0.1\" is not valid: a wildcard stands for labels of a name, not for parts of an address",
    ),
    (
        "origins = [\"https://a.example\", \"*\"]\n",
        "5:33: route.origins",
        "\"*\" admits all origins; remove the others, or \"*\"",
    ),
    ("origins = [7]\n", "5:12: route.origins", "7 is not a string; put it in quotes"),
    ("origins = \"*\"\n", "5:11: route.origins", "not a list; use origins = [\"...\"]"),
    ("allow = \"10.0.0.0/8\"\n", "5:9: route.allow", "not a list; use allow = [\"...\"]"),
    ("allow = []\n", "5:9: route.allow", "an empty list refuses all addresses; add some, or remove the key"),
    (
        "allow = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n",
        "5:24: route.allow",
        "\"10.0.0.0/33\" is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"",
    ),
    (
        "deny = [\"example.com\"]\n",
        "5:9: route.deny",
        "\"example.com\" is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"",
    ),
    ("deny_file = 7\n", "5:13: route.deny_file", "7 is not a string; put it in quotes"),
    (
        "deny_file = \"/nowhere/denied.txt\"\n",
        "5:13: route.deny_file",
        "\"/nowhere/denied.txt\" cannot be read: No such file or directory (os error 2)",
    ),
    ("deny_file = \"/\"\n", "5:13: route.deny_file", "\"/\" is not a regular file"),
];

#[test]
fn what_is_wrong_is_said_where_it_is() {
    for (more, place, rest) in WRONG {
        assert_eq!(bad_beside(more), [format!("{NAME}:{place}: {rest}")], "{more}");
        if !more.contains("origins") {
            let at_listener = LEAST.replacen("[[route]]", &format!("{more}[[route]]"), 1);
            let place = place.replace("route.", "listener.").replacen('5', "3", 1);
            assert_eq!(bad(&at_listener), [format!("{NAME}:{place}: {rest}")], "{at_listener}");
        }
    }
    let many = |element: &str, n: usize| format!("[{}]", vec![element; n].join(", "));
    let over = bad_beside(&format!("deny = {}\n", many("\"::1\"", 10_001)));
    assert!(over[0].ends_with("route.deny: more than 10000 addresses; move them to a deny_file, or merge some"));
    let over = bad_beside(&format!("origins = {}\n", many("\"https://a.b\"", 1_001)));
    assert!(over[0].ends_with("route.origins: more than 1000 origins; use wildcards"), "{over:?}");
    good_beside(&format!("origins = {}\n", many("\"https://a.b\"", 1_000)));
}

/// A file of its own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("framegate-config-{name}-{}.txt", std::process::id()));
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn a_line_of_a_deny_file_is_named_with_its_text() {
    for (name, bytes, rest) in [
        (
            "line",
            &b"10.0.0.0/8\n# why\n10.0.0.0/40 # too long\n"[..],
            ":3: \"10.0.0.0/40\" is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"",
        ),
        ("text", b"10.0.0.0/8\n\xff\xfe\n", "\" cannot be read: stream did not contain valid UTF-8"),
    ] {
        let path = file(name, bytes);
        let shown = path.display().to_string();
        let told = bad_beside(&format!("deny_file = {path:?}\n"));
        std::fs::remove_file(&path).unwrap();
        let found = told[0].strip_prefix(&format!("{NAME}:5:13: route.deny_file: ")).unwrap();
        assert_eq!(found.trim_start_matches('"').strip_prefix(&shown), Some(rest), "{told:?}");
    }
}

#[test]
fn check_says_who_may_come() {
    let path = file("check", b"192.0.2.0/24\n2001:db8::/32\n192.0.2.7\n");
    let shown = path.display();
    let text = format!(
        r#"
        [[listener]]
        listen = "0.0.0.0:8080"
        allow = ["10.0.0.0/8", "::ffff:192.0.2.0/120"]
        deny = ["10.9.0.0/16"]
        deny_file = {path:?}
        [[listener]]
        listen = "0.0.0.0:8081"
        deny = []
        [[route]]
        name = "default"
        upstream = "ws://10.0.0.1:9000"
        deny_file = {path:?}
        [[route]]
        path = "/any"
        origins = ["*"]
        upstream = "ws://10.0.0.1:9000"
        [[route]]
        path = "/listed"
        origins = ["https://a.example", "https://*.b.example", "null", "absent"]
        allow = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "::1"]
        upstream = "ws://10.0.0.1:9000"
        [[route]]
        path = "/own"
        deny = ["10.0.0.0/8"]
        respond = {{ body = "ok" }}
        [[route]]
        path = "/page"
        origins = ["https://a.example"]
        respond = {{ body = "ok" }}
    "#
    );
    let snapshot = good(&text);
    assert_eq!(snapshot.deny_files().len(), 1);
    assert!(matches!(snapshot.routes.entries()[0].route.origins, Origins::Any));
    let told = snapshot.describe(4096, 1);
    std::fs::remove_file(&path).unwrap();
    let limits = "framed, frames up to 1 GiB, messages up to 1 GiB";
    for line in [
        format!(
            "listener   0.0.0.0:8080, allows 10.0.0.0/8, 192.0.2.0/24, denies 10.9.0.0/16, denies the 2 networks in \
             {shown}"
        ),
        "listener   0.0.0.0:8081".to_owned(),
        format!(
            "  /* (default) -> ws://10.0.0.1:9000, {limits}, with a Cookie only from its own origin, denies the 2 \
             networks in {shown}"
        ),
        format!("  /any -> ws://10.0.0.1:9000, {limits}, from any origin"),
        format!(
            "  /listed -> ws://10.0.0.1:9000, {limits}, from origins https://a.example, https://*.b.example, null, \
             absent, allows 10.0.0.1/32, 10.0.0.2/32, 10.0.0.3/32, 10.0.0.4/32, 10.0.0.5/32, 10.0.0.6/32, 10.0.0.7/32, \
             10.0.0.8/32 and 1 more"
        ),
        "  /own -> responds with 200, 2 B, denies 10.0.0.0/8".to_owned(),
        "  /page -> responds with 200, 2 B, from origins https://a.example".to_owned(),
        "   150.0 MiB  1 deny_file, 150 MiB each while it is read, with a million networks".to_owned(),
    ] {
        assert!(told.contains(&format!("{line}\n")), "{line}\nin\n{told}");
    }
}
