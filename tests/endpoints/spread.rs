//! How sessions spread over backends.

use crate::common::*;
use crate::rig::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

fn tally(clients: &[Client]) -> BTreeMap<usize, usize> {
    let mut seen = BTreeMap::new();
    clients.iter().for_each(|client| *seen.entry(client.backend()).or_default() += 1);
    seen
}

/// Requests with the same key go to the same backend, others to others.
fn stays(hash_key: &str, ask: impl Fn(&Proxy, usize) -> Client) {
    let backends = Backend::several(4);
    let rules = format!("balance = \"consistent_hash\"\nhash_key = \"{hash_key}\"");
    let proxy = Proxy::start(&config(&backends, "", &rules));
    let homes: Vec<_> = (0..24).map(|key| ask(&proxy, key).backend()).collect();
    assert!(homes.iter().collect::<BTreeSet<_>>().len() >= 3, "{hash_key}: {homes:?}");
    for _ in 0..2 {
        let again: Vec<_> = (0..24).map(|key| ask(&proxy, key).backend()).collect();
        assert_eq!(again, homes, "{hash_key}");
    }
}

#[test]
fn the_same_key_gets_the_same_backend() {
    stays("header:X-Room", |proxy, key| visit(proxy, "/", &format!("X-Room: room-{key}\r\n")));
    stays("cookie:uid", |proxy, key| visit(proxy, "/", &format!("Cookie: a=b; uid={key}\r\n")));
    stays("query:room", |proxy, key| visit(proxy, &format!("/?v=1&room={key}"), ""));
    stays("path", |proxy, key| visit(proxy, &format!("/rooms/{key}"), ""));
    stays("client_ip", |proxy, key| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 1, key as u8 + 1], 0)).into()).unwrap();
        socket.connect(&proxy.addr.into()).unwrap();
        let mut stream = patient(socket.into());
        stream.write_all(request("/", "").as_bytes()).unwrap();
        Client::answered(stream)
    });
}

#[test]
fn weights_are_exact() {
    let backends = Backend::several(3);
    let endpoint = |(backend, weight): (&Backend, u16)| format!("{{ url = {:?}, weight = {weight} }}", backend.url());
    let endpoints: Vec<_> = backends.iter().zip([3, 1, 2]).map(endpoint).collect();
    let proxy = Proxy::start(&config_of(&endpoints.join(", "), "", "balance = \"weighted\""));
    let clients: Vec<_> = (0..18).map(|_| session(&proxy)).collect();
    assert_eq!(tally(&clients), BTreeMap::from([(0, 9), (1, 3), (2, 6)]));
    for six in clients.chunks(6) {
        assert_eq!(tally(six), BTreeMap::from([(0, 3), (1, 1), (2, 2)]), "evenly mixed");
    }
}

#[test]
fn sessions_are_counted_over_all_workers() {
    let backends = Backend::several(4);
    let toml = config(&backends, "", "balance = \"least_sessions\"").replace("count = 1", "count = 2");
    let proxy = Proxy::start(&toml);
    let mut clients: Vec<_> = (0..20).map(|_| session(&proxy)).collect();
    assert_eq!(tally(&clients), (0..4).map(|backend| (backend, 5)).collect());
    let (gone, stay): (Vec<_>, Vec<_>) = clients.drain(..).partition(|client| client.backend() == 2);
    gone.into_iter().for_each(Client::close);
    wait_upstream(&proxy, "sessions", 15);
    // Also over a reload.
    reload(&proxy, &toml);
    let more: Vec<_> = (0..5).map(|_| session(&proxy)).collect();
    assert_eq!(tally(&more), BTreeMap::from([(2, 5)]));
    assert_eq!(upstream(&proxy)["sessions"], stay.len() as u64 + 5);
}

#[test]
fn a_backup_is_used_while_the_first_is_not_available() {
    let mut backends = Backend::several(2);
    let proxy = Proxy::start(&first_of(&backends, "", "ejection = { failures = 0 }"));
    let next = || session(&proxy).backend();
    assert_eq!([next(), next(), next()], [0; 3]);
    order(&proxy, &backends[0], "down");
    assert_eq!([next(), next()], [1; 2]);
    order(&proxy, &backends[0], "ready");
    assert_eq!([next(), next()], [0; 2]);
    backends[0].stop();
    assert_eq!([next(), next()], [1; 2]);
    assert_eq!(endpoint(&proxy, &backends[0])["state"], "up", "without ejection");
}

#[test]
fn a_full_priority_spills_over() {
    let backends = Backend::several(2);
    let proxy = Proxy::start(&first_of(&backends, "", "limits = { endpoint_sessions = 2 }"));
    let mut clients: Vec<_> = (0..3).map(|_| session(&proxy)).collect();
    assert_eq!(clients.iter().map(Client::backend).collect::<Vec<_>>(), [0, 0, 1]);
    clients.swap_remove(0).close();
    wait_upstream(&proxy, "sessions", 2);
    assert_eq!(session(&proxy).backend(), 0);
}

#[test]
fn connections_come_from_each_source_address_in_turn() {
    let backends = Backend::several(1);
    let proxy = Proxy::start(&config(&backends, "", "bind = [\"127.0.0.2\", \"127.0.0.3\"]"));
    let clients: Vec<_> = (0..6).map(|_| session(&proxy)).collect();
    let peers = backends[0].peers();
    let [first, second] = [2, 3].map(|last| IpAddr::from([127, 0, 0, last]));
    assert!(peers == [first, second].repeat(3) || peers == [second, first].repeat(3), "{peers:?}");
    drop(clients);
}

/// Two upstreams of one backend each, with shares of 80 and 20.
fn split(backends: &[Backend], key: &str) -> String {
    let (one, other) = (backends[0].url(), backends[1].url());
    let parts = format!("split = [{{ upstream = \"g\", weight = 80 }}, {{ upstream = {other:?}, weight = 20 }}]");
    config_of(&format!("{one:?}"), key, "").replace("[[route]]\nupstream = \"g\"", &format!("[[route]]\n{parts}"))
}

#[test]
fn a_route_is_split_by_percentage_and_by_key() {
    const ASKED: usize = 300;
    let backends = Backend::several(2);
    // Five standard deviations of 7.
    let near = (ASKED / 5 - 35)..(ASKED / 5 + 35);
    let proxy = Proxy::start(&split(&backends, ""));
    let seen: Vec<_> = (0..ASKED).map(|_| visit(&proxy, "/", "")).collect();
    let second = tally(&seen)[&1];
    assert!(near.contains(&second), "{second} of {ASKED} by chance");
    let proxy = Proxy::start(&split(&backends, "split_key = \"cookie:uid\""));
    let part = |uid: usize| visit(&proxy, "/", &format!("Cookie: uid=u{uid}\r\n")).backend();
    let parts: Vec<_> = (0..ASKED).map(part).collect();
    let second = parts.iter().sum::<usize>();
    assert!(near.contains(&second), "{second} of {ASKED} by key");
    assert_eq!((0..60).map(part).collect::<Vec<_>>(), parts[..60], "the same key, the same part");
}
