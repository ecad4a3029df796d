//! Configuration files: their meaning, and the errors of invalid ones.

#[path = "config/access.rs"]
mod access;
#[path = "config/auth.rs"]
mod auth;
#[path = "config/clients.rs"]
mod clients;
#[path = "config/discovery.rs"]
mod discovery;
#[path = "config/example.rs"]
mod example;
#[path = "common/facts.rs"]
mod facts;
#[path = "config/files.rs"]
mod files;
#[path = "config/flow.rs"]
mod flow;
#[path = "config/forwarding.rs"]
mod forwarding;
#[path = "config/health.rs"]
mod health;
#[path = "config/heartbeat.rs"]
mod heartbeat;
#[path = "config/limits.rs"]
mod limits;
#[path = "config/passwords.rs"]
mod passwords;
#[path = "config/plain.rs"]
mod plain;
#[path = "config/redis.rs"]
mod redis;
#[path = "config/renewal.rs"]
mod renewal;
#[path = "config/rewrite.rs"]
mod rewrite;
#[path = "config/shadow.rs"]
mod shadow;
#[path = "config/shield.rs"]
mod shield;
#[path = "config/tokens.rs"]
mod tokens;
#[path = "config/upstreams.rs"]
mod upstreams;

use facts::route_of;
use framegate::config::{self, AccessLog, Error, Flags, Format, Limits, Listener, ResolvedLimits, Snapshot};
use framegate::memory::SCRATCH_BYTES;
use framegate::policy::endpoint::Address;
use framegate::policy::rewrite::PathRule;
use framegate::proto::settings::{FrameLimits, Mode, Timeouts};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "framegate.toml";
/// The smallest valid file, in four lines.
const LEAST: &str = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";

fn parse(text: &str) -> Result<Snapshot, Error> {
    config::parse(text, NAME)
}

#[track_caller]
fn good(text: &str) -> Snapshot {
    parse(text).unwrap_or_else(|e| panic!("{e}\n---\n{text}"))
}

/// All errors of an invalid text.
#[track_caller]
fn bad(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.sentences().to_vec(),
    }
}

/// The errors of `more`, which follows [`LEAST`]: its first line is line 5.
#[track_caller]
fn bad_beside(more: &str) -> Vec<String> {
    bad(&format!("{LEAST}{more}"))
}

#[track_caller]
fn good_beside(more: &str) -> Snapshot {
    good(&format!("{LEAST}{more}"))
}

#[test]
fn minimal_file_has_the_defaults() {
    let snapshot = good(LEAST);
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(snapshot.listeners[0].addr.to_string(), "0.0.0.0:8080");
    assert_eq!(snapshot.limits, Limits::default());
    assert_eq!(
        millis(&snapshot.settings.timeouts),
        [10_000, 10_000, 10_000, 3_000, 10_000, 10_000, 300_000, 5_000, 60_000]
    );
    assert_eq!(snapshot.admin, None, "two processes on one host must not collide by default");
    let route = route_of(&snapshot.routes, "any.host", "/any/path").unwrap();
    assert_eq!(route.name, "/*");
    assert_eq!(route.settings.relay.mode, Mode::Framed);
    assert_eq!(route.settings.relay.limits, FrameLimits { max_frame: 1 << 30, max_message: 1 << 30 });
    assert_eq!(route.settings.timeouts, snapshot.settings.timeouts);
    assert_eq!(route.settings.relay.upstream_loss_code, None);
    assert_eq!(route.upstreams()[0].name, "ws://10.0.0.1:9000");
}

fn flags(listen: &str, upstream: &str) -> Flags {
    Flags { listen: Some(listen.to_owned()), tls: None, upstream: upstream.to_owned() }
}

#[test]
fn flags_and_demo_equal_the_minimal_file() {
    let by_flags = config::from_flags(&flags("0.0.0.0:8080", "ws://10.0.0.1:9000")).unwrap();
    assert_eq!(by_flags, good(LEAST));
    let addr = |text: &str| text.parse().unwrap();
    let demo = config::demo(vec![Listener::plain(addr("0.0.0.0:8080"))], addr("127.0.0.1:9901"), addr("10.0.0.1:9000"));
    let any = "origins = [\"*\"]";
    assert_eq!(demo, good(&format!("{LEAST}{any}\n[admin]\nlisten = \"127.0.0.1:9901\"\n")));
}

#[test]
fn invalid_flags_are_named() {
    let address = "is not a listen address; expected address and port, for example \"0.0.0.0:8080\" or \"[::]:8080\"";
    let url = "is not a URL; expected for example \"ws://10.0.0.1:9000\" or \"ws+unix:/run/app.sock\"";
    for (listen, upstream, sentence) in [
        ("8080", "ws://x", format!("--listen: \"8080\" {address}")),
        ("0.0.0.0:80", "x:80", format!("--upstream: \"x:80\" {url}")),
    ] {
        assert_eq!(config::from_flags(&flags(listen, upstream)).unwrap_err().to_string(), sentence);
    }
}

const EVERY_KEY: &str = r#"
[workers]
count = 2
pin = false
[[listener]]
listen = "127.0.0.1:0"
trusted_proxies = ["10.1.2.3/8", "::1"]
[[listener]]
listen = "127.0.0.2:0"
[[route]]
name = "live"
host = "*.Example.com"
path = "/live/*"
upstream = "app"
strip_prefix = "/live/"
host_header = "app.internal:9000"
mode = "opaque"
on_upstream_loss = "close"
on_upstream_loss_code = 4000
on_upstream_error_code = 1011
limits = { max_frame = "1KiB", max_message = "2KiB" }
[route.timeouts]
connect = "11ms"
connect_total = "12ms"
decision = "17ms"
upstream_head = "13ms"
idle = 0
close = "15ms"
write_stall = "16ms"
[[route]]
upstream = "ws+unix:/run/app.sock:/base"
on_upstream_loss = "close"
[[route]]
path = "/second"
upstream = "ws+unix:/run/app.sock:/base"
[[upstream]]
name = "app"
endpoints = ["ws://10.0.0.1:9000/base/", "ws://app.internal"]
balance = "round_robin"
[limits]
max_sessions = 1000
max_handshakes = 100
head = "8KiB"
buffers = "1MiB"
max_frame = "3KiB"
max_message = 4096
[timeouts]
tls = "19ms"
request_head = "20ms"
decision = "27ms"
connect = "21ms"
connect_total = "22ms"
upstream_head = "23ms"
idle = "24ms"
close = "25ms"
write_stall = "26ms"
[sockets]
notsent_lowat = 0
keepalive = "0s"
user_timeout = "30s"
[drain]
spread = 0
deadline = "1m"
[log]
access = "logs/access.log"
format = "json"
level = "warn"
[admin]
listen = "off"
fault_injection = true
"#;

fn millis(timeouts: &Timeouts) -> [u64; 9] {
    let t = timeouts;
    [
        t.tls_ms,
        t.request_head_ms,
        t.decision_ms,
        t.connect_ms,
        t.connect_total_ms,
        t.upstream_head_ms,
        t.idle_ms,
        t.close_ms,
        t.write_stall_ms,
    ]
}

#[test]
fn every_route_key_takes_effect() {
    let snapshot = good(EVERY_KEY);
    let live = route_of(&snapshot.routes, "a.example.com:80", "/live/x").unwrap();
    let relay = &live.settings.relay;
    assert_eq!((live.name.as_str(), relay.mode, relay.upstream_loss_code), ("live", Mode::Opaque, Some(4000)));
    assert_eq!((relay.upstream_error_code, live.settings.head_bytes), (1011, 8 << 10));
    assert_eq!(live.rewrite.rule, PathRule::Strip("/live".to_owned()));
    assert_eq!(live.host_header.as_deref(), Some("app.internal:9000"));
    assert_eq!(live.settings.relay.limits, FrameLimits { max_frame: 1024, max_message: 2048 });
    assert_eq!(millis(&live.settings.timeouts), [19, 20, 17, 11, 12, 13, 0, 15, 16]);

    let other = route_of(&snapshot.routes, "example.com", "/live").unwrap();
    assert_eq!((other.name.as_str(), other.settings.relay.upstream_loss_code), ("/*", Some(1012)));
    assert_eq!(other.settings.relay.limits, FrameLimits { max_frame: 3072, max_message: 4096 });
    assert_eq!(other.settings.timeouts, snapshot.settings.timeouts);
    assert_eq!(other.settings.relay.upstream_error_code, 1014);
    let second = route_of(&snapshot.routes, "example.com", "/second").unwrap();
    assert!(Arc::ptr_eq(&second.upstreams()[0], &other.upstreams()[0]), "one upstream for each URL");

    assert_eq!(snapshot.upstreams.len(), 2);
    assert!(Arc::ptr_eq(&snapshot.upstreams[0], &live.upstreams()[0]) && live.upstreams()[0].name == "app");
    let app = live.upstreams()[0].endpoints();
    assert_eq!(app[0].base, "/base");
    assert_eq!(app[1].address, Address::Name("app.internal:80".into()));
    let inline = other.upstreams()[0].endpoints();
    assert_eq!(inline[0].address, Address::Unix(PathBuf::from("/run/app.sock")));
    assert_eq!(inline[0].base, "/base");
}

#[test]
fn every_process_key_takes_effect() {
    let snapshot = good(EVERY_KEY);
    assert_eq!((snapshot.workers.count, snapshot.workers.pin), (Some(2), false));
    let trusted: Vec<_> = snapshot.listeners[0].trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(snapshot.listeners.len(), 2, "port 0 may be there twice");
    assert_eq!(millis(&snapshot.settings.timeouts), [19, 20, 27, 21, 22, 23, 24, 25, 26]);
    let limits = &snapshot.limits;
    assert_eq!((limits.max_sessions, limits.max_handshakes), (Some(1000), Some(100)));
    assert_eq!((limits.head_bytes, limits.buffer_bytes), (8 << 10, 1 << 20));
    let sockets = &snapshot.sockets;
    assert_eq!((sockets.notsent_lowat_bytes, sockets.keepalive_s, sockets.user_timeout_ms), (0, 0, 30_000));
    assert_eq!((snapshot.drain.spread_ms, snapshot.drain.deadline_ms), (0, 60_000));
    assert_eq!(snapshot.log.access, AccessLog::File(PathBuf::from("logs/access.log")));
    assert_eq!((snapshot.log.format, snapshot.log.level), (Format::Json, log::LevelFilter::Warn));
    assert!(snapshot.admin.is_none());
    let admin = good_beside("[admin]\nlisten = \"127.0.0.1:9901\"\nfault_injection = true\n").admin;
    assert!(admin.unwrap().fault_injection);
}

#[test]
fn max_message_lowers_max_frame() {
    let rules = |more: &str| route_of(&good_beside(more).routes, "h", "/").unwrap().settings.relay.limits;
    assert_eq!(rules("limits.max_message = \"1MiB\"\n"), FrameLimits { max_frame: 1 << 20, max_message: 1 << 20 });
    assert_eq!(rules("[limits]\nmax_message = \"1MiB\"\n"), FrameLimits { max_frame: 1 << 20, max_message: 1 << 20 });
    let both = "limits.max_message = \"1MiB\"\n[limits]\nmax_frame = \"1KiB\"\n";
    assert_eq!(rules(both), FrameLimits { max_frame: 1 << 10, max_message: 1 << 20 });
}

/// Each invalid text follows [`LEAST`]; with position and key, and the rest of the message.
const WRONG: &[(&str, &str, &str)] = &[
    // Values.
    (
        "[timeouts]\n  idle = \"5 parsecs\"\n",
        "6:10: timeouts.idle",
        "\"5 parsecs\" is not a duration; expected for example \"30s\" or \"5m\"",
    ),
    ("timeouts = { idle = 5 }\n", "5:21: route.timeouts.idle", "5 has no unit; expected for example \"5s\" or \"5ms\""),
    ("[timeouts]\nclose = 0\n", "6:9: timeouts.close", "0 is out of range; expected \"10ms\" to \"30days\""),
    (
        "timeouts.request_head = \"5s\"\n",
        "5:25: route.timeouts.request_head",
        "applies before a route is selected; set it in [timeouts]",
    ),
    ("[timeouts]\nconnect = \"20s\"\n", "6:11: timeouts.connect", "20s exceeds connect_total (10s)"),
    ("timeouts.connect_total = \"1s\"\n", "5:26: route.timeouts.connect", "3s exceeds connect_total (1s)"),
    ("[limits]\nhead = \"2MiB\"\n", "6:8: limits.head", "\"2MiB\" is out of range; expected \"1 KiB\" to \"1 MiB\""),
    ("[limits]\nhead = 1023\n", "6:8: limits.head", "1023 is out of range; expected \"1 KiB\" to \"1 MiB\""),
    (
        "[limits]\nbuffers = \"255KiB\"\n",
        "6:11: limits.buffers",
        "\"255KiB\" is out of range; expected \"256 KiB\" to \"1 TiB\"",
    ),
    (
        "[workers]\ncount = 8\n[limits]\nbuffers = \"1MiB\"\n",
        "8:11: limits.buffers",
        "1 MiB is too small for 8 workers; expected at least \"2 MiB\"",
    ),
    (
        "[workers]\ncount = 1024\n",
        "6:9: limits.buffers",
        "64 MiB is too small for 1024 workers; expected at least \"256 MiB\"",
    ),
    ("[workers]\ncount = 0\n", "6:9: workers.count", "0 is not valid; expected \"auto\" or a number from 1 to 1024"),
    ("[workers]\npin = 1\n", "6:7: workers.pin", "1 is not a boolean; expected true or false, without quotes"),
    (
        "[limits]\nmax_sessions = \"lots\"\n",
        "6:16: limits.max_sessions",
        "\"lots\" is not valid; expected \"auto\" or a number from 1 to 100000000",
    ),
    (
        "[limits]\nmax_frame = \"2GiB\"\n",
        "6:13: limits.max_frame",
        "2 GiB exceeds max_message (1 GiB); lower it, or raise limits.max_message",
    ),
    (
        "limits = { max_frame = 2, max_message = 1 }\n",
        "5:24: route.limits.max_frame",
        "2 B exceeds max_message (1 B); lower it, or raise route.limits.max_message",
    ),
    (
        "[limits]\nmax_message = 0\n",
        "6:15: limits.max_message",
        "0 is out of range; expected \"1 B\" to \"9223372036854775807 B\"",
    ),
    (
        "[sockets]\nkeepalive = \"1500ms\"\n",
        "6:13: sockets.keepalive",
        "\"1500ms\" is not a number of whole seconds; expected for example \"60s\"",
    ),
    (
        "[sockets]\nnotsent_lowat = \"1KiB\"\n",
        "6:17: sockets.notsent_lowat",
        "\"1KiB\" is out of range; expected \"4 KiB\" to \"16 MiB\", or 0 for the kernel's default",
    ),
    (
        "[sockets]\nuser_timeout = \"1ms\"\n",
        "6:16: sockets.user_timeout",
        "\"1ms\" is out of range; expected \"1s\" to \"1day\", or 0 for the kernel's default",
    ),
    ("[drain]\nspread = \"30s\"\n", "6:10: drain.spread", "30s exceeds drain.deadline (25s)"),
    ("[drain]\ndeadline = \"0s\"\n", "6:12: drain.deadline", "\"0s\" is out of range; expected \"10ms\" to \"1day\""),
    (
        "[log]\naccess = \"stdot\"\n",
        "6:10: log.access",
        "\"stdot\" is not valid; expected \"stdout\", \"off\", or a file with a slash",
    ),
    ("[log]\nformat = \"jsno\"\n", "6:10: log.format", "\"jsno\" is not valid; did you mean \"json\"?"),
    (
        "[log]\nlevel = \"verbose\"\n",
        "6:9: log.level",
        "\"verbose\" is not valid; expected \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\"",
    ),
    (
        "[admin]\nlisten = \"of\"\n",
        "6:10: admin.listen",
        "\"of\" is not a listen address; expected address and port, for example \"0.0.0.0:8080\" or \
         \"[::]:8080\", or \"off\"",
    ),
    (
        "[admin]\nlisten = \"0.0.0.0:8080\"\n",
        "6:10: admin.listen",
        "0.0.0.0:8080 is already used by a [[listener]]; choose another, or \"off\"",
    ),
    // Listeners.
    ("[[listener]]\nlisten = \"0.0.0.0:8080\"\n", "6:10: listener.listen", "duplicate listen address 0.0.0.0:8080"),
    (
        "[[listener]]\ntrusted_proxies = []\n",
        "5:1: listener.listen",
        "missing; add for example listen = \"0.0.0.0:8080\"",
    ),
    ("[[listener]]\nlisten = 80\n", "6:10: listener.listen", "80 is not a string; put it in quotes"),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntrusted_proxies = [\"::1\", \"x\"]\n",
        "7:27: listener.trusted_proxies",
        "\"x\" is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"",
    ),
    // Routes.
    (
        "path = \"chat\"\n",
        "5:8: route.path",
        "\"chat\" does not begin with a slash; expected for example \"/chat\" or \"/live/*\"",
    ),
    (
        "host = \"a:80\"\n",
        "5:8: route.host",
        "\"a:80\" has a port; give the host alone, which matches all ports (an IPv6 address in brackets)",
    ),
    ("mode = \"message\"\n", "5:8: route.mode", "\"message\" is not valid; expected \"framed\" or \"opaque\""),
    (
        "path = \"/a\"\nstrip_prefix = \"/b\"\n",
        "6:16: route.strip_prefix",
        "\"/b\" is not a prefix of this route's paths",
    ),
    (
        "name = \"a b\"\n",
        "5:8: route.name",
        "\"a b\" is not a valid name; expected 1 to 100 letters, digits, \"-\", \".\" or \"_\"",
    ),
    (
        "on_upstream_loss_code = 1006\n",
        "5:25: route.on_upstream_loss_code",
        "1006 is not a close code that may be sent; expected 1000 to 1003, 1007 to 1014, or 3000 to 4999",
    ),
    ("on_upstream_loss = \"pas\"\n", "5:20: route.on_upstream_loss", "\"pas\" is not valid; did you mean \"pass\"?"),
    (
        "[[route]]\n",
        "5:1: route.upstream",
        "missing; expected the name of an [[upstream]] or a URL such as \"ws://10.0.0.1:9000\"",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"ftp://a\"\n",
        "7:12: route.upstream",
        "\"ftp://a\" has no scheme of a server; expected ws://, wss://, http://, https:// or ws+unix:",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"app\"\n",
        "7:12: route.upstream",
        "no [[upstream]] is named \"app\"; add an [[upstream]] section with that name, or use a URL such as \
         \"ws://10.0.0.1:9000\"",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"chta\"\n[[upstream]]\nname = \"chat\"\nendpoints = [\"ws://a\"]\n",
        "7:12: route.upstream",
        "no [[upstream]] is named \"chta\"; did you mean \"chat\"?",
    ),
    ("[[route]]\nupstream = \"ws://a\"\n", "5:1: route.path", "same host and path as the route in line 3"),
    (
        "path = \"/%61\"\n[[route]]\nhost = \"A.\"\npath = \"/a\"\nupstream = \"ws://a\"\n[[route]]\nhost = \"a\"\n\
         path = \"/%61\"\nupstream = \"ws://a\"\n",
        "12:8: route.path",
        "same host and path as the route in line 6",
    ),
    (
        "name = \"x\"\n[[route]]\npath = \"/a\"\nname = \"x\"\nupstream = \"ws://a\"\n",
        "8:8: route.name",
        "\"x\" is also the name of the route in line 3; choose another",
    ),
    // Upstreams.
    (
        "[[upstream]]\nname = \"a\"\n",
        "5:1: upstream.endpoints",
        "missing; add for example endpoints = [\"ws://10.0.0.1:9000\"]",
    ),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = []\n",
        "7:13: upstream.endpoints",
        "missing; add for example endpoints = [\"ws://10.0.0.1:9000\"]",
    ),
    (
        "[[upstream]]\nendpoints = [\"ws://a\"]\n",
        "5:1: upstream.name",
        "missing; add the name that routes use, for example name = \"app\"",
    ),
    (
        "[[upstream]]\nname = \"a/b\"\nendpoints = [\"ws://a\"]\n",
        "6:8: upstream.name",
        "\"a/b\" is not a valid name; expected 1 to 100 letters, digits, \"-\", \".\" or \"_\"",
    ),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = [\"ws://a\"]\n[[upstream]]\nname = \"a\"\nendpoints = [\"ws://a\"]\n",
        "9:8: upstream.name",
        "\"a\" is the name of another upstream; choose another",
    ),
    (
        "[[upstream]]\nname = \"a\"\nbalance = \"fastest\"\nendpoints = [\"ws://a\"]\n",
        "7:11: upstream.balance",
        "\"fastest\" is not valid; expected \"round_robin\", \"weighted\", \"least_sessions\", \"two_choices\", \
         \"random\" or \"consistent_hash\"",
    ),
    // Keys.
    ("[workers]\ncoutn = 3\n", "6:1: workers.coutn", "unknown key; did you mean \"count\"?"),
    ("[timeouts]\nconect = \"3s\"\n", "6:1: timeouts.conect", "unknown key; did you mean \"connect\"?"),
    ("[drain]\nwhatever = 1\n", "6:1: drain.whatever", "unknown key; expected \"spread\" or \"deadline\""),
    (
        "[accounting]\n",
        "5:2: accounting",
        "unknown key; expected \"workers\", \"listener\", \"route\", \"upstream\", \"auth\", \"redis\", \"limits\", \
         \"shield\", \
         \"timeouts\", \"sockets\", \"drain\", \"log\" or \"admin\"",
    ),
    ("limits = { max_frames = 1 }\n", "5:12: route.limits.max_frames", "unknown key; did you mean \"max_frame\"?"),
    // Shapes.
    ("[upstream]\nname = \"a\"\n", "5:1: upstream", "can occur more than once; use [[upstream]]"),
    ("limits = 3\n", "5:10: route.limits", "not a table; use limits = { ... }"),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = \"ws://a\"\n",
        "7:13: upstream.endpoints",
        "not a list; use endpoints = [\"...\"]",
    ),
    ("[log]\nformat = 2020-01-01\n", "6:10: log.format", "a date is not valid; expected \"text\" or \"json\""),
    ("[[log]]\nformat = \"text\"\n", "5:1: log", "can occur only once; use [log]"),
    ("limits = [1, 2]\n", "5:10: route.limits", "not a table; use limits = { ... }"),
    // TOML syntax.
    ("[log]\nlevel = \"info\"\nlevel = \"info\"\n", "7:1: level", "duplicate key; remove one of them"),
    ("[log]\nlevel = info\n", "6:9: level", "missing quotes; use level = \"info\""),
    ("[timeouts]\nidle = 5m\n", "6:8: idle", "missing quotes; use idle = \"5m\""),
    ("[log]\nlevel = \n", "6:9: invalid TOML", "string values must be quoted, expected literal string"),
    ("[log]\nlevel = \"info\n", "6:14: invalid TOML", "invalid basic string, expected `\"`"),
    ("upstream app\n", "5:10: invalid TOML", "key with no value, expected `=`"),
    ("[log\n", "5:5: invalid TOML", "unclosed table, expected `]`"),
    // TLS.
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { }\n",
        "5:1: listener.tls.certificates",
        "missing; add for example certificates = [{ cert = \"/etc/tls/chain.pem\", key = \"/etc/tls/key.pem\" }]",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { certificates = [{ cert = \"a\" }] }\n",
        "7:25: listener.tls.certificates.key",
        "missing; cert and key are required together",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { certificates = [{ cert = \"a\", key = \"b\" }], \
         client_auth = \"required\" }\n",
        "7:67: listener.tls.client_auth",
        "requires client_ca, a file with the CA certificates",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\nredirect = \"https\"\n\
         tls = { certificates = [{ cert = \"a\", key = \"b\" }] }\n",
        "7:12: listener.redirect",
        "requires a listener without TLS; move it there, or remove tls",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\nredirect = \"http\"\n",
        "7:12: listener.redirect",
        "\"http\" is not valid; expected \"https\", \"https:8443\" for another port, or \"off\"",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls = { ca = \"a\", insecure_skip_verify = true }\n",
        "8:42: upstream.tls.insecure_skip_verify",
        "conflicts with ca; remove one of the two",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls.server_name = \"a b\"\n",
        "8:19: upstream.tls.server_name",
        "\"a b\" is not a valid server name",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls.min_version = \"1.1\"\n",
        "8:19: upstream.tls.min_version",
        "\"1.1\" is not valid; did you mean \"1.2\" or \"1.3\"?",
    ),
    // Columns count characters.
    (
        "limits = { \"ü\" = 1 }\n",
        "5:12: route.limits.ü",
        "unknown key; expected \"max_frame\", \"max_message\", \"max_body\", \"max_sessions\", \"handshakes\", \
         \"total\", \"per_address\", \"per_identity\", \"messages\", \"bytes\", \"control_frames\", \
         \"upstream_messages\", \"upstream_bytes\", \"fragments\" or \"session_age\"",
    ),
    (
        "timeouts = { \"close\" = \"ü\", idle = \"x\" }\n",
        "5:24: route.timeouts.close",
        "\"ü\" is not a duration; expected for example \"30s\" or \"5m\"",
    ),
];

#[test]
fn each_error_has_its_position_and_remedy() {
    for (more, place, rest) in WRONG {
        let told = bad_beside(more);
        let expected = format!("{NAME}:{place}: {rest}");
        assert_eq!(told.first(), Some(&expected), "{more}\nall: {told:#?}");
        for sentence in &told {
            assert!(!sentence.contains('\n'), "{sentence}");
        }
    }
}

#[test]
fn all_errors_are_reported_in_file_order() {
    let told =
        bad_beside("mode = 1\n[drain]\nspread = \"x\"\n[timeouts]\nidle = \"y\"\nclose = false\n[log]\nlevel = 1\n");
    let place = |sentence: &String| sentence.split(": ").take(2).collect::<Vec<_>>().join(" ");
    let expected =
        ["5:8 route.mode", "7:10 drain.spread", "9:8 timeouts.idle", "10:9 timeouts.close", "12:9 log.level"];
    assert_eq!(told.iter().map(place).collect::<Vec<_>>(), expected.map(|place| format!("{NAME}:{place}")));
    let error = parse(&format!("{LEAST}mode = 1\n[drain]\nspread = \"x\"\n")).unwrap_err();
    assert_eq!(error.to_string().lines().count(), 2);
}

#[test]
fn empty_file_reports_what_is_required() {
    assert_eq!(
        bad(""),
        [
            "framegate.toml:1:1: listener: missing; add a [[listener]] section with listen = \"0.0.0.0:8080\"",
            "framegate.toml:1:1: route: missing; add a [[route]] section with upstream = \"ws://10.0.0.1:9000\"",
        ]
    );
}

#[test]
fn list_instead_of_table_is_an_error() {
    assert_eq!(bad("workers = [2, true]\n"), ["framegate.toml:1:11: workers: not a table; use [workers]"]);
    assert_eq!(bad("route = 1\n"), ["framegate.toml:1:9: route: can occur more than once; use [[route]]"]);
    assert_eq!(bad("route = [[1]]\n"), ["framegate.toml:1:10: route: not a table; use [[route]]"]);
}

#[test]
fn parser_never_panics() {
    for at in 0..EVERY_KEY.len() {
        // Cut at every byte, and with one byte removed.
        let _ = parse(&EVERY_KEY[..at]);
        let _ = parse(&format!("{}{}", &EVERY_KEY[..at], &EVERY_KEY[at + 1..]));
    }
    for (more, _, _) in WRONG {
        for (at, _) in more.char_indices() {
            let _ = parse(&format!("{LEAST}{}", &more[..at]));
        }
    }
}

#[test]
fn unreadable_file_is_named() {
    let error = config::load(Path::new("/no/such/framegate.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/framegate.toml: cannot be read: No such file"), "{error}");
    let path = std::env::temp_dir().join(format!("framegate-not-text-{}.toml", std::process::id()));
    std::fs::write(&path, b"[log]\nlevel = \"\xff\"\n").unwrap();
    let error = config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(error, format!("{}:2:10: not valid UTF-8", path.display()));
}

#[test]
fn default_limits_follow_the_descriptor_limit() {
    let auto = Limits::default();
    for (nofile, max_sessions, max_handshakes) in [
        (1024, 320, 128),
        (20_000, 8622, 2500),
        (256, 0, 32),
        (0, 0, 0),
        (u64::MAX, (1 << 30) / 16 * 7 - 128, (1 << 30) / 8),
    ] {
        assert_eq!(auto.resolve(nofile), ResolvedLimits { max_sessions, max_handshakes }, "{nofile}");
    }
    let one = Limits { max_sessions: Some(10), ..Limits::default() };
    assert_eq!(one.resolve(1024), ResolvedLimits { max_sessions: 10, max_handshakes: 128 });
    let other = Limits { max_handshakes: Some(68), ..Limits::default() };
    assert_eq!(other.resolve(1024), ResolvedLimits { max_sessions: 350, max_handshakes: 68 });
}

#[test]
fn settings_beyond_the_machine_are_reported() {
    let fits = |more: &str, nofile: u64, cpus: usize| good_beside(more).resource_errors(nofile, cpus);
    assert_eq!(fits("", 1024, 2), [""; 0]);
    assert_eq!(fits("", 1024, 64 * 1024 * 1024 / (2 * SCRATCH_BYTES)), [""; 0]);
    assert_eq!(fits("", u64::MAX, 2), [""; 0]);
    let exact = "[limits]\nmax_sessions = 320\nmax_handshakes = 128\n";
    assert_eq!(fits(exact, 1024, 2), [""; 0]);
    assert_eq!(
        fits(exact, 1023, 2),
        ["limits.max_sessions: 320 sessions and 128 handshakes need 1024 descriptors, but RLIMIT_NOFILE is 1023; \
          raise it or lower these"]
    );
    assert_eq!(
        fits("", 256, 257),
        [
            "limits.max_sessions: RLIMIT_NOFILE is 256, which leaves no descriptors for sessions; raise it or lower \
             limits.max_handshakes",
            "limits.buffers: 64 MiB is too small for 257 workers; expected at least \"65792 KiB\"",
        ]
    );
}

#[test]
fn description_shows_the_effective_settings() {
    let text = r#"
        [[listener]]
        listen = "0.0.0.0:8080"
        trusted_proxies = ["10.0.0.0/8"]
        [[route]]
        upstream = "ws://10.0.0.1:9000"
        [[route]]
        name = "live"
        host = "*.example.com"
        path = "/live/*"
        upstream = "app"
        strip_prefix = "/live"
        host_header = "app.internal"
        mode = "opaque"
        on_upstream_loss = "close"
        timeouts = { idle = 0 }
        limits = { max_message = "1MiB" }
        [[route]]
        host = "a.example.com"
        path = "/chat"
        upstream = "app"
        [[upstream]]
        name = "app"
        endpoints = ["ws://10.0.0.1:9000/base", "ws+unix:/run/app.sock"]
        [[upstream]]
        name = "spare"
        endpoints = ["ws://10.0.0.2"]
        [limits]
        max_sessions = 1024
        max_handshakes = 64
        [admin]
        listen = "off"
    "#;
    let expected = "\
listener   0.0.0.0:8080, trusts 10.0.0.0/8
admin      off

routes, in matching order
  a.example.com/chat -> app, framed, frames up to 1 GiB, messages up to 1 GiB, with a Cookie only from its own origin
  *.example.com/live/* (live) -> app, opaque, frames up to 1 MiB, messages up to 1 MiB, with a Cookie only from its own origin, strips /live, Host app.internal, \
Close 1012 on upstream loss, idle off
  /* -> ws://10.0.0.1:9000, framed, frames up to 1 GiB, messages up to 1 GiB, with a Cookie only from its own origin

upstreams
  app: round_robin, ws://10.0.0.1:9000/base, ws+unix:/run/app.sock
  spare: ws://10.0.0.2, used by no route
  ws://10.0.0.1:9000

workers    4 (one per CPU), pinned
timeouts   tls 10s, request_head 10s, keep_alive 1m, request_body 1m, decision 10s, connect 3s, connect_total 10s, upstream_head 10s, first_byte 2m, idle 5m, close 5s, write_stall 1m
sockets    notsent_lowat 128 KiB, keepalive 1m, user_timeout kernel's
drain      spread 10s, deadline 25s
shield     handshake work 32 in a pass, by address (IPv4 /32, IPv6 /64), first TLS tickets, sticky cookies
           4096 wait for 3s, others get 503 with Retry-After 5s to 10s; no address is blocked
log        access to stdout as text, diagnostics from info
sessions   at most 1024, handshakes at most 64, with 4096 descriptors

memory in the worst case (without the kernel's socket buffers)
   768.0 KiB  1024 sessions, 768 B each
     8.0 MiB  1024 pairs of sockets in the kernel, 8 KiB each
     2.0 MiB  64 handshakes, two heads of 16 KiB each
    32.0 MiB  two heads of 16 KiB per session, if all wait for their upstream at once
    64.0 MiB  buffers for slow receivers, all workers together
   512.0 KiB  4 workers, a read buffer of 128 KiB each
   966.0 KiB  4096 handshakes in the queues of workers, and all others by address
   108.2 MiB  in total
";
    let snapshot = good(text);
    assert_eq!(snapshot.describe(4096, 4), expected);
    let warned = snapshot.describe(1000, 4);
    assert!(warned.contains("\nwarning    limits.max_sessions: 1024 sessions"), "{warned}");
    assert!(!snapshot.describe(u64::MAX, 1).contains("warning"));
}
