//! What a configuration file means, and what is said of a wrong one.

use framegate::config::{
    self, AccessLog, Error, Flags, Format, Limits, Listener, ResolvedLimits, SCRATCH_BYTES, Snapshot,
};
use framegate::policy::balance::Place;
use framegate::policy::route::{FrameLimits, Mode};
use std::path::{Path, PathBuf};

const NAME: &str = "framegate.toml";
/// The least that a file must hold, in four lines.
const LEAST: &str = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";

fn parse(text: &str) -> Result<Snapshot, Error> {
    config::parse(text, NAME)
}

#[track_caller]
fn good(text: &str) -> Snapshot {
    parse(text).unwrap_or_else(|e| panic!("{e}\n---\n{text}"))
}

/// All sentences of a bad text.
#[track_caller]
fn bad(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(error) => error.sentences().to_vec(),
    }
}

/// Sentences about `more`, which follows [`LEAST`]: its first line is line 5.
#[track_caller]
fn bad_beside(more: &str) -> Vec<String> {
    bad(&format!("{LEAST}{more}"))
}

#[track_caller]
fn good_beside(more: &str) -> Snapshot {
    good(&format!("{LEAST}{more}"))
}

#[test]
fn the_least_file_has_the_defaults() {
    let snapshot = good(LEAST);
    assert_eq!(snapshot.listeners.len(), 1);
    assert_eq!(snapshot.listeners[0].addr.to_string(), "0.0.0.0:8080");
    assert_eq!(snapshot.limits, Limits::default());
    assert_eq!(millis(&snapshot.timeouts), [10_000, 10_000, 3_000, 10_000, 10_000, 300_000, 5_000, 60_000]);
    assert_eq!(snapshot.admin, None, "two processes on one host must not collide by default");
    let route = snapshot.routes.find("any.host", "/any/path").unwrap();
    assert_eq!(route.name, "/*");
    assert_eq!(route.mode, Mode::Framed);
    assert_eq!(route.rules, FrameLimits { max_frame: 1 << 30, max_message: 1 << 30 });
    assert_eq!(route.timeouts, snapshot.timeouts);
    assert_eq!(route.on_upstream_loss, None);
    assert_eq!(route.group.name, "ws://10.0.0.1:9000");
}

fn flags(listen: &str, upstream: &str) -> Flags {
    Flags { listen: Some(listen.to_owned()), tls: None, upstream: upstream.to_owned() }
}

#[test]
fn flags_and_demo_give_what_the_least_file_gives() {
    let by_flags = config::from_flags(&flags("0.0.0.0:8080", "ws://10.0.0.1:9000")).unwrap();
    assert_eq!(by_flags, good(LEAST));
    let addr = |text: &str| text.parse().unwrap();
    let demo = config::demo(vec![Listener::plain(addr("0.0.0.0:8080"))], addr("127.0.0.1:9901"), addr("10.0.0.1:9000"));
    assert_eq!(demo, good(&format!("{LEAST}\n[admin]\nlisten = \"127.0.0.1:9901\"\n")));
}

#[test]
fn wrong_flags_are_named() {
    let address =
        "is not an address to listen on; write address and port, for example \"0.0.0.0:8080\" or \"[::]:8080\"";
    let url = "is not a URL; write for example \"ws://10.0.0.1:9000\" or \"ws+unix:/run/app.sock\"";
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
limits = { max_frame = "1KiB", max_message = "2KiB" }
[route.timeouts]
connect = "11ms"
connect_total = "12ms"
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

fn millis(timeouts: &config::Timeouts) -> [u64; 8] {
    let t = timeouts;
    [
        t.tls_ms,
        t.request_head_ms,
        t.connect_ms,
        t.connect_total_ms,
        t.upstream_head_ms,
        t.idle_ms,
        t.close_ms,
        t.write_stall_ms,
    ]
}

#[test]
fn every_key_of_a_route_takes_effect() {
    let snapshot = good(EVERY_KEY);
    let live = snapshot.routes.find("a.example.com:80", "/live/x").unwrap();
    assert_eq!((live.name.as_str(), live.mode, live.on_upstream_loss), ("live", Mode::Opaque, Some(4000)));
    assert_eq!(live.strip_prefix.as_deref(), Some("/live"));
    assert_eq!(live.host_header.as_deref(), Some("app.internal:9000"));
    assert_eq!(live.rules, FrameLimits { max_frame: 1024, max_message: 2048 });
    assert_eq!(millis(&live.timeouts), [19, 20, 11, 12, 13, 0, 15, 16]);

    let other = snapshot.routes.find("example.com", "/live").unwrap();
    assert_eq!((other.name.as_str(), other.on_upstream_loss), ("/*", Some(1012)));
    assert_eq!(other.rules, FrameLimits { max_frame: 3072, max_message: 4096 });
    assert_eq!(other.timeouts, snapshot.timeouts);
    let second = snapshot.routes.find("example.com", "/second").unwrap();
    assert_eq!(second.group.index, other.group.index, "one group for each URL");

    assert_eq!(snapshot.groups.len(), 2);
    for (index, group) in snapshot.groups.iter().enumerate() {
        assert_eq!(group.index, index);
    }
    let app = &snapshot.groups[live.group.index];
    assert_eq!(app.endpoints[0].base, "/base");
    assert_eq!(app.endpoints[1].place, Place::Name("app.internal:80".into()));
    assert_eq!(other.group.endpoints[0].place, Place::Unix(PathBuf::from("/run/app.sock")));
    assert_eq!(other.group.endpoints[0].base, "/base");
}

#[test]
fn every_key_of_the_process_takes_effect() {
    let snapshot = good(EVERY_KEY);
    assert_eq!((snapshot.workers.count, snapshot.workers.pin), (Some(2), false));
    let trusted: Vec<_> = snapshot.listeners[0].trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(snapshot.listeners.len(), 2, "port 0 may be there twice");
    assert_eq!(millis(&snapshot.timeouts), [19, 20, 21, 22, 23, 24, 25, 26]);
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
fn a_smaller_max_message_lowers_max_frame() {
    let rules = |more: &str| good_beside(more).routes.find("h", "/").unwrap().rules;
    assert_eq!(rules("limits.max_message = \"1MiB\"\n"), FrameLimits { max_frame: 1 << 20, max_message: 1 << 20 });
    assert_eq!(rules("[limits]\nmax_message = \"1MiB\"\n"), FrameLimits { max_frame: 1 << 20, max_message: 1 << 20 });
    let both = "limits.max_message = \"1MiB\"\n[limits]\nmax_frame = \"1KiB\"\n";
    assert_eq!(rules(both), FrameLimits { max_frame: 1 << 10, max_message: 1 << 20 });
}

/// Each wrong text stands behind [`LEAST`]; with place and key, and the rest of the sentence.
const WRONG: &[(&str, &str, &str)] = &[
    // Values.
    (
        "[timeouts]\n  idle = \"5 parsecs\"\n",
        "6:10: timeouts.idle",
        "\"5 parsecs\" is not a duration; write for example \"30s\" or \"5m\"",
    ),
    ("timeouts = { idle = 5 }\n", "5:21: route.timeouts.idle", "5 has no unit; write for example \"5s\" or \"5ms\""),
    ("[timeouts]\nclose = 0\n", "6:9: timeouts.close", "0 is not possible here; write \"10ms\" to \"30days\""),
    (
        "timeouts.request_head = \"5s\"\n",
        "5:25: route.timeouts.request_head",
        "runs before a route is known; write it in [timeouts]",
    ),
    (
        "[timeouts]\nconnect = \"20s\"\n",
        "6:11: timeouts.connect",
        "20s for one try is more than connect_total, 10s for all; write at most that",
    ),
    (
        "timeouts.connect_total = \"1s\"\n",
        "5:26: route.timeouts.connect",
        "3s for one try is more than connect_total, 1s for all; write at most that",
    ),
    ("[limits]\nhead = \"2MiB\"\n", "6:8: limits.head", "\"2MiB\" is not possible here; write \"1KiB\" to \"1MiB\""),
    ("[limits]\nhead = 1023\n", "6:8: limits.head", "1023 is not possible here; write \"1KiB\" to \"1MiB\""),
    (
        "[limits]\nbuffers = \"255KiB\"\n",
        "6:11: limits.buffers",
        "\"255KiB\" is not possible here; write \"256KiB\" to \"1TiB\"",
    ),
    (
        "[workers]\ncount = 8\n[limits]\nbuffers = \"1MiB\"\n",
        "8:11: limits.buffers",
        "1MiB is too little for 8 workers; write \"2MiB\" or more",
    ),
    (
        "[workers]\ncount = 1024\n",
        "6:9: limits.buffers",
        "64MiB is too little for 1024 workers; write \"256MiB\" or more",
    ),
    (
        "[workers]\ncount = 0\n",
        "6:9: workers.count",
        "0 is not possible here; write \"auto\" or a number from 1 to 1024",
    ),
    ("[workers]\npin = 1\n", "6:7: workers.pin", "1 is neither true nor false; write it without quotes"),
    (
        "[limits]\nmax_sessions = \"lots\"\n",
        "6:16: limits.max_sessions",
        "\"lots\" is not possible here; write \"auto\" or a number from 1 to 100000000",
    ),
    (
        "[limits]\nmax_frame = \"2GiB\"\n",
        "6:13: limits.max_frame",
        "2GiB is more than max_message, 1GiB; write at most that, or raise limits.max_message",
    ),
    (
        "limits = { max_frame = 2, max_message = 1 }\n",
        "5:24: route.limits.max_frame",
        "2B is more than max_message, 1B; write at most that, or raise route.limits.max_message",
    ),
    (
        "[limits]\nmax_message = 0\n",
        "6:15: limits.max_message",
        "0 is not possible here; write \"1B\" to \"9223372036854775807B\"",
    ),
    (
        "[sockets]\nkeepalive = \"1500ms\"\n",
        "6:13: sockets.keepalive",
        "\"1500ms\" is not a number of whole seconds; write for example \"60s\"",
    ),
    (
        "[sockets]\nnotsent_lowat = \"1KiB\"\n",
        "6:17: sockets.notsent_lowat",
        "\"1KiB\" is not possible here; write \"4KiB\" to \"16MiB\", or 0 for the kernel's default",
    ),
    (
        "[sockets]\nuser_timeout = \"1ms\"\n",
        "6:16: sockets.user_timeout",
        "\"1ms\" is not possible here; write \"1s\" to \"1day\", or 0 for the kernel's default",
    ),
    ("[drain]\nspread = \"30s\"\n", "6:10: drain.spread", "30s is more than drain.deadline, 25s; write at most that"),
    ("[drain]\ndeadline = \"0s\"\n", "6:12: drain.deadline", "\"0s\" is not possible here; write \"10ms\" to \"1day\""),
    (
        "[log]\naccess = \"stdot\"\n",
        "6:10: log.access",
        "\"stdot\" is not possible here; write \"stdout\", \"off\", or a file with a slash",
    ),
    ("[log]\nformat = \"jsno\"\n", "6:10: log.format", "\"jsno\" is not possible here; did you mean \"json\"?"),
    (
        "[log]\nlevel = \"verbose\"\n",
        "6:9: log.level",
        "\"verbose\" is not possible here; known are \"error\", \"warn\", \"info\", \"debug\", \"trace\" and \"off\"",
    ),
    (
        "[admin]\nlisten = \"of\"\n",
        "6:10: admin.listen",
        "\"of\" is not an address to listen on; write address and port, for example \"0.0.0.0:8080\" or \
         \"[::]:8080\", or \"off\"",
    ),
    (
        "[admin]\nlisten = \"0.0.0.0:8080\"\n",
        "6:10: admin.listen",
        "0.0.0.0:8080 is the address of a [[listener]]; write another, or \"off\"",
    ),
    // Listeners.
    (
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n",
        "6:10: listener.listen",
        "0.0.0.0:8080 is listened on already; write it once",
    ),
    (
        "[[listener]]\ntrusted_proxies = []\n",
        "5:1: listener.listen",
        "missing; write for example listen = \"0.0.0.0:8080\"",
    ),
    ("[[listener]]\nlisten = 80\n", "6:10: listener.listen", "80 is not text; write it in quotes"),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntrusted_proxies = [\"::1\", \"x\"]\n",
        "7:27: listener.trusted_proxies",
        "\"x\" is not a network; write for example \"10.0.0.0/8\" or \"192.0.2.7\"",
    ),
    // Routes.
    (
        "path = \"chat\"\n",
        "5:8: route.path",
        "\"chat\" does not begin with a slash; write for example \"/chat\" or \"/live/*\"",
    ),
    (
        "host = \"a:80\"\n",
        "5:8: route.host",
        "\"a:80\" has a port; write the host alone, all ports match, and an IPv6 address in [ ]",
    ),
    (
        "mode = \"message\"\n",
        "5:8: route.mode",
        "\"message\" is not possible here; known are \"framed\" and \"opaque\"",
    ),
    (
        "path = \"/a\"\nstrip_prefix = \"/b\"\n",
        "6:16: route.strip_prefix",
        "\"/b\" does not begin any path of this route; write the start of the route's path",
    ),
    (
        "name = \"a b\"\n",
        "5:8: route.name",
        "\"a b\" is not a name; write 1 to 100 letters, digits, \"-\", \".\" or \"_\"",
    ),
    (
        "on_upstream_loss_code = 1006\n",
        "5:25: route.on_upstream_loss_code",
        "1006 is not a close code that may be sent; write 1000 to 1003, 1007 to 1014, or 3000 to 4999",
    ),
    (
        "on_upstream_loss = \"pas\"\n",
        "5:20: route.on_upstream_loss",
        "\"pas\" is not possible here; did you mean \"pass\"?",
    ),
    (
        "[[route]]\n",
        "5:1: route.upstream",
        "missing; write the name of an [[upstream]], or a URL such as \"ws://10.0.0.1:9000\"",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"ftp://a\"\n",
        "7:12: route.upstream",
        "\"ftp://a\" is not a WebSocket URL; write ws://, wss:// or ws+unix:",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"app\"\n",
        "7:12: route.upstream",
        "no [[upstream]] is named \"app\"; write an [[upstream]] section with that name, or a URL such as \
         \"ws://10.0.0.1:9000\"",
    ),
    (
        "[[route]]\npath = \"/x\"\nupstream = \"chta\"\n[[upstream]]\nname = \"chat\"\nendpoints = [\"ws://a\"]\n",
        "7:12: route.upstream",
        "no [[upstream]] is named \"chta\"; did you mean \"chat\"?",
    ),
    (
        "[[route]]\nupstream = \"ws://a\"\n",
        "5:1: route.path",
        "host and path are those of the route in line 3; change one of the two",
    ),
    (
        "path = \"/%61\"\n[[route]]\nhost = \"A.\"\npath = \"/a\"\nupstream = \"ws://a\"\n[[route]]\nhost = \"a\"\n\
         path = \"/%61\"\nupstream = \"ws://a\"\n",
        "12:8: route.path",
        "host and path are those of the route in line 6; change one of the two",
    ),
    (
        "name = \"x\"\n[[route]]\npath = \"/a\"\nname = \"x\"\nupstream = \"ws://a\"\n",
        "8:8: route.name",
        "\"x\" is the name of the route in line 3; write another",
    ),
    // Upstreams.
    (
        "[[upstream]]\nname = \"a\"\n",
        "5:1: upstream.endpoints",
        "missing; write for example endpoints = [\"ws://10.0.0.1:9000\"]",
    ),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = []\n",
        "7:13: upstream.endpoints",
        "missing; write for example endpoints = [\"ws://10.0.0.1:9000\"]",
    ),
    (
        "[[upstream]]\nendpoints = [\"ws://a\"]\n",
        "5:1: upstream.name",
        "missing; write the name that routes use, for example name = \"app\"",
    ),
    (
        "[[upstream]]\nname = \"a/b\"\nendpoints = [\"ws://a\"]\n",
        "6:8: upstream.name",
        "\"a/b\" is not a name; write 1 to 100 letters, digits, \"-\", \".\" or \"_\"",
    ),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = [\"ws://a\"]\n[[upstream]]\nname = \"a\"\nendpoints = [\"ws://a\"]\n",
        "9:8: upstream.name",
        "\"a\" is the name of another upstream; write another",
    ),
    (
        "[[upstream]]\nname = \"a\"\nbalance = \"random\"\nendpoints = [\"ws://a\"]\n",
        "7:11: upstream.balance",
        "\"random\" is not possible here; known is \"round_robin\"",
    ),
    // Keys.
    ("[workers]\ncoutn = 3\n", "6:1: workers.coutn", "unknown key; did you mean \"count\"?"),
    ("[timeouts]\nconect = \"3s\"\n", "6:1: timeouts.conect", "unknown key; did you mean \"connect\"?"),
    ("[drain]\nwhatever = 1\n", "6:1: drain.whatever", "unknown key; known are \"spread\" and \"deadline\""),
    (
        "[accounting]\n",
        "5:2: accounting",
        "unknown key; known are \"workers\", \"listener\", \"route\", \"upstream\", \"limits\", \"timeouts\", \
         \"sockets\", \"drain\", \"log\" and \"admin\"",
    ),
    ("limits = { max_frames = 1 }\n", "5:12: route.limits.max_frames", "unknown key; did you mean \"max_frame\"?"),
    // Shapes.
    ("[upstream]\nname = \"a\"\n", "5:1: upstream", "there may be several; write [[upstream]] above its keys"),
    ("limits = 3\n", "5:10: route.limits", "not a table; write limits = { ... }"),
    (
        "[[upstream]]\nname = \"a\"\nendpoints = \"ws://a\"\n",
        "7:13: upstream.endpoints",
        "not a list; write endpoints = [\"...\"]",
    ),
    (
        "[log]\nformat = 2020-01-01\n",
        "6:10: log.format",
        "a date is not possible here; known are \"text\" and \"json\"",
    ),
    ("[[log]]\nformat = \"text\"\n", "5:1: log", "there is only one; write [log] above its keys"),
    ("limits = [1, 2]\n", "5:10: route.limits", "not a table; write limits = { ... }"),
    // TOML itself.
    ("[log]\nlevel = \"info\"\nlevel = \"info\"\n", "7:1: level", "written twice; keep one of them"),
    ("[log]\nlevel = info\n", "6:9: level", "not a value; write level = \"info\""),
    ("[timeouts]\nidle = 5m\n", "6:8: idle", "not a value; write idle = \"5m\""),
    ("[log]\nlevel = \n", "6:9: not TOML", "string values must be quoted, expected literal string"),
    ("[log]\nlevel = \"info\n", "6:14: not TOML", "invalid basic string, expected `\"`"),
    ("upstream app\n", "5:10: not TOML", "key with no value, expected `=`"),
    ("[log\n", "5:5: not TOML", "unclosed table, expected `]`"),
    // TLS.
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { }\n",
        "5:1: listener.tls.certificates",
        "missing; write for example certificates = [{ cert = \"/etc/tls/chain.pem\", key = \"/etc/tls/key.pem\" }]",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { certificates = [{ cert = \"a\" }] }\n",
        "7:25: listener.tls.certificates.key",
        "missing; a certificate and its key belong together",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\ntls = { certificates = [{ cert = \"a\", key = \"b\" }], client_auth = \"required\" }\n",
        "7:67: listener.tls.client_auth",
        "needs client_ca beside it, a file with the authorities' certificates",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\nredirect = \"https\"\ntls = { certificates = [{ cert = \"a\", key = \"b\" }] }\n",
        "7:12: listener.redirect",
        "is for a listener without TLS; write it there, or leave tls out",
    ),
    (
        "[[listener]]\nlisten = \"[::]:1\"\nredirect = \"http\"\n",
        "7:12: listener.redirect",
        "\"http\" is not possible here; write \"https\", \"https:8443\" for another port, or \"off\"",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls = { ca = \"a\", insecure_skip_verify = true }\n",
        "8:42: upstream.tls.insecure_skip_verify",
        "makes ca meaningless; leave one of the two out",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls.server_name = \"a b\"\n",
        "8:19: upstream.tls.server_name",
        "\"a b\" is no name or address that a certificate can be for",
    ),
    (
        "[[upstream]]\nname = \"x\"\nendpoints = [\"wss://a\"]\ntls.min_version = \"1.1\"\n",
        "8:19: upstream.tls.min_version",
        "\"1.1\" is not possible here; did you mean \"1.2\" or \"1.3\"?",
    ),
    // Columns count characters.
    ("limits = { \"ü\" = 1 }\n", "5:12: route.limits.ü", "unknown key; known are \"max_frame\" and \"max_message\""),
    (
        "timeouts = { \"close\" = \"ü\", idle = \"x\" }\n",
        "5:24: route.timeouts.close",
        "\"ü\" is not a duration; write for example \"30s\" or \"5m\"",
    ),
];

#[test]
fn each_wrong_text_is_told_with_place_and_remedy() {
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
fn all_wrong_values_are_told_in_the_order_of_the_file() {
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
fn an_empty_file_says_what_is_needed() {
    assert_eq!(
        bad(""),
        [
            "framegate.toml:1:1: listener: missing; write a section [[listener]] with listen = \"0.0.0.0:8080\"",
            "framegate.toml:1:1: route: missing; write a section [[route]] with upstream = \"ws://10.0.0.1:9000\"",
        ]
    );
}

#[test]
fn a_list_is_no_table() {
    assert_eq!(
        bad("workers = [2, true]\n"),
        ["framegate.toml:1:11: workers: not a table; write [workers] above its keys"]
    );
    assert_eq!(bad("route = 1\n"), ["framegate.toml:1:9: route: there may be several; write [[route]] above its keys"]);
    assert_eq!(bad("route = [[1]]\n"), ["framegate.toml:1:10: route: not a table; write [[route]] above its keys"]);
}

#[test]
fn no_text_makes_the_reader_panic() {
    for at in 0..EVERY_KEY.len() {
        // Torn at every byte, and with one byte left out.
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
fn a_file_that_cannot_be_read_is_named() {
    let error = config::load(Path::new("/no/such/framegate.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/no/such/framegate.toml: cannot be read: No such file"), "{error}");
    let path = std::env::temp_dir().join(format!("framegate-not-text-{}.toml", std::process::id()));
    std::fs::write(&path, b"[log]\nlevel = \"\xff\"\n").unwrap();
    let error = config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(error, format!("{}:2:10: not UTF-8; write the file as UTF-8 text", path.display()));
}

/// The lines of the example with what `chosen` takes from them.
fn uncommented(chosen: impl Fn(&str) -> Option<&str>) -> String {
    config::EXAMPLE.lines().map(|line| chosen(line).unwrap_or(line).to_owned() + "\n").collect()
}

/// `#key = value`.
fn default_line(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// `# e.g. key = value`.
fn other_line(line: &str) -> Option<&str> {
    line.strip_prefix("# e.g. ")
}

#[test]
fn the_example_shows_the_defaults() {
    let as_printed = good(config::EXAMPLE);
    assert!(config::EXAMPLE.lines().filter_map(default_line).count() > 30);
    assert_eq!(good(&uncommented(default_line)), as_printed);
    // They are those of a file with nothing but the three sections that are not commented out.
    let least =
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n";
    assert_eq!(good(&format!("{least}endpoints = [\"ws://127.0.0.1:9000\"]\n")), as_printed);
}

#[test]
fn the_other_values_in_the_example_are_good() {
    let snapshot = good(&uncommented(other_line).replace("#trusted", "# trusted"));
    assert_ne!(snapshot, good(config::EXAMPLE));
    assert!(snapshot.routes.find("a.example.com", "/").is_some());
    assert!(snapshot.routes.find("example.org", "/").is_none());
}

#[test]
fn the_example_has_every_key() {
    let all = uncommented(|line| default_line(line).or(other_line(line)));
    let mut keys = 0;
    for section in known_keys(&format!("{UNLIKE} = 1\n")) {
        let several = ["listener", "route", "upstream"].contains(&section.as_str());
        let header = if several { format!("[[{section}]]") } else { format!("[{section}]") };
        let start = all.find(&format!("\n{header}\n")).unwrap_or_else(|| panic!("{header}")) + header.len() + 2;
        let body = all[start..].split("\n[").next().unwrap();
        for key in known_keys(&format!("{header}\n{UNLIKE} = 1\n")) {
            keys += 1;
            let line = body.lines().find(|line| line.starts_with(&format!("{key} = ")));
            let line = line.unwrap_or_else(|| panic!("{header} {key}"));
            // Tables within a section: their keys stand on the same line.
            for inner in known_keys(&format!("{header}\n{key} = {{ {UNLIKE} = 1 }}\n")) {
                if !(section == "route" && ["tls", "request_head"].contains(&inner.as_str())) {
                    keys += 1;
                    assert!(line.contains(&format!("{inner} = ")), "{header} {key} {inner}");
                }
            }
        }
    }
    assert_eq!(keys, 66);
}

/// A key like no other.
const UNLIKE: &str = "zzzzzzzzzzzz";

/// The keys that are known where `text` has an unknown one. The list comes from the types that the file is read into.
fn known_keys(text: &str) -> Vec<String> {
    let sentence = parse(text).map_or_else(|e| e.sentences()[0].clone(), |_| String::new());
    let known = sentence.split_once("unknown key; known are ").map_or("", |(_, known)| known);
    known.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn limits_come_from_the_number_of_descriptors() {
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
fn what_does_not_fit_the_machine_is_said() {
    let fits = |more: &str, nofile: u64, cpus: usize| good_beside(more).misfits(nofile, cpus);
    assert_eq!(fits("", 1024, 2), [""; 0]);
    assert_eq!(fits("", 1024, 64 * 1024 * 1024 / (2 * SCRATCH_BYTES)), [""; 0]);
    assert_eq!(fits("", u64::MAX, 2), [""; 0]);
    let exact = "[limits]\nmax_sessions = 320\nmax_handshakes = 128\n";
    assert_eq!(fits(exact, 1024, 2), [""; 0]);
    assert_eq!(
        fits(exact, 1023, 2),
        ["limits.max_sessions: 320 sessions and 128 handshakes need 1024 descriptors, but RLIMIT_NOFILE is 1023; \
          raise that limit or lower these"]
    );
    assert_eq!(
        fits("", 256, 257),
        [
            "limits.max_sessions: 256 descriptors (RLIMIT_NOFILE) leave none for sessions; raise that limit or lower \
             limits.max_handshakes",
            "limits.buffers: 64MiB is too little for 257 workers; write \"65792KiB\" or more",
        ]
    );
}

#[test]
fn the_description_says_what_a_file_means() {
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

routes, in the order in which they are tried
  a.example.com/chat -> app, framed, frames to 1GiB, messages to 1GiB
  *.example.com/live/* (live) -> app, opaque, frames to 1MiB, messages to 1MiB, strips /live, Host app.internal, \
Close 1012 on upstream loss, idle off
  /* -> ws://10.0.0.1:9000, framed, frames to 1GiB, messages to 1GiB

upstreams
  app: round_robin, ws://10.0.0.1:9000/base, ws+unix:/run/app.sock
  spare: ws://10.0.0.2, used by no route
  ws://10.0.0.1:9000

workers    4 (one per CPU), pinned
timeouts   tls 10s, request_head 10s, connect 3s, connect_total 10s, upstream_head 10s, idle 5m, close 5s, write_stall 1m
sockets    notsent_lowat 128KiB, keepalive 1m, user_timeout kernel's
drain      spread 10s, deadline 25s
log        access to stdout as text, diagnostics from info
sessions   at most 1024, handshakes at most 64, with 4096 descriptors

memory, at the worst (socket buffers in the kernel not counted)
   768.0 KiB  1024 sessions of 768 B
     8.0 MiB  1024 pairs of sockets of 8 KiB in the kernel
     2.0 MiB  64 handshakes with two heads of 16KiB
    32.0 MiB  two heads of 16KiB for each session, if all wait for their upstream at once
    64.0 MiB  buffers for slow receivers, all workers together
   512.0 KiB  4 workers with 128 KiB to read into
   107.2 MiB  in total
";
    let snapshot = good(text);
    assert_eq!(snapshot.describe(4096, 4), expected);
    let warned = snapshot.describe(1000, 4);
    assert!(warned.contains("\nwarning    limits.max_sessions: 1024 sessions"), "{warned}");
    assert!(!snapshot.describe(u64::MAX, 1).contains("warning"));
}
