//! A DNS server with scripted answers, over UDP and TCP. Written out by hand, byte by byte.
#![allow(dead_code)] // each test binary uses a part

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Instant;

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;

/// What a server answers.
#[derive(Clone, Default)]
pub struct Reply {
    pub rcode: u8,
    /// The bit TC.
    pub truncated: bool,
    /// TTL and data, all of the type that was asked for.
    pub records: Vec<(u32, Vec<u8>)>,
    /// Sent before it, with another id.
    pub forged: Option<Ipv4Addr>,
}

type Script = dyn Fn(&Question) -> Option<Reply> + Send;

#[derive(Clone, Debug)]
pub struct Question {
    pub name: String,
    pub kind: u16,
    pub over_tcp: bool,
    pub at: Instant,
    pub source_port: u16,
    pub id: u16,
}

pub struct Server {
    pub addr: SocketAddr,
    script: Arc<Mutex<Box<Script>>>,
    asked: Arc<Mutex<Vec<Question>>>,
}

impl Server {
    pub fn start(script: impl Fn(&Question) -> Option<Reply> + Send + 'static) -> Server {
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

    pub fn script(&self, script: impl Fn(&Question) -> Option<Reply> + Send + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    pub fn asked(&self) -> Vec<Question> {
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
    pub fn of(records: &[(u32, Vec<u8>)]) -> Option<Reply> {
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

pub fn a(ttl: u32, addr: SocketAddr) -> (u32, Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => (ttl, ip.octets().to_vec()),
        IpAddr::V6(ip) => (ttl, ip.octets().to_vec()),
    }
}

pub fn srv(ttl: u32, priority: u16, port: u16, target: &str) -> (u32, Vec<u8>) {
    let mut data = [priority, 5, port].map(u16::to_be_bytes).concat();
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend(label.bytes());
    }
    data.push(0);
    (ttl, data)
}

/// Answers A queries for the one name with these records.
pub fn addresses(records: Vec<(u32, Vec<u8>)>) -> impl Fn(&Question) -> Option<Reply> + Send {
    move |question| match (question.name.as_str(), question.kind) {
        ("app.internal", A) => Reply::of(&records),
        ("app.internal", AAAA) => Reply::of(&[]),
        _ => Some(Reply { rcode: NXDOMAIN, ..Reply::default() }),
    }
}
