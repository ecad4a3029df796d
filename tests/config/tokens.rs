//! Tokens: what their sections mean, and the errors of every key.

use super::{bad, good};
use framegate::policy::auth::jwt::{Audience, Jwt, Wanted};
use framegate::policy::auth::{Kind, Requirement};
use std::path::PathBuf;

/// `more` begins at line 8, in an [[auth]] section that a route uses.
fn section(more: &str) -> String {
    let route = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nauth = \"a\"\n";
    format!("{route}[[auth]]\nname = \"a\"\n{more}\n")
}

/// A file with this content, removed with the value.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("framegate-tokens-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[track_caller]
fn wrong(text: &str, place: &str, why: &str) -> String {
    let all = bad(text);
    let found = all.iter().find(|line| line.contains(place) && line.contains(why));
    found.unwrap_or_else(|| panic!("no {place} {why} in {all:#?}")).clone()
}

#[cfg(not(feature = "jwt"))]
#[test]
fn a_build_without_tokens_says_so_in_one_sentence() {
    let all = bad(&section("type = \"jwt\"\nissuer = [\"https://issuer\"]\nkeys = [{ pem = \"missing.pem\" }]"));
    let why = "\"jwt\" cannot be used: this build has no JSON Web Tokens (feature \"jwt\")";
    assert!(all[0].contains("8:8: auth.type") && all[0].contains(why), "{all:?}");
    let others: Vec<_> =
        all[1..].iter().filter(|line| line.contains("auth.") && !line.contains("route.auth")).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[cfg(feature = "jwt")]
mod built {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef\n";

    fn with_secret(more: &str) -> (File, String) {
        let secret = File::new("secret", SECRET);
        let text = section(&format!("type = \"jwt\"\nkeys = [{{ secret_file = {:?} }}]\n{more}", secret.0));
        (secret, text)
    }

    fn jwt_of(text: &str, use_: impl FnOnce(&Jwt)) {
        let snapshot = good(text);
        let auth = snapshot.routes.entries()[0].route.auth.as_ref().unwrap();
        let Requirement::Method(method) = &auth.requirement else { panic!("{:?}", auth.requirement) };
        let Kind::Jwt(jwt) = &method.kind else { panic!("{:?}", method.kind) };
        use_(jwt);
    }

    #[test]
    fn sections_have_defaults_that_fail_closed() {
        let (_secret, text) = with_secret("");
        jwt_of(&text, |jwt| {
            let rules = &jwt.rules;
            assert_eq!((jwt.keys.len(), jwt.bytes_max, rules.leeway_s, rules.expiry_required), (1, 8192, 30, true));
            assert_eq!((rules.issuers.len(), &rules.audience), (0, &Audience::OneOf(Vec::new())));
            assert_eq!((rules.subject.as_str(), rules.roles.as_str()), ("sub", "roles"));
        });
        assert_eq!(good(&text), good(&text), "a reload sees no change");
    }

    #[test]
    fn every_key_is_read_and_check_shows_it() {
        let (_secret, text) = with_secret(
            "issuer = [\"https://a\", \"https://b\"]\naudience = [\"chat\"]\nleeway = 0\nexpiry = \"optional\"\n\
             max_token = \"16KiB\"\nsubject_claim = \"email\"\nroles_claim = \"realm_access.roles\"\n\
             require = { tenant = [\"acme\", \"ajax\"], \"a.b\" = \"*\", admin = true, level = 3 }",
        );
        jwt_of(&text, |jwt| {
            let rules = &jwt.rules;
            assert_eq!((jwt.bytes_max, rules.leeway_s, rules.expiry_required), (16 << 10, 0, false));
            assert_eq!((rules.subject.as_str(), rules.roles.as_str()), ("email", "realm_access.roles"));
            let value = |text: &str| serde_json::from_str(text).unwrap();
            let wanted = |texts: &[&str]| Wanted::OneOf(texts.iter().map(|text| value(text)).collect());
            let required = [
                ("a.b".to_owned(), Wanted::Present),
                ("admin".to_owned(), wanted(&["true"])),
                ("level".to_owned(), wanted(&["3"])),
                ("tenant".to_owned(), wanted(&["\"acme\"", "\"ajax\""])),
            ];
            assert_eq!(rules.required, required);
        });
        let shown = good(&text).describe(1024, 1);
        let line = "  a: tokens (JWT) by 1 keys, issuer https://a or https://b, audience chat, leeway 0s, also without \
                    an expiry, requires a.b, requires admin, requires level, requires tenant, from authorization";
        assert!(shown.contains("\ncredentials\n") && shown.contains(line), "{shown}");
        let (_secret, any) = with_secret("audience = [\"*\"]");
        assert!(good(&any).describe(1024, 1).contains("any issuer, any audience"));
    }

    #[test]
    fn wrong_values_are_reported() {
        for (more, place, why) in [
            ("leeway = \"10m\"", "auth.leeway", "\"10m\" is out of range; expected \"1s\" to \"5m\", or 0 for none"),
            ("expiry = \"maybe\"", "auth.expiry", "expected \"required\" or \"optional\""),
            ("max_token = 10", "auth.max_token", "10 is out of range; expected \"256 B\" to \"1 MiB\""),
            ("issuer = [1]", "auth.issuer", "1 is not a string; put it in quotes"),
            ("audience = [true]", "auth.audience", "true is not a string"),
            ("subject_claim = \"a..b\"", "auth.subject_claim", "expected for example \"realm_access.roles\""),
            ("roles_claim = \"\"", "auth.roles_claim", "\"\" is not a claim"),
            ("require = { a = 1.5 }", "auth.require.a", "1.5 is not valid; expected a string, a number, a boolean"),
            ("require = { a = {} }", "auth.require.a", "a table is not valid"),
        ] {
            let (_secret, text) = with_secret(more);
            wrong(&text, "framegate.toml:10:", why);
            wrong(&text, place, why);
        }
        let other = section("type = \"client_certificate\"\nissuer = [\"a\"]\nleeway = \"1s\"\nrequire = { a = 1 }");
        for key in ["issuer", "leeway"] {
            wrong(&other, &format!("auth.{key}"), "belongs to type = \"jwt\" or \"introspection\"; remove it");
        }
        wrong(&other, "auth.require", "belongs to type = \"jwt\"; remove it");
    }

    #[test]
    fn urls_of_key_sets_are_read_or_reported() {
        let url = |url: &str, more: &str| section(&format!("type = \"jwt\"\njwks_url = \"{url}\"\n{more}"));
        for good_url in [
            "https://login.example.com/.well-known/jwks.json",
            "https://10.0.0.1:8443/keys?realm=a",
            "https://[::1]/",
            "http://localhost:8080/keys",
            "http://127.0.0.1/keys",
            "http://[::1]:8080/keys",
        ] {
            let snapshot = good(&url(good_url, ""));
            let config = &snapshot.key_sources[0].config;
            assert_eq!((config.url.as_str(), config.method.as_str()), (good_url, "a"));
            assert_eq!((config.ca.as_deref(), config.refresh_ms), (None, 300_000));
            assert_eq!(snapshot, good(&url(good_url, "")));
        }
        let shown = good(&url("https://a/k", "jwks_refresh = \"1h\"")).describe(1024, 1);
        assert!(shown.contains("tokens (JWT) by 0 keys and those of https://a/k, every 1h, any issuer"), "{shown}");
        for (bad_url, why) in [
            ("http://login.example.com/keys", "is not protected by TLS, which only this host may do without"),
            ("http://localhost.example.com/keys", "is not protected by TLS"),
            ("http://10.0.0.1/keys", "is not protected by TLS"),
            ("ftp://localhost/keys", "is not a URL; expected for example \"https://"),
            ("login.example.com", "is not a URL; expected"),
            ("https://", "has no valid host or port"),
            ("https://a:x/", "has no valid host or port"),
            ("https://a/b c", "is not a URL"),
            ("https://user:s3cret@a/", "has a user name or a fragment; remove it"),
        ] {
            let said = wrong(&url(bad_url, ""), "9:12: auth.jwks_url", why);
            assert!(!said.contains("s3cret"), "{said}");
        }
        for (more, key, why) in [
            ("jwks_refresh = \"5s\"", "jwks_refresh", "\"5s\" is out of range; expected \"10s\" to \"1day\""),
            ("jwks_ca = \"missing.pem\"", "jwks_ca", "\"missing.pem\" cannot be read"),
            ("jwks_ca = \"Cargo.toml\"", "jwks_ca", "\"Cargo.toml\" has no certificate in PEM"),
        ] {
            wrong(&url("https://a/", more), &format!("10:{}: auth.{key}", key.len() + 4), why);
        }
        let (_secret, text) = with_secret("jwks_refresh = \"1m\"\njwks_ca = \"Cargo.toml\"");
        wrong(&text, "auth.jwks_refresh", "has no effect without jwks_url; remove it");
        wrong(&text, "auth.jwks_ca", "has no effect without jwks_url; remove it");
        let many: String = (0..17)
            .map(|n| format!("[[auth]]\nname = \"m{n}\"\ntype = \"jwt\"\njwks_url = \"https://a/\"\n"))
            .collect();
        let why = "is one more than the 16 key sets that can be fetched";
        wrong(&(section("type = \"client_certificate\"") + &many), "auth.jwks_url", why);
    }

    #[test]
    fn wrong_keys_are_reported_without_what_is_in_them() {
        let short = File::new("short", b"s3cret");
        let private = File::new("private", b"-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n");
        let large = File::new("large", &vec![b's'; 300 << 10]);
        let folder = std::env::temp_dir();
        let quoted = |file: &File| format!("{:?}", file.0);
        for (keys, why) in [
            ("[]".to_owned(), "missing, and there is no jwks_url; expected for"),
            ("[\"s3cret\"]".to_owned(), "is not a table; expected for example { pem = "),
            ("[{ secret = \"s3cret\" }]".to_owned(), "unknown key \"secret\""),
            ("[{ kid = \"a\" }]".to_owned(), "needs one of pem, jwks and secret_file"),
            ("[{ pem = \"a\", jwks = \"b\" }]".to_owned(), "needs one of pem, jwks and secret_file"),
            ("[{ jwks = \"a\", kid = \"b\" }]".to_owned(), "kid: has no effect on a key set"),
            ("[{ pem = 1 }]".to_owned(), "pem: 1 is not a string"),
            ("[{ pem = \"a\", kid = 1 }]".to_owned(), "kid: 1 is not a string"),
            (
                "[{ pem = \"a\", algorithm = \"none\" }]".to_owned(),
                "algorithm: \"none\" is not valid; expected \"HS256\"",
            ),
            ("[{ pem = \"missing.pem\" }]".to_owned(), "\"missing.pem\" cannot be read: No such file"),
            (format!("[{{ pem = {folder:?} }}]"), "is not a regular file"),
            (format!("[{{ secret_file = {} }}]", quoted(&short)), "has a secret of 6 bytes; expected at least 32"),
            (format!("[{{ pem = {} }}]", quoted(&private)), "has a private key; give the public one: openssl pkey"),
            (format!("[{{ pem = {} }}]", quoted(&short)), "is not a public key in PEM"),
            (format!("[{{ jwks = {} }}]", quoted(&short)), "is not JSON (line 1, column 1)"),
            (format!("[{{ jwks = {} }}]", quoted(&large)), "has more than 262144 bytes"),
        ] {
            let said = wrong(&section(&format!("type = \"jwt\"\nkeys = {keys}")), "auth.keys", why);
            assert!(!said.contains("s3cret"), "{said}");
        }
        let why = "missing, and there is no jwks_url; expected for example { pem = ";
        wrong(&section("type = \"jwt\""), "6:1: auth.keys", why);
    }
}
