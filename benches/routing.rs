//! What finding a route costs among many, and choosing an endpoint: `cargo bench --bench routing`.

mod common;

use common::{bench, facts_of};
use framegate::config;
use framegate::policy::balance::Balance;
use framegate::policy::candidates::{Ask, Next};
use framegate::policy::endpoint::{Address, Endpoint, Member};
use framegate::policy::health::Order;
use framegate::policy::key::mix;
use framegate::policy::matching::Routes;
use framegate::policy::upstream::{Options, Rules, Upstream};
use framegate::proto::http1::parse_request;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

/// Routes as a large edge has them: a host each with a path, names or conditions for some, and
/// routes for all hosts behind them.
fn routes(count: usize) -> Routes {
    let mut text = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n".to_owned();
    for n in 0..count {
        let keys = match n % 5 {
            0 => format!("host = \"app-{n}.example.com\""),
            1 => format!("host = \"app-{n}.example.com\"\npath = \"/chat/*\""),
            2 => format!("host = \"*.tenant-{n}.example.com\"\npath = \"/room/{{id}}/*\""),
            3 => format!("path = \"/service-{n}/{{room}}\"\nmatch = [{{ header = \"x-version\", prefix = \"2.\" }}]"),
            _ => format!("path = \"/service-{n}/*\""),
        };
        text += &format!("[[route]]\nname = \"r{n}\"\nupstream = \"ws://10.0.0.1:9000\"\n{keys}\n");
    }
    config::parse(&text, "bench").expect("valid routes").routes
}

/// Routes that only this condition tells apart.
fn tenants(count: usize, condition: impl Fn(usize) -> String) -> Routes {
    let mut text = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n".to_owned();
    for n in 0..count {
        let condition = format!("match = [{{ {} }}]", condition(n));
        text += &format!("[[route]]\nname = \"r{n}\"\nupstream = \"ws://10.0.0.1:9000\"\n{condition}\n");
    }
    config::parse(&text, "bench").expect("valid routes").routes
}

fn bench_find(name: &str, routes: &Routes, (host, target, field): (&str, &str, &str), expected: Option<&str>) {
    let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{field}User-Agent: bench\r\n\r\n");
    let request = parse_request(head.as_bytes()).expect("a valid request");
    let facts = facts_of(&request);
    assert_eq!(routes.find(&facts).map(|found| found.entry.route.name.as_str()), expected, "{name}");
    bench(name, 20_000, || {
        black_box(routes.find(black_box(&facts)));
    });
}

const ENDPOINTS: usize = 1_000;
/// Sessions on them.
const SESSIONS: u64 = 20_000;

fn upstream(weight: impl Fn(usize) -> u16, rules: Rules) -> Arc<Upstream> {
    let member = |n: usize| {
        let addr = SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8], 9_000));
        let endpoint = Endpoint::new(format!("ws://{addr}"), Address::Tcp(addr), false, String::new());
        Member { endpoint: Arc::new(endpoint), weight: weight(n), priority: 0 }
    };
    let members = (0..ENDPOINTS).map(member).collect();
    Arc::new(Upstream::new("bench".to_owned(), members, Options { rules, ..Options::default() }))
}

/// Everything that policy does to choose an endpoint for a session, with the session's end.
fn bench_choose(name: &str, upstream: &Arc<Upstream>) {
    let mut seed = 0;
    let mut open = || {
        seed += 1;
        let mut candidates = upstream.candidates(&Ask { key: Some(mix(seed)), cookie: None, seed });
        let Next::Try { pick, .. } = candidates.next(0) else { panic!("{name}: no endpoint") };
        candidates.succeed(0);
        pick
    };
    let _held: Vec<_> = (0..SESSIONS).map(|_| open()).collect();
    bench(&format!("{ENDPOINTS} endpoints, {name}"), 5_000, || {
        black_box(open());
    });
}

fn bench_balancers() {
    for balance in Balance::ALL {
        let rules = || Rules { balance, ..Rules::default() };
        bench_choose(balance.name(), &upstream(|_| 1, rules()));
        let some_down = upstream(|_| 1, rules());
        some_down.endpoints().iter().step_by(5).for_each(|endpoint| endpoint.obey(Order::Down, 0));
        bench_choose(&format!("{}, a fifth down", balance.name()), &some_down);
        if balance != Balance::RoundRobin {
            bench_choose(&format!("{}, weights", balance.name()), &upstream(|n| 1 + (n % 10) as u16, rules()));
        }
    }
    let bounded = Rules { balance: Balance::ConsistentHash, hash_load_percent: 125, ..Rules::default() };
    bench_choose("consistent_hash, hash_load 125", &upstream(|_| 1, bounded));
}

fn main() {
    bench_balancers();
    for count in [1, 1_000] {
        let routes = routes(count);
        let last = |kind: usize| (count - 1) / 5 * 5 + kind;
        let n = last(0);
        let host = format!("app-{n}.example.com");
        bench_find(&format!("{count} routes, by host"), &routes, (&host, "/x", ""), Some(&format!("r{n}")));
        bench_find(&format!("{count} routes, no route"), &routes, ("other.example.org", "/x/y?z", ""), None);
    }
    let routes = routes(1_000);
    for (name, host, target, field, expected) in [
        ("1000 routes, host and prefix", "app-996.example.com:8080", "/chat/room/7?token=x", "", "r996"),
        ("1000 routes, wildcard host, a name", "a.b.tenant-997.example.com", "/room/7/x", "", "r997"),
        ("1000 routes, path for any host, a condition", "h", "/service-998/7", "X-Version: 2.1\r\n", "r998"),
        ("1000 routes, path for any host, prefix", "www.example.com", "/service-999/a/b/c/d", "", "r999"),
        ("1000 routes, encoded path with dots", "www.example.com", "/%73ervice-999/./a/../b", "", "r999"),
    ] {
        bench_find(name, &routes, (host, target, field), Some(expected));
    }
    let header = |comparison| move |n| format!("header = \"x-tenant\", {comparison} = \"t{n:03}\"");
    let network = |n: usize| format!("client = [\"192.0.{}.{}/32\"]", 2 + n / 250, n % 250);
    for (name, routes, field, expected) in [
        ("1000 routes for one path, header is", tenants(1_000, header("is")), "X-Tenant: t999\r\n", "r999"),
        ("1000 routes for one path, header prefix", tenants(1_000, header("prefix")), "X-Tenant: t999-x\r\n", "r999"),
        ("1000 routes for one path, client", tenants(1_000, network), "", "r1"),
    ] {
        bench_find(name, &routes, ("h", "/chat", field), Some(expected));
    }
}
