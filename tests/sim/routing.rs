//! What must hold of the endpoint that a session gets: cookies, retries. And of a session that is
//! closed by the worker: its endpoint went down, its credentials ended, it exceeded a limit. A part
//! of the oracle.

use crate::fleet::{Cookie, DOWN_CODE};
use crate::oracle::{Case, Judgement, ensure};
use crate::peers::Peer;
use crate::schedule::{End, Leg, Opening};
use crate::subject::cookie_of;
use framegate::proto::Side;
use framegate::proto::end::{self, Cause, Party, Phase};

/// Close code toward an upstream whose session was closed because of it.
const TOWARD_UPSTREAM: u16 = 1001;

impl Case<'_> {
    // --- cookies

    /// The 101 sets a cookie unless the client has the one of its endpoint.
    pub fn judge_cookie(&self) -> Judgement {
        if !self.client.facts.opened || self.session.leg == Leg::Unix {
            return Ok(());
        }
        let head = String::from_utf8_lossy(&self.client.head);
        let set: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("Set-Cookie: ")).collect();
        let (Some(sent), Some(endpoint)) = (self.session.fleet.sticky, self.group.last_endpoint()) else {
            ensure!(set.is_empty(), "the 101 sets {set:?}");
            return Ok(());
        };
        let end = if self.client.seal.is_some() { "; Secure" } else { "" };
        let id = cookie_of(self.index, endpoint, self.secure);
        let right = format!("{id}; Path=/; HttpOnly; SameSite=lax{end}");
        let has = sent == Cookie::Of(endpoint);
        let may_have_it = has && !self.group.was_always_member(endpoint);
        let fits = if has { set.is_empty() || may_have_it && set == [right.as_str()] } else { set == [right.as_str()] };
        ensure!(fits, "the client sent {sent:?}, got endpoint {endpoint} and {set:?} instead of {right:?}");
        Ok(())
    }

    // --- retries

    /// What the backend that was reached last does with the request.
    pub fn opening(&self) -> Opening {
        let fails = self.session.retry.filter(|retry| self.backend.is_some_and(|backend| backend.nth < retry.fails));
        fails.map_or(self.session.opening, |retry| retry.by)
    }

    /// A request is sent once, and again only after a failure that the route names.
    pub fn judge_requests(&self) -> Judgement {
        // A reset may overtake the response of a backend: then that one has failed as well.
        let overtaken = matches!(self.session.end, End::Rst(Side::Upstream));
        let most = 1 + self.session.retry.map_or(0, |retry| if overtaken { 10 } else { retry.fails.min(10) });
        ensure!(self.requests <= most, "the request was sent {} times, to {most} at most", self.requests);
        let budget = self.session.fleet.retries.map_or(usize::MAX, |retries| 1 + retries as usize);
        let tries = self.group.attempts.len();
        ensure!(tries <= budget, "{tries} attempts, where the budget allows {budget}");
        Ok(())
    }

    /// No retry was left.
    pub fn is_spent(&self) -> bool {
        let fleet = &self.session.fleet;
        fleet.retries.is_some_and(|retries| self.group.attempts.len() > retries as usize || !fleet.changes.is_empty())
    }

    /// All that were tried have failed in the way after which the route tries another one.
    pub fn judge_failed_retries(&self, by: Opening) -> Judgement {
        let shared = self.session.fleet.is_shared();
        let none_left = self.is_spent() || shared || self.group.was_exhausted();
        ensure!(none_left, "a failure was passed on though an endpoint was left: {:?}", self.group.story());
        let cause = self.ended.first().map(|verdict| verdict.ended.cause);
        match (by, cause) {
            (_, Some(full @ (Cause::UpstreamFull | Cause::QueueTimeout))) if shared => self.refusal(503, &[full]),
            (_, Some(Cause::NoSockets)) if self.starved > 0 => self.refusal(503, &[Cause::NoSockets]),
            // There was one when the request was sent, and none any more.
            (Opening::Answers, Some(Cause::BadResponse)) => self.refusal(502, &[Cause::BadResponse]),
            (Opening::Answers, _) => {
                ensure!(self.client.head.ends_with(b"\r\n\r\nSorry."), "the answer was not passed on");
                self.refusal(403, &[Cause::UpstreamResponse])
            }
            (Opening::Silent, _) => self.refusal(504, &[Cause::ResponseTimeout]),
            _ => self.refusal(502, &[Cause::BadResponse, Cause::Eof, Cause::Reset]),
        }
    }

    // --- sessions that the worker closes

    /// There was a reason for that beside what the peers do.
    pub fn may_be_closed(&self) -> bool {
        self.may_be_closed_otherwise() || self.may_exceed()
    }

    /// One that is no limit of its own.
    pub fn may_be_closed_otherwise(&self) -> bool {
        self.may_lose_endpoint() || self.may_lose_credentials()
    }

    /// Its route closes sessions, and its endpoint was down at some time.
    fn may_lose_endpoint(&self) -> bool {
        let fallen = self.group.last_endpoint().is_some_and(|endpoint| self.group.has_fallen(endpoint));
        self.session.fleet.closes_ms.is_some() && fallen && self.session.leg != Leg::Unix
    }

    /// It ended for such a reason.
    pub fn was_closed(&self) -> bool {
        let of_limits = [Cause::MessageRate, Cause::ByteRate, Cause::ControlRate];
        let others = [Cause::EndpointDown, Cause::Revoked, Cause::Expired];
        self.ended.iter().any(|verdict| [&of_limits[..], &others].concat().contains(&verdict.ended.cause))
    }

    /// An established session whose endpoint has gone down ends so, if its route says that, or as
    /// it would have ended; never otherwise.
    pub fn judge_down(&self, ended: end::End) -> Judgement {
        let rest = self.group.was_told_open() && self.session.fleet.closes_ms.is_some();
        ensure!(ended.cause != Cause::IdleTimeout || !rest, "a session at rest outlived its endpoint");
        if ended.cause != Cause::EndpointDown {
            return Ok(());
        }
        ensure!(self.may_lose_endpoint(), "{ended:?} where the endpoint was never down, or the route keeps sessions");
        ensure!((ended.party, ended.phase) == (Party::Proxy, Phase::Open), "verdict {ended:?}");
        Ok(())
    }

    /// It was closed for such a reason, and this peer was there to read that; frames may end
    /// in the middle, and then there is no place for a Close.
    pub fn must_say_why(&self, to: &Peer) -> bool {
        let cut = matches!(self.session.end, End::FinInFrame(_) | End::Stall(_) | End::Unanswered(_));
        // Its direction had its end already.
        let over = match self.session.end {
            // The other one may have answered the FIN with its own before the worker closed.
            End::Fin(_) => true,
            End::Drop(s) => to.side != Some(s),
            // A Unix socket cannot be reset: that is its end.
            End::Rst(s) => to.side != Some(s) && self.session.leg == Leg::Unix,
            _ => false,
        };
        self.was_closed() && !cut && !over && !to.facts.reset && !to.left() && !to.broken && !to.heard.dead
    }

    /// The code that the receiver of the direction from `side` gets for one of these reasons.
    pub fn is_code_of_ours(&self, side: Side, code: u16) -> bool {
        let down = self.may_lose_endpoint() && code == if side == Side::Upstream { DOWN_CODE } else { TOWARD_UPSTREAM };
        down || self.is_code_of_credentials(side, code) || self.is_code_of_limit(side, code)
    }
}
