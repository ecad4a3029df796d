//! `Sys` over the simulated world: where faults strike. A fault never breaks a promise of the real
//! kernel: what is not shown now is followed by an edge.

use crate::bugs::Bug;
use crate::callee::Callee;
use crate::faults::Fault;
use crate::header::LOCAL;
use crate::kernel::{Id, Link, What, trace};
use crate::plain::route::PLAIN;
use crate::schedule::Leg;
use crate::subject::SHADOWS;
use crate::world::{World, world, world_if_free};
use framegate::proto::Millis;
use framegate::worker::sys::{Event, PipeId, Sys, Target};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The system calls of the worker under test. The state is the thread's world.
#[derive(Debug, Default)]
pub struct SimSys;

/// A descriptor of the worker's.
#[derive(Debug)]
pub struct SimSock(Id);

#[derive(Debug)]
pub struct SimListener;

impl SimSock {
    pub fn of(id: Id) -> SimSock {
        SimSock(id)
    }

    pub fn id(&self) -> Id {
        self.0
    }
}

impl Drop for SimSock {
    fn drop(&mut self) {
        world_if_free(|w| {
            let waits = |callee: &Callee| !callee.has_answered(&w.script.sessions[callee.session]);
            match w.bug {
                Some(Bug::LeakedCall) if w.callee_of(self.0).is_some_and(waits) => {}
                Some(Bug::LateCancel) if w.callee_of(self.0).is_some_and(waits) => {
                    w.kernel.at(w.kernel.now + 1_000, What::Cancelled(self.0));
                }
                Some(Bug::LeakedLink) if w.plain_server_of(self.0).is_some_and(|server| server.served.len() > 1) => {}
                _ => w.close(self.0, false),
            }
        });
    }
}

fn io<T>(result: Result<T, i32>) -> io::Result<T> {
    result.map_err(io::Error::from_raw_os_error)
}

impl Sys for SimSys {
    type Sock = SimSock;
    type Listener = SimListener;

    fn accept(&mut self, _: &SimListener) -> io::Result<(SimSock, SocketAddr)> {
        let result = world(|w| {
            let result = w.accept();
            match (w.bug, result) {
                (Some(Bug::ListenerEdge), Err(error)) if error != libc::ECONNABORTED => Err(libc::EAGAIN),
                (_, result) => result,
            }
        });
        io(result.map(|(id, addr)| (SimSock(id), addr)))
    }

    fn connect(&mut self, target: Target<'_>) -> io::Result<SimSock> {
        io(world(|w| match target {
            Target::Tcp(SocketAddr::V4(addr)) => {
                w.kernel.fold(u64::from(addr.ip().to_bits()));
                // The second part says who it is, the third which session's, the last one which
                // endpoint.
                let [_, area, session, endpoint] = addr.ip().octets().map(usize::from);
                match area {
                    0 => w.connect(session, endpoint - 1, Leg::Tcp),
                    SHADOWS => w.connect_shadow(session),
                    PLAIN => w.connect_plain(endpoint - 1),
                    _ => w.call(session, area - 1),
                }
            }
            Target::Tcp(addr) | Target::TcpFrom(addr, _) => panic!("no backend at {addr}"),
            Target::Unix(path) => {
                let name = path.file_stem().and_then(|name| name.to_str()).expect("a socket of ours");
                w.connect(name.parse().expect("the number of a session"), 0, Leg::Unix)
            }
        }))
        .map(SimSock)
    }

    fn connected(&mut self, sock: &SimSock) -> io::Result<bool> {
        io(world(|w| {
            let sock = &mut w.kernel.socks[sock.0];
            match (sock.error.take(), sock.link) {
                (Some(error), _) => Err(error),
                (None, link) => Ok(link == Link::Up),
            }
        }))
    }

    fn recv(&mut self, sock: &SimSock, buf: &mut [u8]) -> io::Result<usize> {
        io(world(|w| {
            w.check_pause(sock.0);
            let max = before_read(w, sock.0, buf.len())?;
            let got = w.kernel.recv(sock.0, max, |bytes| buf[..bytes.len()].copy_from_slice(bytes));
            trace!(w.kernel, "recv sock {} up to {max} -> {got:?}", sock.0);
            if let (Some(bug), Ok(n), true) = (w.bug, got, w.callee_of(sock.0).is_some()) {
                bug.on_call(&mut buf[..n]);
            }
            let got = w.bug.map_or(got, |bug| w.falsify_read(bug, sock.0, got, buf));
            let got = if w.bug == Some(Bug::CutHead) { with_end_of_head(w, sock.0, got, buf) } else { got };
            after_read(w, sock.0, got, false)
        }))
    }

    fn peek(&mut self, sock: &SimSock, buf: &mut [u8]) -> io::Result<usize> {
        io(world(|w| {
            let max = before_read(w, sock.0, buf.len())?;
            let take = |bytes: &[u8]| buf[..bytes.len()].copy_from_slice(bytes);
            let got = match w.bug {
                Some(Bug::TakenHeader) => w.kernel.recv(sock.0, max, take),
                _ => w.kernel.peek(sock.0, max, take),
            };
            trace!(w.kernel, "peek sock {} up to {max} -> {got:?}", sock.0);
            w.note_look(sock.0, got);
            if w.bug == Some(Bug::BlindReuse) && w.plain_server_of(sock.0).is_some() {
                return Err(libc::EAGAIN);
            }
            w.kernel.fold(sent_or_not(got));
            got
        }))
    }

    fn local_addr(&mut self, _: &SimSock) -> io::Result<SocketAddr> {
        Ok(LOCAL.into())
    }

    fn send(&mut self, sock: &SimSock, bytes: &[u8]) -> io::Result<usize> {
        io(world(|w| {
            if let Some(dropped) = without_last_words(w, sock.0, bytes) {
                return dropped;
            }
            w.check_reuse(sock.0, bytes);
            if let Some(falsified) = w.falsify_write(sock.0, bytes) {
                return w.kernel.send(sock.0, &falsified, usize::MAX);
            }
            let room = before_write(w, sock.0, bytes.len());
            let result = w.kernel.send(sock.0, bytes, room);
            trace!(w.kernel, "send sock {} {} bytes -> {result:?}", sock.0, bytes.len());
            w.kernel.fold(sent_or_not(result));
            if w.bug == Some(Bug::InsideFrame) && result == Ok(bytes.len()) {
                Bug::hoist(bytes, &mut w.kernel.socks[sock.0].out);
            }
            result
        }))
    }

    fn send_vectored(&mut self, sock: &SimSock, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        io(world(|w| {
            let all = slices.iter().map(|s| s.len()).sum();
            if w.bug == Some(Bug::LastWords) {
                let joined: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                if let Some(dropped) = without_last_words(w, sock.0, &joined) {
                    return dropped;
                }
            }
            if w.bug.is_some() {
                let joined: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                if let Some(falsified) = w.falsify_write(sock.0, &joined) {
                    return w.kernel.send(sock.0, &falsified, usize::MAX);
                }
            }
            let mut room = before_write(w, sock.0, all);
            let mut sent = 0;
            for slice in slices.iter().filter(|s| !s.is_empty()) {
                match w.kernel.send(sock.0, slice, room) {
                    Ok(n) => {
                        (sent, room) = (sent + n, room - n);
                        if n < slice.len() {
                            break;
                        }
                    }
                    Err(_) if sent > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            trace!(w.kernel, "writev sock {} {all} bytes -> {sent}", sock.0);
            w.kernel.fold(sent as u64);
            Ok(sent)
        }))
    }

    /// The kernel may hold these bytes back until the FIN: who says that it follows at once must
    /// keep its word.
    fn send_last(&mut self, sock: &SimSock, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.send(sock, bytes);
        if sent.as_ref().is_ok_and(|n| *n == bytes.len()) {
            world(|w| w.corked.push(sock.0));
        }
        sent
    }

    fn discard(&mut self, sock: &SimSock, max: usize) -> io::Result<usize> {
        io(world(|w| {
            let max = before_read(w, sock.0, max)?;
            w.kernel.recv(sock.0, max, |_| {})
        }))
    }

    fn pipe(&mut self) -> io::Result<PipeId> {
        io(world(|w| {
            if w.kernel.faults.strikes(Fault::NoPipe) {
                return Err(libc::EMFILE);
            }
            w.pipes.push(Some(Vec::new()));
            Ok(PipeId(w.pipes.len() as u32 - 1))
        }))
    }

    fn close_pipe(&mut self, pipe: PipeId) {
        world(|w| assert!(w.pipes[pipe.0 as usize].take().is_some(), "a pipe is closed once"));
    }

    fn splice_in(&mut self, sock: &SimSock, pipe: PipeId, max: usize) -> io::Result<usize> {
        io(world(|w| {
            // Less than was asked for, although there is more: pages are what counts.
            let short = max > 1 && w.kernel.faults.strikes(Fault::ShortSplice);
            let max = if short { w.kernel.rng.size(1, max - 1) } else { max };
            w.check_pause(sock.0);
            let max = before_read(w, sock.0, max)?;
            let mut held = w.pipes[pipe.0 as usize].take().expect("an open pipe");
            assert!(held.is_empty(), "a pipe is spliced into when it is empty");
            let got = w.kernel.recv(sock.0, max, |bytes| held.extend_from_slice(bytes));
            trace!(w.kernel, "splice sock {} into pipe {} up to {max} -> {got:?}", sock.0, pipe.0);
            w.pipes[pipe.0 as usize] = Some(held);
            after_read(w, sock.0, got, true)
        }))
    }

    fn splice_out(&mut self, pipe: PipeId, sock: &SimSock, max: usize) -> io::Result<usize> {
        io(world(|w| {
            let room = before_write(w, sock.0, max);
            let mut held = w.pipes[pipe.0 as usize].take().expect("an open pipe");
            assert_eq!(held.len(), max, "the worker knows what is in a pipe");
            let sent = w.kernel.send(sock.0, &held, room);
            held.drain(..sent.unwrap_or(0));
            trace!(w.kernel, "splice pipe {} into sock {} {max} bytes -> {sent:?}", pipe.0, sock.0);
            w.pipes[pipe.0 as usize] = Some(held);
            sent
        }))
    }

    fn shutdown(&mut self, sock: &SimSock) -> io::Result<()> {
        io(world(|w| {
            trace!(w.kernel, "worker shuts down sock {}", sock.0);
            w.corked.retain(|corked| *corked != sock.0);
            w.kernel.shutdown(sock.0)
        }))
    }

    fn abort(&mut self, sock: SimSock) {
        world(|w| w.close(sock.0, true));
        std::mem::forget(sock);
    }

    fn register(&mut self, sock: &SimSock, token: usize) -> io::Result<()> {
        world(|w| w.register(sock.0, token));
        Ok(())
    }

    fn register_listener(&mut self, _: &mut SimListener, token: usize) -> io::Result<()> {
        world(|w| w.register_listener(token));
        Ok(())
    }

    fn deregister_listener(&mut self, _: &mut SimListener) -> io::Result<()> {
        world(|w| (w.listener.token, w.listener.edge) = (None, false));
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        events.clear();
        // Rounded up to whole milliseconds, as mio does.
        let ms = timeout.map(|t| t.as_micros().div_ceil(1_000) as u64);
        world(|w| {
            assert!(w.corked.is_empty(), "the last bytes of socks {:?} wait for a FIN", w.corked);
            w.poll(events, ms);
        });
        Ok(())
    }

    fn now(&mut self) -> Millis {
        world(|w| {
            w.worker_now = w.kernel.now / 1_000;
            w.worker_now
        })
    }

    fn random(&mut self, out: &mut [u8]) {
        world(|w| w.random.fill(out));
    }

    fn busy_us(&mut self) -> u64 {
        world(|w| w.kernel.now / 10)
    }

    fn next_slice(&mut self, unread: usize) -> usize {
        world(|w| {
            let whole = w.plain.read_last.is_some_and(|id| w.plain_server_of(id).is_some());
            if unread > 1 && !whole && w.kernel.faults.strikes(Fault::CutSlice) {
                w.kernel.rng.size(1, unread - 1)
            } else {
                unread
            }
        })
    }
}

/// How much of a read of `max` may be seen now. What is hidden comes with an edge of its own.
fn before_read(w: &mut World, id: Id, max: usize) -> Result<usize, i32> {
    w.slip();
    let (visible, peeked) = (w.kernel.socks[id].visible, w.kernel.socks[id].peeked);
    if !w.kernel.may_hide(id) || visible <= peeked || max <= peeked {
        return Ok(max);
    }
    let show = if w.kernel.faults.strikes(Fault::EmptyRead) {
        0
    } else if visible.min(max) > 1 && w.kernel.faults.strikes(Fault::ShortRead) {
        w.kernel.rng.size(1, visible.min(max) - 1)
    } else {
        return Ok(max);
    };
    let show = show.max(peeked);
    w.kernel.socks[id].visible = show;
    let soon = w.kernel.now + 1 + w.kernel.rng.below(500);
    w.kernel.at(soon, What::Reveal(id));
    trace!(w.kernel, "sock {id} shows {show} of {visible}");
    Ok(max)
}

/// Notes what a read brought.
fn after_read(w: &mut World, id: Id, got: Result<usize, i32>, spliced: bool) -> Result<usize, i32> {
    w.kernel.fold(sent_or_not(got));
    w.note_read(id, got.unwrap_or(0), spliced);
    w.note_flow(id);
    w.note_look(id, got);
    got
}

fn sent_or_not(result: Result<usize, i32>) -> u64 {
    result.map_or_else(|error| u64::MAX - error as u64, |n| n as u64)
}

/// For a planted bug: the end of a call's connection looks like the end of a head.
fn with_end_of_head(w: &World, id: Id, got: Result<usize, i32>, buf: &mut [u8]) -> Result<usize, i32> {
    const END: &[u8] = b"\r\n\r\n";
    let of_call = w.callee_of(id).is_some();
    match got {
        Ok(0) if of_call && buf.len() >= END.len() => {
            buf[..END.len()].copy_from_slice(END);
            Ok(END.len())
        }
        got => got,
    }
}

/// For a planted bug: a write that loses whole frames.
fn without_last_words(w: &mut World, id: Id, bytes: &[u8]) -> Option<Result<usize, i32>> {
    let kept = (w.bug == Some(Bug::LastWords)).then(|| w.without_last_words(id, bytes))??;
    if kept.is_empty() {
        return Some(Ok(bytes.len()));
    }
    let sent = w.kernel.send(id, &kept, usize::MAX);
    Some(sent.map(|n| if n == kept.len() { bytes.len() } else { n }))
}

/// How many bytes of a write of `len` the kernel has memory for. Where it is less, an edge comes
/// with the rest.
fn before_write(w: &mut World, id: Id, len: usize) -> usize {
    w.slip();
    let sock = &w.kernel.socks[id];
    if len == 0 || sock.link != Link::Up || w.kernel.now < sock.pressed_until || sock.dead {
        return usize::MAX;
    }
    let room = if w.kernel.faults.strikes(Fault::BlockedWrite) {
        0
    } else if len > 1 && w.kernel.faults.strikes(Fault::ShortWrite) {
        w.kernel.rng.size(1, len - 1)
    } else {
        return usize::MAX;
    };
    let until = w.kernel.now + 1 + w.kernel.rng.below(3_000);
    w.kernel.at(until, What::Space(id));
    // From here on there is none; `room` still fits.
    w.kernel.socks[id].pressed_until = if room == 0 { until } else { w.kernel.now };
    room
}
