//! DNS: TTLs, SRV records, truncation, servers that fail or answer for others. The server is
//! written out by hand, byte by byte.

use super::common::{Proxy, eventually, listen};
use super::{Held, config, metric, reaches, refused, until};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// What a server answers.
#[derive(Clone, Default)]
struct Reply {
    rcode: u8,
    /// The bit TC.
    truncated: bool,
    /// TTL and data, all of the type that was asked for.
    records: Vec<(u32, Vec<u8>)>,
    /// Sent before it, with another id.
    forged: Option<Ipv4Addr>,
}

type Script = dyn Fn(&Question) -> Option<Reply> + Send;

#[derive(Clone, Debug)]
struct Question {
    name: String,
    kind: u16,
    over_tcp: bool,
    at: Instant,
    source_port: u16,
    id: u16,
}

struct Server {
    addr: SocketAddr,
    script: Arc<Mutex<Box<Script>>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Server {
    fn start(script: impl Fn(&Question) -> Option<Reply> + Send + 'static) -> Server {
        // The same port for both, which another process may have taken in between.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (tcp, udp);
            }
        };
        let addr = udp.local_addr().unwrap();
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let server = Server { addr, script, asked: Arc::default() };
        let (script, asked) = (Arc::clone(&server.script), Arc::clone(&server.asked));
        let respond = move |query: &[u8], over_tcp, source_port| {
            let question = Question::read(query, over_tcp, source_port);
            asked.lock().unwrap().push(question.clone());
            let reply = script.lock().unwrap()(&question)?;
            Some((reply.forged.map(|_| reply.bytes(query, true)), reply.bytes(query, false)))
        };
        let for_tcp = respond.clone();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((n, from)) = udp.recv_from(&mut query) {
                if let Some((forged, reply)) = respond(&query[..n], false, from.port()) {
                    forged.map(|forged| udp.send_to(&forged, from).unwrap());
                    udp.send_to(&reply, from).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut query = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut query).unwrap();
                if let Some((_, reply)) = for_tcp(&query, true, 0) {
                    stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat()).unwrap();
                }
            }
        });
        server
    }

    fn script(&self, script: impl Fn(&Question) -> Option<Reply> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

impl Question {
    fn read(query: &[u8], over_tcp: bool, source_port: u16) -> Question {
        assert_eq!(&query[2..12], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0], "a query with recursion, for one name");
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let len = usize::from(query[at]);
            labels.push(String::from_utf8(query[at + 1..at + 1 + len].to_vec()).unwrap());
            at += 1 + len;
        }
        let number = |at: usize| u16::from_be_bytes([query[at], query[at + 1]]);
        assert_eq!((number(at + 3), query.len()), (1, at + 5), "class IN, and nothing after it");
        Question {
            name: labels.join("."),
            kind: number(at + 1),
            over_tcp,
            at: Instant::now(),
            source_port,
            id: number(0),
        }
    }
}

impl Reply {
    /// Of the type that was asked for.
    fn of(records: &[(u32, Vec<u8>)]) -> Option<Reply> {
        Some(Reply { records: records.to_vec(), ..Reply::default() })
    }

    fn bytes(&self, query: &[u8], forged: bool) -> Vec<u8> {
        let mut out = query.to_vec();
        // QR and RD; TC; RA and the response code.
        out[2] = 0x81 | if self.truncated { 2 } else { 0 };
        out[3] = 0x80 | self.rcode;
        let data = |address: Ipv4Addr| vec![(1, address.octets().to_vec())];
        let records = match (forged, self.forged) {
            (true, Some(address)) => {
                out[0] ^= 0x55;
                data(address)
            }
            _ => self.records.clone(),
        };
        out[7] = records.len() as u8;
        let kind = query[query.len() - 4..].to_vec();
        for (ttl, data) in records {
            // A pointer to the name of the question; type and class as there.
            out.extend([0xc0, 12]);
            out.extend(&kind);
            out.extend(ttl.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        out
    }
}

fn a(ttl: u32, addr: SocketAddr) -> (u32, Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => (ttl, ip.octets().to_vec()),
        IpAddr::V6(ip) => (ttl, ip.octets().to_vec()),
    }
}

fn srv(ttl: u32, priority: u16, port: u16, target: &str) -> (u32, Vec<u8>) {
    let mut data = [priority, 5, port].map(u16::to_be_bytes).concat();
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend(label.bytes());
    }
    data.push(0);
    (ttl, data)
}

/// Backends on different addresses and the same port.
fn backends() -> ((TcpListener, SocketAddr), (TcpListener, SocketAddr)) {
    loop {
        let (one, first) = listen();
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        if let Ok(two) = TcpListener::bind(second) {
            return ((one, first), (two, second));
        }
    }
}

fn by_name(servers: &[&Server], port: u16) -> String {
    let servers: Vec<_> = servers.iter().map(|server| server.addr.to_string()).collect();
    let dns = format!("name = \"App.internal.\", port = {port}, servers = {servers:?}, timeout = \"300ms\"");
    config(&format!("discover = {{ dns = {{ {dns} }} }}"))
}

/// Answers A queries for the one name with these records.
fn addresses(records: Vec<(u32, Vec<u8>)>) -> impl Fn(&Question) -> Option<Reply> + Send {
    move |question| match (question.name.as_str(), question.kind) {
        ("app.internal", A) => Reply::of(&records),
        ("app.internal", AAAA) => Reply::of(&[]),
        _ => Some(Reply { rcode: NXDOMAIN, ..Reply::default() }),
    }
}

#[test]
fn name_is_asked_again_when_its_ttl_has_passed() {
    let ((one, first), (two, second)) = backends();
    let server = Server::start(addresses(vec![a(3_000, first), a(2, first)]));
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    let mut held = Held::open(&proxy, &one);
    let began = server.asked()[0].at;
    server.script(addresses(vec![a(3_600, second)]));
    until(&proxy, "changes_total", "dns", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    held.still_works();
    let asked: Vec<_> = server.asked().into_iter().filter(|question| question.kind == A).collect();
    let after = asked[1].at.duration_since(began);
    assert_eq!(asked.len(), 2, "the second answer is good for an hour");
    assert!(after >= Duration::from_millis(1_900), "asked again after {after:?}, before the shortest TTL");
    assert!(after < Duration::from_secs(5), "asked again after {after:?}");
    assert_ne!((asked[0].id, asked[0].source_port), (asked[1].id, asked[1].source_port));
}

#[test]
fn services_have_their_ports_and_priorities() {
    let ((one, first), (two, second)) = (listen(), listen());
    let (a_port, b_port) = (first.port(), second.port());
    let local = SocketAddr::from(([127, 0, 0, 1], 1));
    let server = Server::start(move |question| match (question.name.as_str(), question.kind) {
        ("_ws._tcp.app", SRV) => Reply::of(&[srv(60, 10, a_port, "n1.app"), srv(60, 20, b_port, "n2.app")]),
        ("n1.app" | "n2.app", A) => Reply::of(&[a(1, local)]),
        _ => Reply::of(&[]),
    });
    let dns = format!("srv = \"_ws._tcp.app\", servers = [\"{}\"]", server.addr);
    let proxy = Proxy::start(&config(&format!("discover = {{ dns = {{ {dns} }} }}")));
    assert_eq!(metric(&proxy, "endpoints", "dns"), 2.0);
    reaches(&proxy, &[&one], &[&two]);
    // The first is not there any more: RFC 2782 has the next priority for that.
    drop(one);
    reaches(&proxy, &[&two], &[]);
    // A service that is decidedly not available: it is kept as every list without endpoints is.
    server.script(|question| match question.kind {
        SRV => Reply::of(&[(60, vec![0, 0, 0, 0, 0, 0, 0])]),
        _ => Reply::of(&[]),
    });
    until(&proxy, "failures_total", "dns", 1.0);
    reaches(&proxy, &[&two], &[]);
}

#[test]
fn truncated_answer_is_asked_for_over_tcp() {
    let ((one, first), (two, second)) = backends();
    let server = Server::start(move |question| match (question.kind, question.over_tcp) {
        (A, false) => Some(Reply { truncated: true, ..Reply::of(&[a(60, first)])? }),
        (A, true) => Reply::of(&[a(60, first), a(60, second)]),
        _ => Reply::of(&[]),
    });
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    assert_eq!(metric(&proxy, "endpoints", "dns"), 2.0);
    reaches(&proxy, &[&one, &two], &[]);
    assert!(server.asked().iter().any(|question| question.over_tcp && question.kind == A));
}

#[test]
fn next_server_is_asked_when_one_is_silent_or_fails() {
    let (one, first) = listen();
    let silent = Server::start(|_| None);
    let failing = Server::start(|_| Some(Reply { rcode: SERVFAIL, ..Reply::default() }));
    let good = Server::start(addresses(vec![a(60, first)]));
    let proxy = Proxy::start(&by_name(&[&silent, &failing, &good], first.port()));
    assert_eq!(metric(&proxy, "failures_total", "dns"), 0.0);
    reaches(&proxy, &[&one], &[]);
    assert!(!silent.asked().is_empty() && !failing.asked().is_empty());
}

#[test]
fn failures_and_missing_names_keep_the_addresses() {
    let (one, first) = listen();
    let server = Server::start(addresses(vec![a(1, first)]));
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    for (rcode, why) in [(SERVFAIL, "SERVFAIL"), (NXDOMAIN, "no endpoints")] {
        let failures = metric(&proxy, "failures_total", "dns");
        server.script(move |_| Some(Reply { rcode, ..Reply::default() }));
        proxy.said.wait_for(why);
        eventually("it fails", || (metric(&proxy, "failures_total", "dns") > failures).then_some(()));
        reaches(&proxy, &[&one], &[]);
        server.script(addresses(vec![a(1, first)]));
        eventually("it is fresh", || (metric(&proxy, "age_seconds", "dns") < 0.5).then_some(()));
    }
    assert_eq!(metric(&proxy, "changes_total", "dns"), 1.0);
}

#[test]
fn answers_of_others_are_ignored() {
    let ((one, first), (two, _)) = backends();
    let server = Server::start(move |question| match question.kind {
        A => Some(Reply { forged: Some(Ipv4Addr::new(127, 0, 0, 2)), ..Reply::of(&[a(60, first)])? }),
        _ => Reply::of(&[]),
    });
    let proxy = Proxy::start(&by_name(&[&server], first.port()));
    reaches(&proxy, &[&one], &[&two]);
}

#[test]
fn silent_servers_do_not_hold_up_the_start_for_long() {
    let silent = Server::start(|_| None);
    let began = Instant::now();
    let proxy = Proxy::start(&by_name(&[&silent], 1));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(refused(&proxy), "503");
    proxy.said.wait_for("no answer");
}
