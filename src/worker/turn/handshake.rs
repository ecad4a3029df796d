//! Everything between the start of a connect attempt, or an accept, and the first byte of the
//! session: PROXY headers, the outcome of connect(2), TLS handshakes on both sides, the request for
//! the upstream.

use super::Turn;
use crate::policy::listener::Entry;
use crate::proto::Side;
use crate::proto::end::{Cause, End, Party, Phase};
use crate::proto::interface::Event;
use crate::proto::session::Session;
use crate::worker::conn::{Conn, Handshake, Heading};
use crate::worker::sys::Sys;
use std::sync::Arc;

impl<S: Sys> Turn<'_, '_, S> {
    /// The upstream's socket reports the outcome of connect(2).
    pub(super) fn finish_connect(&mut self) {
        let Some(conn) = &mut self.pair.conns[Side::Upstream] else { return };
        match conn.finish_connect(&mut self.res.core.sys) {
            None => {}
            Some(Err(_)) => self.report(Event::ConnectFailed(Cause::ConnectRefused)),
            Some(Ok(())) => {
                self.send_header();
                if !self.pair.endpoint_uses_tls() {
                    self.connected();
                } else if let Err(cause) = self.start_upstream_handshake() {
                    self.report(Event::ConnectFailed(cause));
                }
            }
        }
    }

    /// Tells the endpoint who the client is, where its upstream asks for that.
    fn send_header(&mut self) {
        let (Some(session), Some(pending)) = (&self.pair.session, &self.pair.pending) else { return };
        let upstream = pending.candidates.as_ref().map(|candidates| candidates.upstream());
        let Some((upstream, request)) = upstream.zip(session.request()) else { return };
        if let Some(header) = pending.write_header(upstream, &request) {
            self.write(Side::Upstream, &[], &header, false);
        }
    }

    /// Looks for the PROXY header of a client.
    pub(super) fn read_header(&mut self) {
        let (Some(conn), Some(pending)) = (&mut self.pair.conns[Side::Downstream], &mut self.pair.pending) else {
            return;
        };
        let Some(mut input) = self.res.input.take() else { return };
        let heading = conn.read_header(&mut input, &mut self.res.core.sys);
        self.res.input = Some(input);
        match heading {
            Heading::Pending => {}
            Heading::Complete(header) => {
                self.eventful = true;
                pending.on_header(&header);
                let (peer, now) = (pending.peer.ip(), self.res.now);
                if let Some(cause) = self.res.core.snapshot.blocked(peer, now) {
                    return self.refuse_peer(cause);
                }
                let Some(permit) = self.pair.permit.take() else { return };
                match pending.listener.meet(peer, permit, now) {
                    Ok(Entry { permit, excess }) => {
                        self.pair.permit = Some(permit);
                        pending.excess = pending.excess.take().or(excess.map(Box::new));
                    }
                    Err(cause) => return self.refuse_peer(cause),
                }
                conn.begin(pending.tls_behind_header.take());
                let is_up = conn.is_up();
                // It is another client's now.
                self.heard();
                self.await_client();
                if is_up {
                    self.client_up();
                }
            }
            Heading::Failed(cause) => self.client_handshake_failed(cause),
            Heading::Silent => self.client_handshake_ended(Party::Downstream, Cause::NoRequest),
        }
    }

    /// A peer that is no trusted proxy, where only those may connect, or names a client that may
    /// not: closed without a word.
    pub fn refuse_peer(&mut self, cause: Cause) {
        self.close(End { party: Party::Downstream, phase: Phase::ProxyHeader, cause });
    }

    fn start_upstream_handshake(&mut self) -> Result<(), Cause> {
        let pending = self.pair.pending.as_ref().ok_or(Cause::TlsInternal)?;
        let endpoint = self.pair.pick.as_ref().ok_or(Cause::TlsInternal)?.endpoint();
        let upstream = pending.candidates.as_ref().ok_or(Cause::TlsInternal)?.upstream();
        let configs = pending.tls.as_ref().ok_or(Cause::TlsInternal)?;
        // Only now: a connect that fails does not pay for a key exchange.
        let tls = configs.connect(upstream, endpoint).map_err(|_| Cause::TlsInternal)?;
        let Some(conn) = &mut self.pair.conns[Side::Upstream] else { return Ok(()) };
        let had_backlog = conn.has_backlog();
        let started = conn.start_handshake(Box::new(tls), &mut self.res.io());
        if !had_backlog && conn.has_backlog() {
            self.stalled(Side::Upstream);
        }
        started
    }

    /// The upstream is reached: the request goes there.
    fn connected(&mut self) {
        let event = self.reached(false);
        self.report(event);
    }

    /// Steps of the TLS handshakes of this pair, as far as the loop iteration's budget allows.
    pub(super) fn handshakes(&mut self) {
        if self.res.handshake_steps > 0 && self.pair.connect_done() && self.pair.endpoint_uses_tls() {
            self.res.handshake_steps -= 1;
            self.finish_connect();
        }
        for side in Side::BOTH {
            let may = self.pair.conns[side].as_ref().is_some_and(Conn::may_handshake);
            if self.res.handshake_steps > 0 && may {
                self.res.handshake_steps -= 1;
                self.handshake(side);
            }
        }
    }

    fn handshake(&mut self, side: Side) {
        let Some(conn) = &mut self.pair.conns[side] else { return };
        let Some(mut input) = self.res.input.take() else { return };
        let had_backlog = conn.has_backlog();
        let mut heard = false;
        let outcome = conn.handshake(&mut input, &mut heard, &mut self.res.io());
        if !had_backlog && conn.has_backlog() {
            self.stalled(side);
        }
        if side == Side::Downstream
            && let Some(pending) = &mut self.pair.pending
        {
            pending.tls_spoken |= heard;
        }
        match (outcome, side) {
            (Handshake::Pending, _) => {}
            (Handshake::Established { resumed, end }, side) => {
                self.res.core.tally.tls_established(side, resumed);
                match side {
                    Side::Downstream => self.client_up(),
                    Side::Upstream => self.connected(),
                }
                self.forward_rest(side, input.bytes());
                if let Some(end) = end {
                    self.report(Event::Ended(side, end));
                }
            }
            (Handshake::Failed(cause), Side::Downstream) => {
                self.res.core.tally.tls_failed(side);
                self.client_handshake_failed(cause);
            }
            (Handshake::Failed(cause), Side::Upstream) => {
                self.res.core.tally.tls_failed(side);
                self.report(Event::ConnectFailed(cause));
            }
            (Handshake::Ended(end), Side::Downstream) => self.client_handshake_ended(Party::Downstream, end.cause()),
            (Handshake::Ended(end), Side::Upstream) => self.report(Event::ConnectFailed(end.cause())),
        }
        input.clear();
        self.res.input = Some(input);
    }

    /// The client's transport is up: its session begins.
    fn client_up(&mut self) {
        let cert = self.pair.conns[Side::Downstream].as_ref().and_then(Conn::peer_cert);
        if let Some(pending) = &mut self.pair.pending {
            pending.cert = cert.map(Box::new);
        }
        let settings = Arc::clone(&self.res.core.snapshot.settings);
        self.pair.session = Some(Session::new(settings, self.res.now));
    }
}
