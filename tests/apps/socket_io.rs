//! Socket.IO on two nodes that share a Redis server.

use crate::common::{Proxy, connect, verdict};
use crate::recorder::{Recorder, answer, ask, get};
use crate::redis;
use crate::rig::{self, Server};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const CLIENTS_OF_A_KIND: usize = 6;

/// Polls wait for the next ping, longer than a handshake may.
const ROUTE: &str = "path = \"/socket.io/*\"\ntimeouts = { upstream_head = \"2s\" }";

struct Nodes {
    a: Server,
    b: Server,
    _redis: redis::Server,
    packages: PathBuf,
}

/// Where the ids of sessions come from.
const OWN: &str = "its own";
const OF_REQUESTS: &str = "of requests";

/// `None` without the programs.
fn nodes(ids: &str) -> Option<Nodes> {
    let packages = rig::packages()?;
    if !redis::is_there() {
        return None;
    }
    let redis = redis::Server::start(&[]);
    let start = |name: &str| Server::start(&packages, "socket-io.mjs", &[name, &redis.url(), ids]);
    Some(Nodes { a: start("a"), b: start("b"), _redis: redis, packages })
}

/// A client that disconnects closes its session by a POST, which can overtake the poll that it has
/// sent on another connection: the node does not know that one any more. One that is refused while
/// its client is there fails the client.
fn failures(ends: &[String]) -> Vec<&str> {
    let (late, others): (Vec<_>, Vec<_>) = rig::failures(ends)
        .into_iter()
        .partition(|line| line.contains("transport=polling") && verdict(line).contains("cause=answered status=400"));
    assert!(late.len() <= CLIENTS_OF_A_KIND, "{late:#?}");
    others
}

impl Nodes {
    /// Clients that poll first, that only poll, and that have WebSockets alone.
    fn serve_clients(&self, upstream: &str, how: &str) {
        let mut proxy = rig::proxy(&[&self.a, &self.b], ROUTE, upstream);
        let saw = rig::play(&self.packages, "socket-io.mjs", &proxy, &[how]);
        assert_eq!(saw["clients"], 3 * CLIENTS_OF_A_KIND);
        let ends = rig::ends(&mut proxy);
        // No node was asked for a session of the other one.
        assert_eq!(failures(&ends), [""; 0]);
        assert_eq!(rig::relayed(&ends), 2 * CLIENTS_OF_A_KIND);
        assert!(rig::count(&ends, "answered", 200) > 10 * CLIENTS_OF_A_KIND, "{ends:#?}");
    }
}

#[test]
fn socket_io_sticks_by_cookie() {
    let Some(nodes) = nodes(OWN) else { return };
    nodes.serve_clients("sticky = { cookie = \"node\" }", "cookie");
}

/// The first request has none: it goes by its id, which the node makes the id of the session.
#[test]
fn socket_io_sticks_by_sid() {
    let Some(nodes) = nodes(OF_REQUESTS) else { return };
    nodes.serve_clients("balance = \"consistent_hash\"\nhash_key = \"query:sid\"", "plain");
}

#[test]
fn socket_io_sticks_by_a_key_of_the_client() {
    let Some(nodes) = nodes(OWN) else { return };
    nodes.serve_clients("balance = \"consistent_hash\"\nhash_key = \"query:key\"", "keyed");
}

#[test]
fn socket_io_in_chromium() {
    let (Some(nodes), Some(_)) = (nodes(OWN), rig::chromium()) else { return };
    let mut proxy = rig::proxy(&[&nodes.a, &nodes.b], "", "sticky = { cookie = \"node\" }");
    let saw = rig::play(&nodes.packages, "socket-io.mjs", &proxy, &["chromium"]);
    assert_eq!(saw, serde_json::json!({ "clients": 7, "nodes": 1 }));
    let ends = rig::ends(&mut proxy);
    assert_eq!(failures(&ends), [""; 0]);
    assert_eq!(rig::relayed(&ends), 4);
}

#[test]
fn example_serves_its_clients() {
    let Some(packages) = rig::packages() else { return };
    if !redis::is_there() {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/socket-io");
    let redis = redis::Server::start(&[]);
    let nodes = [(); 2].map(|()| {
        let mut node = Command::new("node");
        node.arg(folder.join("server.cjs")).env("NODE_PATH", packages.join("node/node_modules"));
        Server::spawn(node.env("PORT", "0").env("HOST", "127.0.0.1").env("REDIS_URL", redis.url()))
    });
    let mut text = std::fs::read_to_string(folder.join("framegate.toml")).unwrap();
    let [a, b] = nodes.each_ref().map(|node| format!("127.0.0.1:{}", node.port));
    let local = "127.0.0.1:0";
    for (place, of_test) in
        [("0.0.0.0:8080", local), ("127.0.0.1:9901", local), ("10.0.0.51:3000", &a), ("10.0.0.52:3000", &b)]
    {
        assert!(text.contains(place), "{place}");
        text = text.replace(place, of_test);
    }
    let mut proxy = Proxy::start(&(text + "[log]\naccess = \"stdout\"\n"));
    let saw = rig::play(&packages, "socket-io.mjs", &proxy, &["example"]);
    assert_eq!(saw["clients"], 3 * CLIENTS_OF_A_KIND);
    assert_eq!(failures(&rig::ends(&mut proxy)), [""; 0]);
}

#[test]
fn a_request_without_its_key_goes_by_its_id() {
    let nodes = [Recorder::start(), Recorder::start()];
    let [a, b] = nodes.each_ref().map(|node| node.addr);
    let proxy = Proxy::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"http://{a}\", \"http://{b}\"]\n\
         balance = \"consistent_hash\"\nhash_key = \"query:sid\"\n"
    ));
    let mut client = connect(proxy.addr);
    // Beyond chance: 1 in 2^59 that one node has all of them.
    for n in 0..60 {
        ask(&mut client, &get(&format!("/first?{n}")));
    }
    let ids = |node: &Recorder| {
        let id = |head: &str| head.lines().find_map(|line| line.strip_prefix("X-Request-Id: ").map(str::to_owned));
        node.seen().iter().map(|seen| id(&seen.head).unwrap()).collect::<Vec<_>>()
    };
    for (node, ids) in nodes.iter().zip(nodes.each_ref().map(ids)) {
        let first = ids.len();
        assert!(first > 0);
        for id in &ids {
            ask(&mut client, &get(&format!("/?transport=polling&sid={id}")));
        }
        assert_eq!(node.seen().len(), 2 * first);
    }
}

const PREFLIGHT: &str = "OPTIONS /socket.io/?EIO=4&transport=polling&t=x HTTP/1.1\r\nHost: chat.example.com\r\n\
    Origin: https://elsewhere.example\r\nAccess-Control-Request-Method: POST\r\n\
    Access-Control-Request-Headers: x-app\r\nAccess-Control-Request-Private-Network: true\r\n";

/// The fields of a head whose names begin like this.
fn fields(head: &str, start: &str) -> Vec<String> {
    head.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn preflights_pass_beside_a_route_that_asks_for_credentials() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy(
        "auth = \"keys\"\n[[route]]\nname = \"preflights\"\nupstream = \"app\"\nmatch = [{ method = \"OPTIONS\" }]\n\
         [[auth]]\nname = \"keys\"\ntype = \"api_keys\"\nkeys = [{ owner = \"a\", sha256 = \"SHA\" }]\n"
            .replace("SHA", &"00".repeat(32))
            .as_str(),
    );
    let status = |request: &str| {
        let mut stream = connect(proxy.addr);
        stream.write_all(request.as_bytes()).unwrap();
        answer(&stream).0.lines().next().unwrap().to_owned()
    };
    assert_eq!(status(&format!("{PREFLIGHT}\r\n")), "HTTP/1.1 200 OK");
    let request = format!("{PREFLIGHT}\r\n").replace("OPTIONS /", "GET /");
    assert_eq!(status(&request), "HTTP/1.1 401 Unauthorized");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn preflights_and_their_answers_pass_as_they_are() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    let ask = |addr: SocketAddr| {
        let mut stream = connect(addr);
        stream.write_all(format!("{PREFLIGHT}\r\n").as_bytes()).unwrap();
        answer(&stream).0
    };
    assert!(ask(proxy.addr).starts_with("HTTP/1.1 200 OK\r\n"));
    let seen = upstream.seen().pop().unwrap();
    assert!(seen.head.starts_with(PREFLIGHT), "{}", seen.head);
    let Some(nodes) = nodes(OWN) else { return };
    let proxy = rig::proxy(&[&nodes.a, &nodes.b], "", "sticky = { cookie = \"node\", same_site = \"none\" }");
    let (through, direct) = (ask(proxy.addr), ask(([127, 0, 0, 1], nodes.a.port).into()));
    assert!(through.starts_with("HTTP/1.1 204 No Content\r\n"), "{through}");
    let cors = fields(&direct, "Access-Control-");
    assert_eq!((cors.len(), fields(&through, "Access-Control-")), (4, cors), "{direct}");
    assert_eq!(fields(&through, "Vary: "), fields(&direct, "Vary: "));
}
