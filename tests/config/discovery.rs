//! `discover` in an `[[upstream]]`: its meaning, and its errors.

#[cfg(feature = "discovery")]
use super::good;
use super::{LEAST, bad};
#[cfg(feature = "discovery")]
use framegate::config::discovery::{Access, Dns, Port, Query, Secret, Source};

/// A file with an upstream; `discover` begins in line 7.
fn with(discover: &str) -> String {
    format!("{LEAST}[[upstream]]\nname = \"app\"\n{discover}\n")
}

#[cfg(not(feature = "discovery"))]
#[test]
fn build_without_the_feature_names_it() {
    assert_eq!(
        bad(&with("discover = { file = { path = \"x\" } }")),
        ["framegate.toml:7:12: upstream.discover: not in this build; build with the cargo feature \"discovery\""]
    );
}

#[cfg(feature = "discovery")]
#[test]
fn sources_have_their_defaults() {
    let source = |discover: &str| good(&with(&format!("discover = {{ {discover} }}"))).discoveries.remove(0);
    let dns = source("dns = { name = \"App.Internal.\", port = 9000 }");
    let query = Query::Address { name: "app.internal".into(), port: 9000 };
    assert_eq!(dns.source, Source::Dns(Dns { query, servers: Vec::new(), timeout_ms: 2_000 }));
    assert_eq!((dns.upstream.as_str(), dns.tls, dns.path.as_str(), dns.allow_empty), ("app", false, "", false));
    let common =
        source("dns = { srv = \"_ws._tcp.app\", servers = [\"::1\", \"10.0.0.2:54\"] }, tls = true, path = \"/a/\"");
    assert_eq!((common.tls, common.path.as_str()), (true, "/a"));
    let Source::Dns(Dns { query: Query::Srv { name }, servers, .. }) = common.source else { panic!("not SRV") };
    assert_eq!(name, "_ws._tcp.app");
    assert_eq!(servers, ["[::1]:53", "10.0.0.2:54"].map(|text| text.parse().unwrap()));
    let Source::File(list) = source("file = { path = \"a.json\" }").source else { panic!("not a file") };
    assert_eq!(list.interval_ms, 1_000);
    let Source::Consul(consul) = source("consul = { service = \"x\", token_env = \"T\" }").source else { panic!() };
    assert_eq!((consul.api.url.as_str(), consul.wait_ms), ("http://127.0.0.1:8500", 60_000));
    assert_eq!((consul.api.token, consul.api.ca), (Some(Secret::Env("T".into())), None));
    let Source::Kubernetes(cluster) = source("kubernetes = { service = \"x\", port = 1 }").source else { panic!() };
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount".into();
    assert_eq!(
        (cluster.access, cluster.port),
        (Access::ServiceAccount { folder, server: None }, Some(Port::Number(1)))
    );
    let eureka = source("eureka = { app = \"X\", address = \"https://e:1/eureka/v2/\" }").source;
    let Source::Eureka(eureka) = eureka else { panic!("not Eureka") };
    assert_eq!((eureka.api.url.as_str(), eureka.interval_ms), ("https://e:1/eureka/v2", 30_000));
}

#[cfg(feature = "discovery")]
#[test]
fn discovering_upstream_needs_no_endpoints_and_no_server_name() {
    let dns = "discover = { dns = { name = \"app.internal\", port = 9000 }, tls = true }";
    let snapshot = good(&with(dns));
    let app = &snapshot.upstreams[0];
    assert!(app.endpoints().is_empty() && snapshot.uses_tls(app));
    assert_eq!(app.tls.server_name.as_deref(), Some("app.internal"));
    let snapshot = good(&with(&format!("tls = {{ server_name = \"x\" }}\n{dns}")));
    assert_eq!(snapshot.upstreams[0].tls.server_name.as_deref(), Some("x"));
    let both = good(&with("endpoints = [\"ws://a:1\"]\ndiscover = { file = { path = \"x\" } }"));
    assert_eq!(both.upstreams[0].endpoints().len(), 1);
    assert!(!both.uses_tls(&both.upstreams[0]));
}

#[cfg(feature = "discovery")]
#[test]
fn check_shows_sources_without_secrets() {
    let shown = |discover: &str| {
        let text = good(&with(&format!("discover = {{ {discover} }}"))).describe(20_000, 2);
        text.lines()
            .find_map(|line| line.trim().strip_prefix("endpoints by "))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    assert_eq!(shown("dns = { name = \"a.b\", port = 1 }, tls = true"), "dns: addresses of a.b, port 1, TLS");
    assert_eq!(shown("dns = { srv = \"_a._tcp.b\" }"), "dns: SRV records of _a._tcp.b");
    assert_eq!(shown("file = { path = \"a.toml\" }, allow_empty = true"), "file: a.toml, may be empty");
    let consul = shown("consul = { service = \"x\", token_file = \"/etc/token\" }");
    assert_eq!(consul, "consul: service x at http://127.0.0.1:8500");
    assert_eq!(shown("kubernetes = { service = \"x\", kubeconfig = \"k\" }"), "kubernetes: service x with k");
    assert_eq!(shown("eureka = { app = \"X\" }"), "eureka: app X at http://127.0.0.1:8761/eureka");
}

/// Each with position and key, and the rest of the sentence.
#[cfg(feature = "discovery")]
const WRONG: &[(&str, &str, &str)] = &[
    ("discover = {}", "7:12: upstream.discover", "expected exactly one of dns, file, consul, kubernetes, eureka"),
    (
        "discover = { file = { path = \"x\" }, eureka = { app = \"x\" } }",
        "7:12: upstream.discover",
        "expected exactly one of dns, file, consul, kubernetes, eureka",
    ),
    ("discover = { consol = {} }", "7:14: upstream.discover.consol", "unknown key; did you mean \"consul\"?"),
    ("discover = \"dns\"", "7:12: upstream.discover", "not a table; use discover = { ... }"),
    (
        "[upstream.discover.file]\npaht = \"x\"",
        "8:1: upstream.discover.file.paht",
        "unknown key; did you mean \"path\"?",
    ),
    (
        "discover = { file = {} }",
        "7:21: upstream.discover.file.path",
        "missing; add for example path = \"endpoints.toml\"",
    ),
    (
        "discover = { file = { path = \"x\", interval = \"1ms\" } }",
        "7:46: upstream.discover.file.interval",
        "\"1ms\" is out of range; expected \"100ms\" to \"1h\"",
    ),
    (
        "discover = { file = { path = \"x\" }, path = \"/a\" }",
        "7:44: upstream.discover.path",
        "not with file, whose endpoints are complete URLs; remove it",
    ),
    ("discover = { file = { path = \"\" } }", "7:30: upstream.discover.file.path", "\"\" is not a file name"),
    (
        "discover = { dns = { name = \"a\", port = 1 }, path = \"a\" }",
        "7:53: upstream.discover.path",
        "\"a\" has no valid path; begin it with a slash and percent-encode other characters",
    ),
    ("discover = { dns = {} }", "7:20: upstream.discover.dns", "expected either name, with a port, or srv"),
    (
        "discover = { dns = { name = \"a\" } }",
        "7:20: upstream.discover.dns.port",
        "missing; add for example port = 9000",
    ),
    (
        "discover = { dns = { name = \"a b\", port = 0 } }",
        "7:29: upstream.discover.dns.name",
        "\"a b\" is not a DNS name; expected for example \"app.internal\"",
    ),
    (
        "discover = { dns = { name = \"a\", port = 0 } }",
        "7:41: upstream.discover.dns.port",
        "0 is not a port; expected 1 to 65535",
    ),
    (
        "discover = { dns = { srv = \"a\", port = 1 } }",
        "7:40: upstream.discover.dns.port",
        "not with srv, whose records have ports; remove it",
    ),
    (
        "discover = { dns = { srv = \"a\", servers = [\"dns\"] } }",
        "7:44: upstream.discover.dns.servers",
        "\"dns\" is not an address; expected for example \"127.0.0.1\" or \"127.0.0.1:5353\"",
    ),
    (
        "discover = { dns = { srv = \"a\", servers = [] } }",
        "7:43: upstream.discover.dns.servers",
        "expected 1 to 8 addresses",
    ),
    (
        "discover = { consul = { address = \"consul:8500\" } }",
        "7:35: upstream.discover.consul.address",
        "\"consul:8500\" is not an HTTP URL; expected http:// or https://",
    ),
    (
        "discover = { consul = { service = \"x\", address = \"http://user:sesame@c\" } }",
        "7:50: upstream.discover.consul.address",
        "has a user name, query or fragment; remove it, and name secrets by file",
    ),
    (
        "discover = { consul = { service = \"x\", address = \"http://\" } }",
        "7:50: upstream.discover.consul.address",
        "\"http://\" has no valid host, port or path",
    ),
    (
        "discover = { consul = { service = \"x/y\" } }",
        "7:35: upstream.discover.consul.service",
        "\"x/y\" is not a valid name; expected 1 to 100 letters, digits, \"-\", \".\" or \"_\"",
    ),
    (
        "discover = { consul = { service = \"x\", token_file = \"f\", token_env = \"E\" } }",
        "7:70: upstream.discover.consul.token_env",
        "not with the file; remove one of the two",
    ),
    (
        "discover = { consul = { service = \"x\", wait = \"11m\" } }",
        "7:47: upstream.discover.consul.wait",
        "\"11m\" is out of range; expected \"1s\" to \"10m\"",
    ),
    (
        "discover = { consul = { service = \"x\", tag = \"a b\" } }",
        "7:46: upstream.discover.consul.tag",
        "\"a b\" is not valid; expected one word",
    ),
    (
        "discover = { kubernetes = { service = \"x\", port = true } }",
        "7:51: upstream.discover.kubernetes.port",
        "true is not a port; expected 1 to 65535, or the name of a port",
    ),
    (
        "discover = { kubernetes = { service = \"x\", kubeconfig = \"k\", server = \"https://a\" } }",
        "7:71: upstream.discover.kubernetes.server",
        "not with kubeconfig, which has it; remove one of the two",
    ),
    (
        "discover = { kubernetes = {} }",
        "7:27: upstream.discover.kubernetes.service",
        "missing; add for example service = \"chat\"",
    ),
    ("discover = { eureka = {} }", "7:23: upstream.discover.eureka.app", "missing; add for example app = \"CHAT\""),
];

#[cfg(feature = "discovery")]
#[test]
fn errors_have_place_key_and_what_is_right() {
    let mut missing = Vec::new();
    for (discover, place, why) in WRONG {
        let sentences = bad(&with(discover));
        let expected = format!("framegate.toml:{place}: {why}");
        if !sentences.contains(&expected) {
            missing.push(format!("{expected}\n    in {sentences:?}"));
        }
        assert!(!sentences.join("\n").contains("sesame"));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[cfg(feature = "discovery")]
#[test]
fn number_of_discovering_upstreams_is_limited() {
    let upstream = |n| format!("[[upstream]]\nname = \"u{n}\"\ndiscover = {{ file = {{ path = \"x\" }} }}\n");
    let file = |count| LEAST.to_owned() + &(0..count).map(upstream).collect::<String>();
    assert_eq!(good(&file(64)).discoveries.len(), 64);
    let sentences = bad(&file(66));
    assert_eq!(sentences.len(), 1, "{sentences:?}");
    assert!(sentences[0].ends_with("upstream.discover: at most 64 upstreams can discover their endpoints"));
}
