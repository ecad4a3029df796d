//! What it costs a handshake to judge its origin and its address: `cargo bench --bench access`.

mod common;

use common::{bench, facts_of};
use framegate::config;
use framegate::policy::access::{Access, DenyFile};
use framegate::policy::networks::Networks;
use framegate::policy::origin::Origins;
use framegate::proto::http1::parse_request;
use ipnet::{IpNet, Ipv4Net};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A browser's request with a Cookie and `Origin: https://www.example.com`.
const REQUEST: &str = include!("common/browser_request.rs");

/// The origins of a route with this key.
fn bench_origins(name: &str, key: &str, head: &str, admitted: bool) {
    let keys = format!("[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n{key}\n");
    let text = format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{keys}");
    let snapshot = config::parse(&text, "bench").expect("a valid route");
    let origins: &Origins = &snapshot.routes.entries()[0].route.origins;
    let request = parse_request(head.as_bytes()).expect("a valid request");
    let facts = facts_of(&request);
    assert_eq!(origins.judge(&facts).is_ok(), admitted, "{name}");
    bench(name, 20_000, || {
        black_box(black_box(origins).judge(black_box(&facts))).ok();
    });
}

fn bench_all_origins() {
    let list = |origin: &str| {
        let origins: Vec<_> = (0..99).map(|n| format!("\"{}\"", origin.replace("www", &format!("w{n}")))).collect();
        format!("origins = [{}, \"{origin}\"]", origins.join(", "))
    };
    let own = REQUEST.replace("Host: edge", "Host: www");
    let without_cookie = REQUEST.replace("Cookie:", "X-Cookie:");
    let below = REQUEST.replace("Origin: https://www", "Origin: https://a.b.www");
    bench_origins("origin, no list, no Cookie", "", &without_cookie, true);
    bench_origins("origin, no list, Cookie from its own host", "", &own, true);
    bench_origins("origin, no list, Cookie from another host", "", REQUEST, false);
    bench_origins("origin, any", "origins = [\"*\"]", REQUEST, true);
    bench_origins("origin, a list of one", "origins = [\"https://www.example.com\"]", REQUEST, true);
    bench_origins("origin, a list of 100", &list("https://www.example.com"), REQUEST, true);
    bench_origins("origin, 100 wildcards, the last one", &list("https://*.www.example.com"), &below, true);
}

/// The networks of a block list: addresses, and a quarter of them networks of 16 lengths.
fn block_list(count: u32) -> Networks<()> {
    let network = |n: u32| {
        let length = if n.is_multiple_of(4) { 16 + (n / 4 % 16) as u8 } else { 32 };
        let address = Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9));
        IpNet::V4(Ipv4Net::new(address, length).expect("a valid length"))
    };
    (0..count).map(network).collect()
}

fn bench_addresses() {
    // Clients from everywhere: what one address needs would stay in the cache.
    let clients: Vec<IpAddr> = (0..4_096u32).map(|n| Ipv4Addr::from(n.wrapping_mul(0x85eb_ca6b)).into()).collect();
    for count in [10, 1_000, 100_000] {
        let file = Arc::new(DenyFile::new("bench".into(), block_list(count)));
        let access = Access { deny_file: Some(file), ..Access::default() };
        let mut clients = clients.iter().cycle();
        bench(&format!("address, a deny_file of {count} networks"), 20_000, || {
            black_box(clients.next().is_some_and(|client| access.refuses(*client)));
        });
    }
}

fn main() {
    bench_all_origins();
    bench_addresses();
}
