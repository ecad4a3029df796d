//! The readiness rules of the simulated kernel, one by one; they are those of Linux (`tcp_poll`,
//! `unix_poll`, edge-triggered epoll).

use crate::calls::{SimListener, SimSock, SimSys};
use crate::kernel::{Id, Owner, What};
use crate::peers::{Peer, Stage};
use crate::schedule::Script;
use crate::world::world;
use framegate::worker::sys::{Event, Sys};
use std::io::{ErrorKind, Result};
use std::time::Duration;

const PEER: Owner = Owner::Peer(0);

/// A connected pair without faults: the worker's end, registered under token 7, and the peer's.
struct Wire {
    near: SimSock,
    far: Id,
}

fn wire(unix: bool) -> Wire {
    let (near, far) = world(|w| {
        w.begin(Script::default(), 5);
        w.kernel.faults.calm = true;
        w.kernel.trace = false;
        w.bug = None;
        w.peers.clear();
        w.peers.push(Peer::default());
        w.peers[0].stage = Stage::Gone;
        let (near, far) = w.kernel.pair(Owner::Worker, PEER, unix);
        w.kernel.hold();
        w.kernel.connected(near);
        (near, far)
    });
    let near = SimSock::of(near);
    SimSys.register(&near, 7).unwrap();
    let wire = Wire { near, far };
    let first = events();
    assert!(first.len() == 1 && first[0].writable && !first[0].readable, "registering reports readiness: {first:?}");
    wire
}

/// The events of one poll of 100 ms.
fn events() -> Vec<Event> {
    let mut events = Vec::new();
    SimSys.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
    events
}

fn only_event() -> Event {
    let events = events();
    assert_eq!(events.len(), 1, "{events:?}");
    events[0]
}

/// Delivers everything that is on its way.
fn pass_time() {
    world(|w| {
        for _ in 0..20 {
            w.kernel.now += 10_000;
            w.settle();
        }
    });
}

impl Wire {
    fn peer_sends(&self, bytes: &[u8]) {
        world(|w| assert_eq!(w.kernel.send(self.far, bytes, usize::MAX), Ok(bytes.len())));
    }

    fn recv(&self, max: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; max];
        let n = SimSys.recv(&self.near, &mut buf)?;
        buf.truncate(n);
        Ok(buf)
    }

    fn peek(&self, max: usize) -> Result<Vec<u8>> {
        let mut buf = vec![0; max];
        let n = SimSys.peek(&self.near, &mut buf)?;
        buf.truncate(n);
        Ok(buf)
    }

    fn recv_error(&self) -> ErrorKind {
        self.recv(10).unwrap_err().kind()
    }

    fn windows(&self, near: (usize, usize), far: (usize, usize)) {
        world(|w| {
            w.kernel.windows(self.near.id(), near.0, near.1);
            w.kernel.windows(self.far, far.0, far.1);
        });
    }
}

#[test]
fn only_new_data_makes_another_edge() {
    let wire = wire(false);
    wire.peer_sends(b"abcdef");
    pass_time();
    assert!(only_event().readable);
    assert_eq!(wire.recv(2).unwrap(), b"ab");
    assert!(events().is_empty(), "what was left unread is not reported again");
    wire.peer_sends(b"gh");
    assert!(only_event().readable);
    assert_eq!(wire.recv(100).unwrap(), b"cdefgh");
    assert_eq!(wire.recv_error(), ErrorKind::WouldBlock);
}

/// A look leaves the bytes where they are: what comes later makes an edge of its own, also if
/// nothing was read in between.
#[test]
fn a_look_takes_nothing_and_new_data_makes_an_edge() {
    let wire = wire(false);
    assert_eq!(wire.peek(10).unwrap_err().kind(), ErrorKind::WouldBlock);
    wire.peer_sends(b"abc");
    pass_time();
    assert!(only_event().readable);
    assert_eq!(wire.peek(2).unwrap(), b"ab");
    assert_eq!(wire.peek(10).unwrap(), b"abc");
    assert!(events().is_empty(), "what was only looked at is not reported again");
    wire.peer_sends(b"d");
    assert!(only_event().readable);
    assert_eq!(wire.peek(10).unwrap(), b"abcd");
    world(|w| w.kernel.shutdown(wire.far).unwrap());
    pass_time();
    assert!(only_event().read_closed);
    assert_eq!(wire.peek(10).unwrap(), b"abcd", "the data comes before the end");
    assert_eq!(wire.recv(3).unwrap(), b"abc");
    assert_eq!(wire.peek(10).unwrap(), b"d");
    assert_eq!(wire.recv(10).unwrap(), b"d");
    assert_eq!(wire.peek(10).unwrap(), b"");
}

#[test]
fn fin_with_data_has_no_edge_of_its_own() {
    let wire = wire(false);
    wire.peer_sends(b"last");
    world(|w| w.kernel.shutdown(wire.far).unwrap());
    pass_time();
    let event = only_event();
    assert!(event.readable && event.read_closed && !event.error);
    assert_eq!(wire.recv(100).unwrap(), b"last");
    assert!(events().is_empty());
    assert_eq!(wire.recv(100).unwrap(), b"");
}

#[test]
fn fin_after_the_poll_has_an_edge() {
    let wire = wire(false);
    wire.peer_sends(b"data");
    pass_time();
    assert!(!only_event().read_closed);
    assert_eq!(wire.recv(100).unwrap(), b"data");
    world(|w| w.kernel.shutdown(wire.far).unwrap());
    assert!(only_event().read_closed);
    assert_eq!(wire.recv(100).unwrap(), b"");
}

#[test]
fn data_before_a_reset_is_readable_and_the_error_comes_once() {
    let wire = wire(false);
    wire.peer_sends(b"before");
    pass_time();
    world(|w| w.kernel.abort(wire.far));
    pass_time();
    let event = only_event();
    assert!(event.error && event.readable && event.read_closed && event.writable);
    assert_eq!(wire.recv(100).unwrap(), b"before");
    assert_eq!(wire.recv_error(), ErrorKind::ConnectionReset);
    assert_eq!(wire.recv(100).unwrap(), b"");
    assert_eq!(SimSys.send(&wire.near, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn reset_after_fin_is_eof_for_reads_and_epipe_for_writes() {
    let wire = wire(false);
    world(|w| w.kernel.shutdown(wire.far).unwrap());
    pass_time();
    assert!(only_event().read_closed);
    world(|w| w.kernel.abort(wire.far));
    pass_time();
    assert!(only_event().error);
    assert_eq!(wire.recv(100).unwrap(), b"");
    assert_eq!(SimSys.send(&wire.near, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn urgent_data_splits_the_read_and_the_rest_has_no_edge() {
    let wire = wire(false);
    wire.peer_sends(b"before");
    world(|w| w.kernel.send_urgent(wire.far, b'!'));
    wire.peer_sends(b"behind");
    pass_time();
    assert!(only_event().priority);
    assert_eq!(wire.recv(100).unwrap(), b"before", "a read stops at the mark");
    assert!(events().is_empty(), "and no edge says that there is more");
    assert_eq!(wire.recv(100).unwrap(), b"behind", "the urgent byte is no part of the stream");
}

#[test]
fn writability_is_reported_once_a_third_is_free() {
    let wire = wire(false);
    wire.windows((1 << 16, 90), (10, 1 << 16));
    assert_eq!(SimSys.send(&wire.near, &[1; 20]).unwrap(), 20);
    pass_time();
    assert!(events().is_empty(), "there was room all the time");
    assert_eq!(SimSys.send(&wire.near, &[2; 200]).unwrap(), 80, "ten are with the peer, ten wait before these");
    assert_eq!(SimSys.send(&wire.near, &[3]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let read = |n: usize| {
        world(|w| assert_eq!(w.kernel.recv(wire.far, n, |_| {}), Ok(n)));
        pass_time();
    };
    read(10);
    read(10);
    assert!(events().is_empty(), "a few bytes of room are not worth an edge");
    read(10);
    assert!(only_event().writable);
}

#[test]
fn closing_with_unread_input_resets_the_peer() {
    let wire = wire(false);
    wire.peer_sends(b"never read");
    pass_time();
    drop(wire.near);
    pass_time();
    world(|w| assert_eq!(w.kernel.recv(wire.far, 10, |_| {}), Err(libc::ECONNRESET)));
}

#[test]
fn closing_without_unread_input_is_fin_and_later_data_resets() {
    let wire = wire(false);
    drop(wire.near);
    pass_time();
    world(|w| {
        assert_eq!(w.kernel.recv(wire.far, 10, |_| {}), Ok(0));
        assert_eq!(w.kernel.send(wire.far, b"late", 10), Ok(4));
    });
    pass_time();
    world(|w| assert_eq!(w.kernel.send(wire.far, b"later", 10), Err(libc::EPIPE)));
}

#[test]
fn closed_unix_socket_ends_both_directions() {
    let wire = wire(true);
    wire.peer_sends(b"rest");
    world(|w| w.kernel.close(wire.far));
    pass_time();
    let event = only_event();
    assert!(event.readable && event.read_closed && event.writable && !event.error);
    assert_eq!(SimSys.send(&wire.near, b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(wire.recv(100).unwrap(), b"rest");
    assert_eq!(wire.recv(100).unwrap(), b"");
}

#[test]
fn connect_result_has_an_edge() {
    drop(wire(false));
    for refused in [false, true] {
        let near = world(|w| {
            let (near, _) = w.kernel.pair(Owner::Worker, PEER, false);
            w.kernel.hold();
            let soon = w.kernel.now + 5;
            w.kernel.at(soon, if refused { What::Refused(near) } else { What::Connected(near) });
            near
        });
        let sock = SimSock::of(near);
        SimSys.register(&sock, 9).unwrap();
        assert!(matches!(SimSys.connected(&sock), Ok(false)));
        assert_eq!(SimSys.send(&sock, b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
        let event = only_event();
        assert!(event.writable && event.error == refused);
        match refused {
            true => assert_eq!(SimSys.connected(&sock).unwrap_err().kind(), ErrorKind::ConnectionRefused),
            false => assert!(SimSys.connected(&sock).unwrap()),
        }
    }
}

#[test]
fn listener_has_an_edge_for_a_new_client_only() {
    drop(wire(false));
    let queue = || {
        world(|w| {
            let (far, _) = w.kernel.pair(Owner::Worker, PEER, false);
            let now = w.kernel.now;
            w.kernel.at(now, What::Queue(far));
            w.settle();
        });
    };
    queue();
    SimSys.register_listener(&mut SimListener, 3).unwrap();
    assert_eq!(only_event().token, 3, "who waits already is reported");
    assert!(events().is_empty(), "but only once");
    queue();
    assert_eq!(only_event().token, 3);
    let (first, _) = SimSys.accept(&SimListener).unwrap();
    let (second, _) = SimSys.accept(&SimListener).unwrap();
    assert_eq!(SimSys.accept(&SimListener).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop((first, second));
    world(|w| assert_eq!(w.kernel.open_fds, 0));
}

/// An edge follows whatever a fault holds back: with any fault, a reader that trusts short reads
/// and a writer that waits for edges transfer everything.
#[test]
fn data_hidden_by_a_fault_comes_with_an_edge() {
    for seed in 0..300 {
        let wire = wire(false);
        world(|w| {
            w.kernel.faults.begin(seed);
            w.kernel.faults.hurry();
            w.listener.token = None;
        });
        wire.windows((50, 40), (50, 40));
        let (mut sent, mut got, mut back, mut returned) = (0, 0, 0, 0);
        let mut ready = (true, true);
        for _ in 0..10_000 {
            for event in events() {
                ready = (ready.0 | event.readable, ready.1 | event.writable);
            }
            while ready.0 {
                let read = wire.recv(30).unwrap_or_default().len();
                (got, ready.0) = (got + read, read == 30);
            }
            if ready.1 && back < 500 {
                let wrote = SimSys.send(&wire.near, &[0; 25]).unwrap_or_default();
                (back, ready.1) = (back + wrote, wrote == 25);
            }
            world(|w| {
                sent += if sent < 500 { w.kernel.send(wire.far, &[0; 9], 9).unwrap_or(0) } else { 0 };
                returned += w.kernel.recv(wire.far, 20, |_| {}).unwrap_or(0);
            });
            if got >= 500 && returned >= 500 {
                break;
            }
        }
        assert!(got >= 500 && returned >= 500, "seed {seed}: {got} of {sent} came, {returned} of {back} went");
    }
}
