//! The wire of the simulated kernel: segments in flight, and their effect on arrival. Everything
//! takes place at a moment of virtual time, in the order in which it was sent.

use crate::faults::Fault;
use crate::kernel::{Id, Kernel, Kind, Link, Micros, Owner, Segment, What};

impl Kernel {
    pub fn segment(&mut self, id: Id, len: usize, kind: Kind, delay: Micros) {
        let now = self.now;
        let sock = &mut self.socks[id];
        let at = sock.last_at.max(now + if sock.unix { 0 } else { delay });
        sock.last_at = at;
        sock.segments.push_back(Segment { at, len, kind });
        self.at(at, What::Arrive(id));
    }

    pub fn arrive(&mut self, from: Id) {
        let Some(to) = self.socks[from].peer else { return };
        let (mut got, mut data, mut blocked) = (false, false, false);
        while let Some(&segment) = self.socks[from].segments.front() {
            if segment.at > self.now || blocked {
                break;
            }
            match segment.kind {
                Kind::Data | Kind::Urgent if self.socks[to].closed || self.socks[to].dead => return self.bounce(from),
                Kind::Data | Kind::Urgent => {
                    let n = self.carry(from, to, segment);
                    (got, data, blocked) = (got | (n > 0), data | (n > 0), n < segment.len);
                }
                Kind::Fin | Kind::Gone => {
                    self.socks[from].segments.pop_front();
                    self.take_fin(to, segment.kind, data);
                    got = true;
                }
                Kind::Rst => {
                    if data && matches!(self.socks[to].owner, Some(Owner::Worker)) {
                        self.faults.note(Fault::RstWithData);
                    }
                    self.socks[from].segments.clear();
                    return self.take_rst(to);
                }
            }
        }
        if got {
            self.wake(to);
        }
        if data {
            self.space(from);
        }
    }

    /// Moves one segment as far as the receiver's window allows; how many bytes went.
    fn carry(&mut self, from: Id, to: Id, segment: Segment) -> usize {
        let [a, b] = self.socks.get_disjoint_mut([from, to]).expect("two ends");
        let n = segment.len.min(b.rx_max.saturating_sub(b.rx.len()));
        if n == 0 {
            return 0;
        }
        if segment.kind == Kind::Urgent {
            b.mark = Some(b.rx.end());
            self.faults.note(Fault::UrgentData);
        }
        b.rx.push(&a.out.bytes()[..n]);
        b.visible = b.rx.len();
        a.out.consume(n);
        match a.segments.front_mut() {
            Some(front) if n < front.len => front.len -= n,
            _ => drop(a.segments.pop_front()),
        }
        n
    }

    fn take_fin(&mut self, to: Id, kind: Kind, with_data: bool) {
        let sock = &mut self.socks[to];
        sock.rx_fin = true;
        sock.visible = sock.rx.len();
        if kind == Kind::Gone {
            // unix_release_sock: what the closer left unread is an error here.
            let unread = sock.peer.map(|peer| self.socks[peer].rx.len()).unwrap_or(0);
            let sock = &mut self.socks[to];
            sock.dead = true;
            sock.error = (unread > 0).then_some(libc::ECONNRESET);
            sock.was_reset = unread > 0;
            sock.out.consume(sock.out.len());
            sock.segments.clear();
        }
        if with_data && matches!(self.socks[to].owner, Some(Owner::Worker)) {
            self.faults.note(Fault::FinWithData);
        }
    }

    /// Data for a closed socket: a RST comes back.
    pub fn bounce(&mut self, from: Id) {
        let sock = &mut self.socks[from];
        sock.out.consume(sock.out.len());
        sock.segments.clear();
        if !sock.dead {
            let at = self.now + self.delay();
            self.at(at, What::Bounced(from));
        }
    }

    pub fn take_rst(&mut self, id: Id) {
        let sock = &mut self.socks[id];
        if sock.dead || sock.link == Link::Failed {
            return;
        }
        // tcp_reset: EPIPE in CLOSE_WAIT, else ECONNRESET.
        sock.error = Some(if sock.rx_fin { libc::EPIPE } else { libc::ECONNRESET });
        sock.dead = true;
        sock.was_reset = true;
        sock.visible = sock.rx.len();
        sock.out.consume(sock.out.len());
        sock.segments.clear();
        // Linux keeps data received before; other systems discard it.
        let foreign = matches!(sock.owner, Some(Owner::Peer(_)));
        if foreign && sock.rx.len() > 0 && self.rng.one_in(2) {
            let sock = &mut self.socks[id];
            sock.rx.consume(sock.rx.len());
            sock.visible = 0;
            self.faults.note(Fault::RstDestroysData);
        }
        self.wake(id);
    }

    /// Bytes were acknowledged, or memory is available again.
    pub fn space(&mut self, id: Id) {
        let now = self.now;
        let sock = &mut self.socks[id];
        if sock.nospace && !sock.dead && sock.has_space(now) {
            sock.nospace = false;
            self.wake(id);
        }
    }

    pub fn reveal(&mut self, id: Id) {
        let sock = &mut self.socks[id];
        if sock.visible < sock.rx.len() {
            sock.visible = sock.rx.len();
            self.wake(id);
        }
    }

    /// Whether a read may return less than there is, as if the rest came a moment later.
    pub fn may_hide(&self, id: Id) -> bool {
        let sock = &self.socks[id];
        sock.visible > 0 && !sock.rx_fin && !sock.dead && sock.mark.is_none()
    }
}
