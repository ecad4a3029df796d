//! Half-open clients: they take no work, but places.

use super::shield;
use crate::common::{
    End, Proxy, before, connect_from, eventually, masked, read_all, read_frame, read_head, request, reset,
};
use framegate::echo::Echo;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{JoinHandle, scope, spawn};
use std::time::{Duration, Instant};

const OVERLOADED: &str = "framegate_handshakes_total{outcome=\"handshake-overload\"}";

/// An echo server, stopped when dropped.
struct Backend {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn start() -> Backend {
        let echo = Echo::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (addr, stop) = (echo.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = Some(spawn(move || echo.run(&stopped).unwrap()));
        Backend { addr, stop, thread }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A session, or how it was refused.
fn try_open(addr: SocketAddr, host: u8) -> Result<TcpStream, String> {
    let mut client = connect_from([127, 0, 0, host], addr);
    client.write_all(request("/", "").as_bytes()).map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            other => return Err(format!("{other:?} after {:?}", String::from_utf8_lossy(&head))),
        }
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 101 ") { Ok(client) } else { Err(head) }
}

fn echo(mut client: &TcpStream) -> Duration {
    let begun = Instant::now();
    client.write_all(&masked(0x82, &[7; 64])).unwrap();
    assert_eq!(read_frame(client).1, [7; 64]);
    begun.elapsed()
}

#[test]
fn the_prefix_with_most_silent_clients_gives_their_places_back() {
    let backend = Backend::start();
    let limits = shield("work = 32").replace("4000", "35");
    let proxy = Proxy::start(&before(backend.addr, &limits));
    let mut silent: Vec<_> = (0..30).map(|_| connect_from([127, 0, 0, 2], proxy.addr)).collect();
    // Some have begun their request.
    silent.iter_mut().step_by(2).for_each(|client| client.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap());
    let slow: Vec<_> = (0..5).map(|_| connect_from([127, 0, 0, 3], proxy.addr)).collect();
    // One may have been closed for a client that did not come.
    eventually("no place is left", || (proxy.metric("framegate_handshakes") >= 34.0).then_some(()));
    // Ten more come at the same time: each place that is needed is one of the flood.
    let addr = proxy.addr;
    let sessions: Vec<_> = scope(|scope| {
        let open: Vec<_> = (0..10).map(|n| scope.spawn(move || try_open(addr, 10 + n))).collect();
        open.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    for client in &sessions {
        echo(client);
    }
    let closed = eventually("it is counted", || Some(proxy.metric(OVERLOADED)).filter(|closed| *closed >= 1.0));
    // One more each time that all who have come are accepted.
    assert!(closed <= 20.0, "{closed}");
    // The oldest of the flood, without a word; the others are still served.
    assert_eq!(read_all(&silent[0]).0, b"");
    for mut client in slow {
        client.write_all(request("/", "").as_bytes()).unwrap();
        assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    }
    // Of those that have begun the youngest.
    let mut last = silent.swap_remove(28);
    last.write_all(b"example.com\r\n\r\n").unwrap();
    let (answer, end) = read_all(&last);
    assert!(answer.starts_with(b"HTTP/1.1 426 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(end, End::Fin);
}

/// Keeps so many connections half-open, from so many addresses, until it ends: silent, or with a
/// request that comes byte by byte. Those that are closed are opened again.
struct Flood {
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flood {
    fn start(addr: SocketAddr, clients: usize, hosts: u8) -> Flood {
        let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..2)
            .map(|thread| {
                let (stop, opened) = (Arc::clone(&stop), Arc::clone(&opened));
                let part = Part { clients: clients / 2, thread, hosts };
                spawn(move || flood(addr, &part, &stop, &opened))
            })
            .collect();
        Flood { stop, opened, threads }
    }

    fn stop(self) -> usize {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.opened.load(Relaxed)
    }
}

/// The part of a flood that one thread keeps.
struct Part {
    clients: usize,
    thread: u8,
    hosts: u8,
}

fn flood(addr: SocketAddr, part: &Part, stop: &AtomicBool, opened: &AtomicUsize) {
    let Part { clients, thread, hosts } = *part;
    let mut held: Vec<Option<socket2::Socket>> = (0..clients).map(|_| None).collect();
    let mut next = thread;
    while !stop.load(Relaxed) {
        for (n, slot) in held.iter_mut().enumerate() {
            if stop.load(Relaxed) {
                return;
            }
            let alive = slot.as_ref().is_some_and(|socket| {
                let mut end = [0];
                match (&*socket).read(&mut end) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                        // One in four goes on with its head.
                        n % 4 != 0 || (&*socket).write(b"G").is_ok_and(|n| n > 0) || socket.peer_addr().is_err()
                    }
                    _ => false,
                }
            });
            if alive {
                continue;
            }
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            next = (next + 1) % hosts;
            socket.bind(&SocketAddr::from(([127, 0, 1, next], 0)).into()).unwrap();
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            socket.set_nonblocking(true).unwrap();
            // It goes on by itself.
            let _ = socket.connect(&addr.into());
            *slot = Some(socket);
            opened.fetch_add(1, Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn percentile(times: &mut [Duration], of: usize) -> Duration {
    times.sort();
    times[times.len() * of / 1000]
}

/// Round trips of a crowd: each client of it in turn.
fn measure(crowd: &[TcpStream], rounds: usize) -> Vec<Duration> {
    (0..rounds).flat_map(|_| crowd.iter().map(echo)).collect()
}

/// Thousands of half-open clients, more than there are places, while a crowd talks and newcomers
/// open sessions: none of the crowd is refused or lost.
#[test]
fn a_crowd_is_served_while_thousands_are_half_open() {
    framegate::os::raise_nofile().unwrap();
    let backend = Backend::start();
    let limits = shield("work = 32").replace("4000", "1000");
    let proxy = Proxy::start(&before(backend.addr, &limits));
    let crowd: Vec<_> = (0..40).map(|n| try_open(proxy.addr, 10 + n).unwrap()).collect();
    let mut calm = measure(&crowd, 50);
    let opening = |number: u8| {
        (0..number).map(move |n| {
            let begun = Instant::now();
            let client = try_open(proxy.addr, 100 + n).unwrap_or_else(|error| panic!("newcomer {n}: {error}"));
            let opened = begun.elapsed();
            echo(&client);
            reset(client);
            opened
        })
    };
    let mut calm_opening: Vec<_> = opening(25).collect();
    let flood = Flood::start(proxy.addr, 4_000, 20);
    eventually("no place is left", || (proxy.metric("framegate_handshakes") >= 900.0).then_some(()));
    let mut during = measure(&crowd, 50);
    let mut during_opening: Vec<_> = opening(25).collect();
    during.extend(measure(&crowd, 50));
    let held = proxy.metric("framegate_handshakes");
    let opened = flood.stop();
    assert!(opened >= 4_000 && held >= 500.0, "{opened} opened, {held} held at the end");
    assert!(proxy.metric(OVERLOADED) > 0.0);
    for client in &crowd {
        echo(client);
    }
    for (what, times) in [
        ("calm: round trip", &mut calm),
        ("flood: round trip", &mut during),
        ("calm: opening", &mut calm_opening),
        ("flood: opening", &mut during_opening),
    ] {
        let [half, most, all] = [500, 990, 999].map(|of| percentile(times, of));
        println!("{what}: p50 {half:?}, p99 {most:?}, worst {all:?} of {}", times.len());
    }
    println!("{opened} half-open connections, {} of them closed to make room", proxy.metric(OVERLOADED));
}
