//! Responses that go on for long, when the process stops or their endpoint goes down. Short ones
//! end by themselves.

use super::common::*;
use super::recorder::*;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &[u8] = b"9\r\ndata: 1\n\n\r\n";

fn start(addr: SocketAddr, route: &str, more: &str) -> Proxy {
    Proxy::start(&format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"stdout\"\n[[upstream]]\nname = \"app\"\nendpoints = [\"http://{addr}\"]\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"app\"\n{route}\n{more}\n"
    ))
}

/// A request that the upstream has, and has not answered.
fn asked(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = connect(proxy.addr);
    client.write_all(get("/events").as_bytes()).unwrap();
    let server = accept(listener);
    read_head(&server);
    (client, server)
}

/// A client that has the first event of its stream.
fn streaming(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, mut server) = asked(proxy, listener);
    server.write_all(&[HEAD, EVENT].concat()).unwrap();
    read_head(&client);
    assert_eq!(read_exact(&client, EVENT.len()), EVENT);
    (client, server)
}

#[test]
fn event_streams_end_one_after_the_other_when_the_process_stops() {
    const COUNT: usize = 20;
    let (listener, addr) = listen();
    let mut proxy = start(addr, "", "[drain]\nspread = \"1s\"");
    let streams: Vec<_> = (0..COUNT).map(|_| streaming(&proxy, &listener)).collect();
    eventually("they are counted", || (proxy.metric("framegate_event_streams") == COUNT as f64).then_some(()));
    let begun = Instant::now();
    proxy.signal("TERM");
    let mut times: Vec<_> = std::thread::scope(|scope| {
        let end = |(client, server): (TcpStream, TcpStream)| {
            move || {
                // A FIN, and no last chunk before it: it does not look complete.
                assert_eq!(read_all(&client), (Vec::new(), End::Fin));
                assert_eq!(read_all(&server), (Vec::new(), End::Fin));
                begun.elapsed()
            }
        };
        let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(end(stream))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_unstable();
    assert!(times[COUNT - 1] - times[0] >= Duration::from_millis(700), "{times:?}");
    let mut moments: Vec<_> = times.iter().map(|time| time.as_millis() / 50).collect();
    moments.dedup();
    assert!(moments.len() >= 8, "in bursts: {times:?}");
    assert_eq!(proxy.wait().code(), Some(0));
    let ends = |line: &&String| verdict(line).starts_with("ended_by=proxy phase=response cause=drain status=200");
    let log = proxy.log.whole();
    assert_eq!(log.iter().filter(ends).count(), COUNT, "{log:#?}");
}

#[test]
fn an_event_under_way_is_let_through() {
    let (listener, addr) = listen();
    let proxy = start(addr, "timeouts = { close = \"300ms\" }", "[drain]\nspread = \"0s\"");
    let (client, mut server) = streaming(&proxy, &listener);
    let (stuck, mut stalls) = streaming(&proxy, &listener);
    for server in [&mut server, &mut stalls] {
        server.write_all(&EVENT[..5]).unwrap();
    }
    assert_eq!([&client, &stuck].map(|client| read_exact(client, 5)), [&EVENT[..5]; 2]);
    let begun = Instant::now();
    proxy.signal("TERM");
    eventually("new clients are refused", || TcpStream::connect(proxy.addr).err().map(drop));
    server.write_all(&[&EVENT[5..], EVENT].concat()).unwrap();
    assert_eq!(read_all(&client), (EVENT[5..].to_vec(), End::Fin));
    // One that does not end has its time, and then a reset.
    assert_eq!(read_all(&stuck), (Vec::new(), End::Reset));
    assert_due(begun, 300);
}

#[test]
fn a_stream_that_only_the_connection_delimits_is_reset() {
    let (listener, addr) = listen();
    let proxy = start(addr, "", "[drain]\nspread = \"0s\"");
    let (client, mut server) = asked(&proxy, &listener);
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").unwrap();
    read_head(&client);
    assert_eq!(read_exact(&client, 9), b"data: 1\n\n");
    proxy.signal("TERM");
    assert_eq!(read_all(&client), (Vec::new(), End::Reset));
    proxy.log.wait_for("cause=drain");
}

#[test]
fn polls_and_short_responses_are_answered_while_the_process_stops() {
    let (listener, addr) = listen();
    let mut proxy = start(addr, "", "[drain]\nspread = \"0s\"");
    let (poll, mut polled) = asked(&proxy, &listener);
    let (half, mut rest) = asked(&proxy, &listener);
    rest.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").unwrap();
    read_head(&half);
    assert_eq!(read_exact(&half, 7), b"2\r\nok\r\n");
    let (late, mut begins) = asked(&proxy, &listener);
    proxy.signal("TERM");
    eventually("it drains", || (proxy.metric("framegate_draining") == 1.0).then_some(()));
    polled.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    let (head, body) = answer(&poll);
    assert!(head.contains("Connection: close\r\n") && body == "ok", "{head}");
    assert_eq!(read_all(&poll), (Vec::new(), End::Fin));
    rest.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(read_all(&half), (b"0\r\n\r\n".to_vec(), End::Fin));
    // A stream that begins now ends at once: with a head, since clients do not come back after 503.
    begins.write_all(&[HEAD, EVENT].concat()).unwrap();
    assert!(read_head(&late).starts_with("HTTP/1.1 200 OK\r\n"));
    let (events, end) = read_all(&late);
    assert!((events.is_empty() || events == EVENT) && end == End::Fin);
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn event_streams_of_an_endpoint_that_goes_down_end_as_the_route_says() {
    for (route, order, ends) in [
        ("", "down", false),
        ("on_endpoint_down = \"close\"", "down", true),
        ("on_endpoint_down = \"200ms\"", "drain", true),
    ] {
        let (listener, addr) = listen();
        let proxy = start(addr, route, "");
        let (client, mut server) = streaming(&proxy, &listener);
        let (short, mut serves) = asked(&proxy, &listener);
        let admin = proxy.admin();
        let told = http(admin, &format!("POST /upstreams/app/{addr}/{order} HTTP/1.1\r\nHost: {admin}\r\n\r\n"));
        assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
        if ends {
            assert_eq!(read_all(&client), (Vec::new(), End::Fin));
            let line = proxy.log.wait_for("cause=endpoint-down");
            assert!(line.contains(" status=200 ") && line.contains("ended_by=proxy phase=response "), "{line}");
            eventually("none is left", || (proxy.metric("framegate_event_streams") == 0.0).then_some(()));
            // One that begins there now.
            serves.write_all(&[HEAD, EVENT].concat()).unwrap();
            read_head(&short);
            assert_eq!(read_all(&short).1, End::Fin);
        } else {
            server.write_all(EVENT).unwrap();
            assert_eq!(read_exact(&client, EVENT.len()), EVENT);
            serves.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
            assert_eq!(answer(&short).1, "ok");
        }
    }
}
