//! The heartbeat (docs/src/behaviour.md, "The heartbeat"), over real sockets and with real peers:
//! who is alive, who is not, and what of it the other side sees.

mod common;

use common::*;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tungstenite::{Error, Message, WebSocket};

/// Short, so that the tests are; far above what a busy machine takes for an answer.
const BOTH: &str = "heartbeat = { client = \"300ms\", upstream = \"300ms\", timeout = \"250ms\" }";
const CLIENT: &str = "heartbeat = { client = \"300ms\", timeout = \"250ms\" }";
const UPSTREAM: &str = "heartbeat = { upstream = \"300ms\", timeout = \"250ms\" }";

/// The next frame, which is a ping of ours. Its payload.
#[track_caller]
fn read_ping(stream: &TcpStream, is_masked: bool) -> Vec<u8> {
    let (first, payload, mask) = read_frame(stream);
    assert_eq!((first, payload.len(), mask), (0x89, 8, is_masked));
    payload
}

#[track_caller]
fn assert_ended(proxy: &mut Proxy, expected: &str) {
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), expected);
    assert_eq!(proxy.stop().len(), 2);
}

fn pings_to(proxy: &Proxy, side: &str) -> f64 {
    proxy.metric(&format!("framegate_heartbeat_pings_total{{side=\"{side}\"}}"))
}

fn round_trips(proxy: &Proxy, side: &str) -> f64 {
    proxy.metric(&format!("framegate_heartbeat_round_trip_seconds_count{{side=\"{side}\"}}"))
}

#[test]
fn answers_go_no_further_and_are_measured() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::alone_before(addr, BOTH);
    let (mut client, mut upstream) = open(&proxy, &listener);
    let mut known = Vec::new();
    for _ in 0..3 {
        let (to_client, to_upstream) = (read_ping(&client, false), read_ping(&upstream, true));
        assert!(!known.contains(&to_client) && !known.contains(&to_upstream) && to_client != to_upstream);
        client.write_all(&masked(0x8a, &to_client)).unwrap();
        // In two pieces, and with something of the application behind it.
        let answer = [plain(0x8a, &to_upstream), plain(0x82, b"behind")].concat();
        upstream.write_all(&answer[..5]).unwrap();
        upstream.write_all(&answer[5..]).unwrap();
        // The first frame that comes is that of the application.
        assert_eq!(read_frame(&client), (0x82, b"behind".to_vec(), false));
        known.extend([to_client, to_upstream]);
    }
    // A late answer is swallowed, too; an unsolicited pong is not.
    client.write_all(&[masked(0x8a, &known[0]), masked(0x8a, b"8 bytes!"), masked(0x8a, &known[1])].concat()).unwrap();
    assert_eq!(read_frame(&upstream), (0x8a, b"8 bytes!".to_vec(), true));
    assert_eq!(read_frame(&upstream), (0x8a, known[1].clone(), true), "it was asked on the other leg");
    eventually("round trips", || (round_trips(&proxy, "downstream") == 3.0).then_some(()));
    eventually("round trips", || (round_trips(&proxy, "upstream") == 3.0).then_some(()));
    assert!(pings_to(&proxy, "downstream") >= 3.0 && pings_to(&proxy, "upstream") >= 3.0);
    assert_eq!(proxy.metric("framegate_frames_total{from=\"downstream\",opcode=\"pong\"}"), 2.0);
    assert_eq!(proxy.metric("framegate_frames_total{from=\"upstream\",opcode=\"pong\"}"), 0.0);
    client.write_all(&masked(0x88, &close_payload(1000, ""))).unwrap();
    upstream.write_all(&plain(0x88, &close_payload(1000, ""))).unwrap();
    drop((client, upstream));
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1000 code_down=1000");
}

#[test]
fn a_client_that_does_not_answer_is_dead() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, CLIENT);
    let begun = Instant::now();
    let (client, upstream) = open(&proxy, &listener);
    read_ping(&client, false);
    // What goes to it is no sign of life.
    (&upstream).write_all(&plain(0x81, b"x")).unwrap();
    assert_eq!(read_close(&upstream), (1001, "heartbeat timeout".to_owned()));
    // Half the interval at least, the timeout, and a last look.
    assert_due(begun, 150 + 250 + 100);
    assert_eq!(read_frame(&client), (0x81, b"x".to_vec(), false));
    assert_eq!(read_all(&client).1, End::Reset);
    assert_eq!(read_all(&upstream), (Vec::new(), End::Fin));
    drop((client, upstream));
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=heartbeat-timeout status=101 code_up=1001");
}

#[test]
fn an_upstream_that_does_not_answer_is_dead() {
    for (loss, code) in [("", 1001), ("\non_upstream_loss = \"close\"", 1012)] {
        let (listener, addr) = listen();
        let mut proxy = Proxy::before(addr, &format!("{UPSTREAM}{loss}"));
        let (client, upstream) = open(&proxy, &listener);
        read_ping(&upstream, true);
        assert_eq!(read_close(&client), (code, "heartbeat timeout".to_owned()));
        assert_eq!(read_all(&client), (Vec::new(), End::Fin));
        assert_eq!(read_all(&upstream).1, End::Reset);
        drop((client, upstream));
        let expected = format!("ended_by=upstream phase=open cause=heartbeat-timeout status=101 code_down={code}");
        assert_ended(&mut proxy, &expected);
    }
}

/// Something of the peer, anything, keeps the session.
#[test]
fn whoever_sends_anything_is_alive() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, BOTH);
    let (client, upstream) = open(&proxy, &listener);
    let begun = Instant::now();
    // Only data, no pong at all, and less often than pings come.
    let (mut from_client, mut from_upstream) = (0, 0);
    while begun.elapsed() < Duration::from_secs(2) {
        std::thread::park_timeout(Duration::from_millis(350));
        (&client).write_all(&masked(0x81, b"c")).unwrap();
        (&upstream).write_all(&plain(0x81, b"u")).unwrap();
        while read_frame(&upstream).0 != 0x81 {
            from_client += 1;
        }
        while read_frame(&client).0 != 0x81 {
            from_upstream += 1;
        }
    }
    assert!(from_client > 0 && from_upstream > 0, "no ping was sent: {from_client} {from_upstream}");
    (&client).write_all(&masked(0x88, b"")).unwrap();
    (&upstream).write_all(&plain(0x88, b"")).unwrap();
    drop((client, upstream));
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

/// A receiver of one long frame cannot be pinged inside it, and is alive while it takes bytes.
#[test]
fn a_slow_receiver_of_a_long_frame_is_alive() {
    let frame = plain(0x82, &vec![7; 12 << 20]);
    let (listener, addr) = listen();
    let mut proxy = Proxy::before(addr, CLIENT);
    // What the kernels hold of the frame is read within the timeout.
    let (client, upstream) = open_small(&proxy, &listener);
    std::thread::scope(|scope| {
        let frame = &frame;
        scope.spawn(|| (&upstream).write_all(frame).unwrap());
        let (begun, mut got) = (Instant::now(), 0);
        while got < frame.len() {
            let piece = read_exact(&client, (frame.len() - got).min(1 << 20));
            assert!(piece == frame[got..got + piece.len()], "other bytes at {got}");
            got += piece.len();
            // In all some 1.8 s: several times interval and timeout.
            let due = Duration::from_millis(150 * (got >> 20) as u64);
            std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
        }
    });
    let ping = read_ping(&client, false);
    (&client).write_all(&[masked(0x8a, &ping), masked(0x88, b"")].concat()).unwrap();
    assert_eq!(read_frame(&upstream), (0x88, Vec::new(), true));
    (&upstream).write_all(&plain(0x88, b"")).unwrap();
    drop((client, upstream));
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

#[test]
fn the_idle_timeout_counts_what_the_peers_say() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::alone_before(addr, &format!("{BOTH}\ntimeouts = {{ idle = \"1500ms\" }}"));
    let begun = Instant::now();
    let (client, upstream) = open(&proxy, &listener);
    let (client, upstream) = (&client, &upstream);
    std::thread::scope(|scope| {
        for (mut stream, is_masked) in [(client, false), (upstream, true)] {
            scope.spawn(move || {
                loop {
                    let (first, payload, _) = read_frame(stream);
                    if first == 0x88 {
                        assert_eq!(payload, close_payload(1001, "idle timeout"));
                        break;
                    }
                    let pong = if is_masked { plain(0x8a, &payload) } else { masked(0x8a, &payload) };
                    stream.write_all(&pong).unwrap();
                }
            });
        }
    });
    assert_due(begun, 1500);
    assert!(round_trips(&proxy, "downstream") >= 3.0 && round_trips(&proxy, "upstream") >= 3.0);
    for stream in [client, upstream] {
        assert_eq!(read_all(stream), (Vec::new(), End::Fin));
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    assert_ended(&mut proxy, "ended_by=proxy phase=open cause=idle-timeout status=101 code_up=1001 code_down=1001");
}

// --- real peers

/// A backend of tungstenite that echoes what its sessions say, each in a thread.
fn echo_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut ws = tungstenite::accept(stream).unwrap();
                // Pings are answered by the library.
                while let Ok(message) = ws.read() {
                    if message.is_text() && ws.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn connect_ws(addr: SocketAddr) -> WebSocket<TcpStream> {
    let stream = connect(addr);
    tungstenite::client(format!("ws://{addr}/"), stream).unwrap().0
}

/// Sends `message` and reads up to what answers it; the pings that came before.
fn answered(ws: &mut WebSocket<TcpStream>, message: &Message, answer: &Message) -> usize {
    ws.send(message.clone()).unwrap();
    let mut pings = 0;
    loop {
        match ws.read().unwrap() {
            Message::Ping(_) => pings += 1,
            other => {
                assert_eq!(&other, answer, "nothing but our pings comes between");
                return pings;
            }
        }
    }
}

#[test]
fn pings_of_the_application_are_answered_by_its_peer() {
    let mut proxy = Proxy::alone_before(echo_backend(), BOTH);
    let mut ws = connect_ws(proxy.addr);
    let (begun, mut n, mut pings) = (Instant::now(), 0u64, 0);
    // As long as ours, and others; now and then slowly, so that ours come between.
    while begun.elapsed() < Duration::from_secs(3) {
        n += 1;
        let payload = if n % 2 == 0 { n.to_be_bytes().to_vec() } else { format!("ping {n}").into_bytes() };
        pings += answered(&mut ws, &Message::Ping(payload.clone().into()), &Message::Pong(payload.into()));
        pings += answered(&mut ws, &Message::text(n.to_string()), &Message::text(n.to_string()));
        if n % 10 == 0 {
            std::thread::park_timeout(Duration::from_millis(320));
        }
    }
    assert!(pings > 0 && pings_to(&proxy, "upstream") > 0.0, "{pings} pings");
    eventually("our own pongs", || (round_trips(&proxy, "downstream") > 0.0).then_some(()));
    assert_eq!(proxy.metric("framegate_frames_total{from=\"upstream\",opcode=\"pong\"}"), n as f64);
    assert_eq!(proxy.metric("framegate_frames_total{from=\"downstream\",opcode=\"pong\"}"), 0.0);
    ws.close(None).unwrap();
    while ws.read().is_ok() {}
    drop(ws);
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}

/// A client in Python: it pings with 8 bytes of its own, is silent for a while, and says something.
const WEBSOCKETS: &str = r#"
import asyncio, sys, websockets
async def main(url):
    async with websockets.connect(url, ping_interval=None) as ws:
        for n in range(4):
            await asyncio.wait_for(await ws.ping(b"8 bytes" + bytes([n])), 10)
            await asyncio.sleep(0.4)
        await ws.send("said")
        assert await ws.recv() == "said"
asyncio.run(main(sys.argv[1]))
"#;

/// The same in JavaScript.
const WS: &str = r#"
import { createRequire } from "node:module";
import { once } from "node:events";
const { WebSocket } = createRequire(process.argv[1] + "/")("ws");
const ws = new WebSocket(process.argv[2]);
await once(ws, "open");
for (let n = 0; n < 4; n++) {
  const pong = once(ws, "pong");
  ws.ping(Buffer.from("8 bytes" + n));
  const [payload] = await pong;
  if (payload.toString() !== "8 bytes" + n) throw new Error("a pong to another ping: " + payload);
  await new Promise((done) => setTimeout(done, 400));
}
const message = once(ws, "message");
ws.send("said");
if ((await message)[0].toString() !== "said") throw new Error("another message");
ws.close(1000);
await once(ws, "close");
"#;

/// Where `tests/peers/setup.sh` has installed them; with CI set they must be there.
#[test]
fn ws_and_websockets_answer_and_see_their_own_pongs_only() {
    let beside_tmp = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    let env = std::env::var_os("PEERS_ENV").map_or_else(beside_tmp, Into::into);
    let (python, node) = (env.join("python/bin/python"), env.join("node"));
    let peers = [
        (python.exists(), Command::new(&python), vec!["-c", WEBSOCKETS]),
        (node.join("node_modules/ws").exists(), Command::new("node"), vec!["--input-type=module", "-e", WS]),
    ];
    for (there, mut command, script) in peers {
        if !there {
            assert!(std::env::var_os("CI").is_none(), "install the peers with tests/peers/setup.sh");
            println!("SKIPPED: a peer is missing; run tests/peers/setup.sh");
            continue;
        }
        let mut proxy = Proxy::alone_before(echo_backend(), BOTH);
        command.args(&script);
        if script.len() == 3 {
            command.arg(&node);
        }
        let output = command.arg(format!("ws://{}/", proxy.addr)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(round_trips(&proxy, "downstream") > 0.0 && round_trips(&proxy, "upstream") > 0.0);
        assert_eq!(proxy.metric("framegate_frames_total{from=\"upstream\",opcode=\"pong\"}"), 4.0);
        assert_eq!(proxy.metric("framegate_frames_total{from=\"downstream\",opcode=\"pong\"}"), 0.0);
        assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1000 code_down=1000");
    }
}

/// A process in between that is stopped: its kernel still takes and acknowledges bytes.
#[test]
fn an_upstream_process_that_hangs_is_dead() {
    let inner = Proxy::before(echo_backend(), "");
    let mut proxy = Proxy::alone_before(inner.addr, UPSTREAM);
    let mut ws = connect_ws(proxy.addr);
    answered(&mut ws, &Message::text("a"), &Message::text("a"));
    // Pongs come from the backend, two hops away.
    eventually("an answer", || (round_trips(&proxy, "upstream") > 0.0).then_some(()));
    inner.signal("STOP");
    let Message::Close(Some(frame)) = ws.read().unwrap() else { panic!("no Close") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "heartbeat timeout"));
    assert!(matches!(ws.read(), Err(Error::ConnectionClosed)));
    drop(ws);
    assert_ended(&mut proxy, "ended_by=upstream phase=open cause=heartbeat-timeout status=101 code_down=1001");
    inner.signal("CONT");
}

#[test]
fn a_client_process_that_hangs_is_dead() {
    let (listener, addr) = listen();
    let mut proxy = Proxy::alone_before(addr, CLIENT);
    let inner = Proxy::before(proxy.addr, "");
    let (client, upstream) = open(&inner, &listener);
    let ping = read_ping(&client, false);
    (&client).write_all(&masked(0x8a, &ping)).unwrap();
    eventually("an answer", || (round_trips(&proxy, "downstream") > 0.0).then_some(()));
    inner.signal("STOP");
    assert_eq!(read_close(&upstream), (1001, "heartbeat timeout".to_owned()));
    assert_eq!(read_all(&upstream), (Vec::new(), End::Fin));
    drop(upstream);
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=heartbeat-timeout status=101 code_up=1001");
    inner.signal("CONT");
}

/// A proxy that was stopped itself does not blame its peers: it reads what has come first.
#[test]
fn a_proxy_that_was_stopped_reads_before_it_judges() {
    let mut proxy = Proxy::alone_before(echo_backend(), BOTH);
    let mut ws = connect_ws(proxy.addr);
    answered(&mut ws, &Message::text("a"), &Message::text("a"));
    for _ in 0..5 {
        let before = pings_to(&proxy, "upstream");
        eventually("a ping", || (pings_to(&proxy, "upstream") > before).then_some(()));
        proxy.signal("STOP");
        std::thread::park_timeout(Duration::from_millis(700));
        proxy.signal("CONT");
        answered(&mut ws, &Message::text("b"), &Message::text("b"));
    }
    ws.close(None).unwrap();
    while ws.read().is_ok() {}
    drop(ws);
    assert_ended(&mut proxy, "ended_by=downstream phase=open cause=close status=101 code_up=1005 code_down=1005");
}
