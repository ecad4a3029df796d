//! Endpoints that are discovered at run time, with the process behind real sockets and sources that
//! answer as the real ones do. One file for each source; this one has what they share, and the
//! rules for all of them.
#![cfg(feature = "discovery")]

mod common;

#[path = "discovery/api.rs"]
mod api;
#[path = "discovery/consul.rs"]
mod consul;
#[path = "discovery/dns.rs"]
mod dns;
#[path = "discovery/eureka.rs"]
mod eureka;
#[path = "discovery/file.rs"]
mod file;
#[path = "discovery/kubernetes.rs"]
mod kubernetes;
#[path = "discovery/reload.rs"]
mod reload;
#[path = "discovery/server.rs"]
mod server;

use common::{Proxy, accept, connect, eventually, open, plain, read_all, read_frame, read_head, request, switching};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A configuration with one route to the upstream `app`, whose further keys are `keys`.
fn config(keys: &str) -> String {
    format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n{keys}\n"
    )
}

/// A metric of the upstream's discovery.
fn metric(proxy: &Proxy, name: &str, source: &str) -> f64 {
    proxy.metric(&format!("framegate_discovery_{name}{{upstream=\"app\",source=\"{source}\"}}"))
}

/// Waits until a metric has a value.
#[track_caller]
fn until(proxy: &Proxy, name: &str, source: &str, value: f64) {
    let what = format!("{name} is {value}");
    eventually(&what, || (metric(proxy, name, source) == value).then_some(()));
}

fn begin(proxy: &Proxy) -> TcpStream {
    let mut client = connect(proxy.addr);
    client.write_all(request("/", "").as_bytes()).unwrap();
    client
}

/// The status of a request that no endpoint takes.
#[track_caller]
fn refused(proxy: &Proxy) -> String {
    let answer = String::from_utf8(read_all(&begin(proxy)).0).unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Opens sessions until each backend has had one; all others must not get any.
#[track_caller]
fn reaches(proxy: &Proxy, backends: &[&TcpListener], others: &[&TcpListener]) {
    for _ in 0..2 {
        let clients: Vec<_> = backends.iter().map(|_| begin(proxy)).collect();
        let taken: Vec<_> = backends.iter().map(|backend| answer(backend)).collect();
        for client in &clients {
            assert!(read_head(client).starts_with("HTTP/1.1 101 "));
        }
        drop(taken);
    }
    for other in others {
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "a session went to an endpoint that is gone");
        other.set_nonblocking(false).unwrap();
    }
}

fn answer(backend: &TcpListener) -> TcpStream {
    let mut upstream = accept(backend);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    upstream
}

/// A session that stays open, whatever changes.
struct Held(TcpStream, TcpStream);

impl Held {
    #[track_caller]
    fn open(proxy: &Proxy, backend: &TcpListener) -> Held {
        let (client, upstream) = open(proxy, backend);
        Held(client, upstream)
    }

    #[track_caller]
    fn still_works(&mut self) {
        self.1.write_all(&plain(0x82, b"still here")).unwrap();
        assert_eq!(read_frame(&self.0).1, b"still here");
    }
}

/// Threads of the process that discover.
fn threads(proxy: &Proxy) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("discover")).count()
}

fn url(addr: SocketAddr) -> String {
    format!("ws://{addr}")
}
