//! `[redis]` and limits that are shared: what they mean, and the errors of every key.

use super::{LEAST, bad, good};
#[cfg(feature = "redis")]
use framegate::config::RedisServer;

/// A shared limit is line 5, `[redis]` line 6, `keys` line 7.
fn file(keys: &str) -> String {
    format!("{LEAST}limits = {{ per_address = {{ sessions = 3, shared = true }} }}\n[redis]\n{keys}\n")
}

#[cfg(feature = "redis")]
fn written(content: &str) -> std::path::PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("framegate-config-redis-{}-{n}", std::process::id()));
    std::fs::write(&path, content).unwrap();
    path
}

#[cfg(feature = "redis")]
#[test]
fn sections_are_read_with_their_defaults() {
    let snapshot = good(&file("urls = [\"redis://10.0.0.1\"]"));
    let redis = snapshot.redis.as_ref().unwrap();
    let server = |url: &str, host: &str, port, tls, database| RedisServer {
        url: url.to_owned(),
        host: host.to_owned(),
        port,
        tls,
        database,
    };
    assert_eq!(redis.servers, [server("redis://10.0.0.1", "10.0.0.1", 6379, false, 0)]);
    assert!(!redis.cluster && redis.username.is_none() && redis.password.is_none() && redis.ca.is_none());
    assert_eq!(redis.namespace, "framegate");
    assert_eq!((redis.interval_ms, redis.timeout_ms, redis.host_timeout_ms), (100, 500, 10_000));
    assert!(snapshot.routes.entries()[0].route.by_address.as_ref().unwrap().limit.shared);
    let (password, ca) = (written("open sesame\n"), written("-----BEGIN CERTIFICATE-----\n"));
    let snapshot = good(&file(&format!(
        "urls = [\"rediss://[2001:db8::1]:7000\", \"rediss://Redis.internal\"]\ncluster = true\nusername = \"gate\"\n\
         password_file = {password:?}\nca = {ca:?}\nnamespace = \"edge-1\"\ninterval = \"20ms\"\ntimeout = \"2s\"\n\
         host_timeout = \"1s\""
    )));
    let redis = snapshot.redis.as_ref().unwrap();
    let second = server("rediss://Redis.internal", "redis.internal", 6379, true, 0);
    assert_eq!(redis.servers, [server("rediss://[2001:db8::1]:7000", "2001:db8::1", 7000, true, 0), second]);
    assert_eq!((redis.cluster, redis.username.as_deref(), redis.namespace.as_str()), (true, Some("gate"), "edge-1"));
    assert_eq!((redis.interval_ms, redis.timeout_ms, redis.host_timeout_ms), (20, 2_000, 1_000));
    assert_eq!(redis.password.as_ref().unwrap().0, "open sesame");
    assert!(!format!("{snapshot:?}").contains("sesame") && !snapshot.describe(20_000, 1).contains("sesame"));
    let database = good(&file("urls = [\"redis://localhost/7\"]"));
    assert_eq!(database.redis.as_ref().unwrap().servers[0].database, 7);
    for file in [password, ca] {
        std::fs::remove_file(file).unwrap();
    }
}

#[cfg(feature = "redis")]
#[test]
fn errors_name_their_place_and_what_is_right() {
    let one = "urls = [\"redis://10.0.0.1\"]";
    for (keys, key, why) in [
        ("", "6:1: redis.urls", "missing; add for example urls = [\"redis://10.0.0.1:6379\"]"),
        ("urls = []", "7:8: redis.urls", "missing; add for example urls"),
        ("urls = [\"10.0.0.1:6379\"]", "7:9: redis.urls", "\"10.0.0.1:6379\" is not a URL of Redis; expected for"),
        ("urls = [\"redis://\"]", "redis.urls", "\"redis://\" has no valid host"),
        ("urls = [\"redis://a:0\"]", "redis.urls", "\"redis://a:0\" has no valid port"),
        ("urls = [\"redis://a/x\"]", "redis.urls", "\"redis://a/x\" has no valid database; expected 0 to 65535"),
        ("urls = [\"redis://a/99999\"]", "redis.urls", "\"redis://a/99999\" has no valid database"),
        ("urls = [\"redis://a b\"]", "redis.urls", "\"redis://a b\" has a character not allowed in a URL"),
        ("urls = [\"redis://u:secret@a\"]", "redis.urls", "a URL with a user name or password; use username and"),
        ("urls = [\"redis://a\", \"redis://b\"]", "7:8: redis.urls", "more than one URL; for the nodes of a cluster"),
        ("urls = [\"redis://a\", \"rediss://b\"]\ncluster = true", "redis.urls", "some with TLS and some without"),
        ("urls = [\"redis://a/1\"]\ncluster = true", "redis.urls", "a cluster has no databases; remove the number"),
        (&format!("{one}\ncluster = 1"), "8:11: redis.cluster", "1 is not a boolean"),
        (&format!("{one}\nusername = \"a\""), "8:12: redis.username", "needs password_file"),
        (&format!("{one}\nusername = \"a b\""), "redis.username", "\"a b\" is not valid; expected one word"),
        (&format!("{one}\npassword_file = \"/no/such\""), "8:17: redis.password_file", "cannot read \"/no/such\""),
        (&format!("{one}\nca = \"/no/such\""), "8:6: redis.ca", "\"/no/such\" cannot be read"),
        (&format!("{one}\nca = \"Cargo.toml\""), "redis.ca", "\"Cargo.toml\" has no certificate in PEM"),
        (&format!("{one}\nca = \"Cargo.toml\""), "redis.ca", "has no effect without TLS; write the URL with rediss://"),
        (&format!("{one}\nnamespace = \"a:b\""), "8:13: redis.namespace", "\"a:b\" is not a valid name"),
        (
            &format!("{one}\ninterval = \"1ms\""),
            "8:12: redis.interval",
            "\"1ms\" is out of range; expected \"10ms\" to \"5s\"",
        ),
        (
            &format!("{one}\ntimeout = \"1m\""),
            "8:11: redis.timeout",
            "\"1m\" is out of range; expected \"10ms\" to \"10s\"",
        ),
        (
            &format!("{one}\nhost_timeout = \"1h\""),
            "8:16: redis.host_timeout",
            "\"1h\" is out of range; expected \"1s\" to \"10m\"",
        ),
        (
            &format!("{one}\ninterval = \"5s\""),
            "8:12: redis.host_timeout",
            "10s is too short for this interval; expected at least \"50s\"",
        ),
        (
            &format!("{one}\npassword = \"x\""),
            "8:1: redis.password",
            "unknown key; expected \"urls\", \"cluster\", \"username\", \"password_file\"",
        ),
    ] {
        let found = bad(&file(keys));
        let wanted = format!("{key}: {why}");
        assert!(found.iter().any(|line| line.contains(&wanted)), "{keys}\nwanted {wanted}\nfound {found:#?}");
        assert!(!found.concat().contains("secret"), "{found:?}");
    }
}

#[test]
fn sharing_needs_both_sides() {
    let alone = format!("{LEAST}limits = {{ per_address = {{ sessions = 3, shared = true }} }}\n");
    let why = "5:51: route.limits.per_address.shared: needs a [redis] section with urls = [\"redis://10.0.0.1:6379\"]";
    assert!(bad(&alone)[0].contains(why), "{:?}", bad(&alone));
    good(&alone.replace("true", "false"));
    let unused = format!("{LEAST}[redis]\nurls = [\"redis://10.0.0.1\"]\n");
    assert_eq!(good(&unused).redis, None, "there is nothing to share");
    assert!(bad(&format!("{unused}cluster = 1\n"))[0].contains("redis.cluster"), "its keys are read all the same");
    let wrong = alone.replace("true", "1");
    assert!(bad(&wrong).concat().contains("route.limits.per_address.shared: 1 is not a boolean"), "{:?}", bad(&wrong));
}

#[cfg(not(feature = "redis"))]
#[test]
fn without_the_feature_the_section_is_refused() {
    let found = bad(&file("urls = [\"redis://10.0.0.1\"]"));
    let why = "6:1: redis: not in this build; build with the cargo feature \"redis\"";
    assert!(found[0].contains(why), "{found:?}");
}
