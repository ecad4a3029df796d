//! The upstreams of the sessions as they are at this moment: carries out what the script says of
//! their endpoints, as health checks, discovery and the admin listener do from other threads, and
//! sees to it that every attempt goes to a member that is available, once, and to that of the
//! client's cookie first, and that endpoints count their sessions.

use crate::bugs::Bug;
use crate::coverage::Met;
use crate::fleet::{Change, Cookie, Outcome, Seat};
use crate::kernel::{Id, Micros, What, trace};
use crate::peers::{Peer, Stage};
use crate::schedule::Connect;
use crate::subject::{self, Other};
use crate::world::World;
use framegate::policy::endpoint::Endpoint;
use framegate::policy::health::{Order, State};
use framegate::policy::upstream::Upstream;
use framegate::proto::Side;
use std::sync::Arc;

/// The upstream of one session.
#[derive(Debug, Default)]
pub struct Group {
    /// Before the worker has it, and where it is none of the script's: none.
    upstream: Option<Arc<Upstream>>,
    /// The objects of all endpoints that were ever members; the newest of an endpoint last.
    known: Vec<Known>,
    /// The members of this moment.
    seats: Vec<Seat>,
    /// The endpoint under way.
    chosen: Option<usize>,
    pub attempts: Vec<Attempt>,
    /// Endpoints that were members and available, from this time on.
    history: Vec<(Micros, Set)>,
    /// Handshakes of other workers under way, by the change that began them.
    others: Vec<(usize, Outcome, Other)>,
    /// An endpoint was ejected.
    ejected: bool,
    /// Endpoints that were no members at some time, and those that were down or removed.
    absent: Set,
    fallen: Set,
    /// A reload has replaced the upstream, and the members of the two are not the same.
    reloaded: bool,
    diverged: bool,
    /// When its session comes.
    began: Micros,
    /// When control told the worker that an endpoint of the session is down: the last time, and
    /// the first time of those at which its client was connected through.
    told: Option<Micros>,
    told_open: Option<Micros>,
}

/// A set of endpoints, one bit for each.
type Set = u8;

/// An endpoint, and its state as the checks so far make it.
#[derive(Debug)]
struct Known {
    endpoint: usize,
    object: Arc<Endpoint>,
    up: bool,
    /// By an order.
    drained: bool,
    forced_down: bool,
    /// It is not a member any more.
    removed: bool,
    /// Control has seen that it is down.
    seen_down: bool,
    /// Checks in a row that contradict the state.
    against: u32,
    /// When it was last seen without an ejection, in milliseconds of the clock.
    clear_at: u64,
}

/// An attempt to connect for which there was a descriptor.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    at: Micros,
    endpoint: usize,
    pub outcome: Connect,
    /// The worker's socket, if it got one.
    sock: Option<Id>,
}

impl Known {
    /// Takes a result into account. Whether the state has changed.
    fn check(&mut self, passed: bool, [rise, fall]: [u32; 2]) -> bool {
        self.against = if passed == self.up { 0 } else { self.against + 1 };
        let changes = self.against >= if passed { rise } else { fall } && passed != self.up;
        if changes {
            (self.up, self.against) = (passed, 0);
        }
        changes
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Drain => self.drained = true,
            Order::Down => self.forced_down = true,
            Order::Ready => (self.drained, self.forced_down) = (false, false),
        }
    }

    /// Neither its checks nor an order take it out.
    fn is_in(&self) -> bool {
        self.up && !self.drained && !self.forced_down
    }

    fn is_down(&self) -> bool {
        !self.is_in() || self.removed
    }
}

/// When a reload comes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Reload {
    pub now: Micros,
    /// Endpoints are spoken to over TLS.
    pub secure: bool,
    /// The new upstream takes over the state of the old one; it always should.
    pub inherits: bool,
}

impl Group {
    /// The worker gets this upstream. `began`: when its session comes.
    pub fn open(&mut self, upstream: Arc<Upstream>, seats: &[Seat], now: Micros, began: Micros) {
        self.seats = seats.to_vec();
        self.upstream = Some(upstream);
        self.began = began;
        self.meet_members(now);
    }

    /// Notes the objects of the members of this moment.
    fn meet_members(&mut self, now: Micros) {
        let Some(upstream) = &self.upstream else { return };
        for object in upstream.endpoints() {
            if !self.known.iter().any(|known| Arc::ptr_eq(&known.object, &object)) {
                self.known.push(Known {
                    endpoint: subject::number_of(&object),
                    object,
                    up: true,
                    drained: false,
                    forced_down: false,
                    removed: false,
                    seen_down: false,
                    against: 0,
                    clear_at: now / 1_000,
                });
            }
        }
        self.note(now);
    }

    fn note(&mut self, now: Micros) {
        // One that was removed and came back is another object, and a session may have either.
        let available = |seat: &&Seat| self.objects(seat.endpoint).all(Known::is_in);
        let set = self.seats.iter().filter(available).fold(0, |set, seat| set | 1 << seat.endpoint);
        self.history.push((now, set));
        self.absent |= !self.seats.iter().fold(0, |set: Set, seat| set | 1 << seat.endpoint);
        for known in &mut self.known {
            known.removed |= !self.seats.iter().any(|seat| seat.endpoint == known.endpoint);
            self.fallen |= Set::from(known.is_down()) << known.endpoint;
        }
    }

    fn objects(&self, endpoint: usize) -> impl Iterator<Item = &Known> {
        self.known.iter().filter(move |known| known.endpoint == endpoint)
    }

    fn newest(&self, endpoint: usize) -> Option<&Known> {
        self.known.iter().rev().find(|known| known.endpoint == endpoint)
    }

    fn is_up(&self, endpoint: usize) -> bool {
        self.objects(endpoint).any(Known::is_in)
    }

    /// It is up, and not ejected.
    fn may_get_one(&self, endpoint: usize) -> bool {
        self.objects(endpoint).all(|known| known.is_in() && !known.object.health.is_ejected())
    }

    fn is_member(&self, endpoint: usize) -> bool {
        self.seats.iter().any(|seat| seat.endpoint == endpoint)
    }

    /// The members are replaced. Those that stay are the same objects, with their state.
    pub fn replace(&mut self, session: usize, seats: &[Seat], now: Micros, told: Option<bool>) {
        let Some(upstream) = &self.upstream else { return };
        if let Some(secure) = told {
            upstream
                .set_members(seats.iter().map(|seat| subject::member(session, *seat, secure)).collect(), now / 1_000);
            self.check_objects(upstream);
        }
        self.diverged |= self.reloaded && self.seats != seats;
        self.seats = seats.to_vec();
        self.meet_members(now);
    }

    fn check_objects(&self, upstream: &Upstream) {
        for object in upstream.endpoints() {
            let endpoint = subject::number_of(&object);
            let same = self.newest(endpoint).is_some_and(|known| Arc::ptr_eq(&known.object, &object));
            assert!(same || !self.is_member(endpoint), "endpoint {endpoint} is another object now");
        }
    }

    /// A reload brings another upstream, with these members, or those of before. Sessions under way
    /// keep the old one, which learns of no new members.
    pub fn reload(
        &mut self,
        session: usize,
        seats: Option<&[Seat]>,
        after: Arc<Upstream>,
        Reload { now, secure, inherits }: Reload,
    ) {
        let Some(before) = self.upstream.replace(Arc::clone(&after)) else { return };
        let seats = seats.map_or_else(|| self.seats.clone(), <[Seat]>::to_vec);
        after.set_members(seats.iter().map(|seat| subject::member(session, *seat, secure)).collect(), now / 1_000);
        if inherits {
            after.inherit(&before, now / 1_000);
            self.check_objects(&after);
            assert_eq!(before.sessions(), after.sessions(), "the counts of an upstream live over a reload");
            assert_eq!(before.queued(), after.queued(), "the queue of an upstream lives over a reload");
        }
        self.diverged |= self.seats != seats;
        (self.reloaded, self.seats) = (true, seats);
        self.meet_members(now);
    }

    /// Control has something to see at its endpoints.
    pub fn has_news(&self) -> bool {
        self.known.iter().any(|known| known.is_down() != known.seen_down)
    }

    /// The endpoints that have gone down since control looked last, and have sessions.
    pub fn gone_down(&mut self) -> Vec<Arc<Endpoint>> {
        let mut gone = Vec::new();
        for known in &mut self.known {
            let down = known.is_down();
            if down && !known.seen_down && known.object.sessions() > 0 {
                gone.push(Arc::clone(&known.object));
            }
            known.seen_down = down;
        }
        gone
    }

    /// The worker learns that an endpoint is down. `open`: the session's client is connected
    /// through to it.
    pub fn note_told(&mut self, object: &Arc<Endpoint>, now: Micros, open: bool) {
        let others = self.others.iter().filter(|(.., other)| std::ptr::eq(other.endpoint(), &raw const **object));
        // Else the session has another object of the same endpoint.
        if object.sessions() > others.count() {
            self.told = Some(now);
            self.told_open = self.told_open.or(open.then_some(now));
        }
    }

    /// The age that the session had when the worker was told of its endpoint, at most.
    pub fn told_age_ms(&self) -> Option<u64> {
        self.told.map(|at| at.saturating_sub(self.began) / 1_000)
    }

    /// The worker was certainly told while the session was established.
    pub fn was_told_open(&self) -> bool {
        self.told_open.is_some()
    }

    /// The endpoint of the last attempt.
    pub fn last_endpoint(&self) -> Option<usize> {
        self.attempts.last().map(|attempt| attempt.endpoint)
    }

    /// This endpoint was down or removed at some time.
    pub fn has_fallen(&self, endpoint: usize) -> bool {
        self.fallen & 1 << endpoint != 0
    }

    /// This endpoint was a member all the time.
    pub fn was_always_member(&self, endpoint: usize) -> bool {
        self.absent & 1 << endpoint == 0
    }

    /// What the endpoints say of themselves is what happened to them.
    pub fn check_states(&self) {
        for known in &self.known {
            let says = known.object.health.is_down();
            assert!(says == known.is_down(), "endpoint {} says that it is down: {says}", known.endpoint);
        }
    }

    /// For a message: what was tried, and who was there.
    pub fn story(&self) -> impl std::fmt::Debug + '_ {
        (&self.attempts, &self.history)
    }

    /// Sessions that endpoints count, those that are no members any more included.
    pub fn sessions(&self) -> usize {
        self.known.iter().map(|known| known.object.sessions()).sum()
    }

    /// What the upstream counts: sessions, those of them that wait for their 101, and those that
    /// wait for room.
    pub fn held(&self) -> usize {
        let Some(upstream) = &self.upstream else { return 0 };
        let (sessions, pending) = upstream.sessions();
        sessions + pending + upstream.queued()
    }

    /// Whether there was a moment, from the last attempt on, at which no endpoint was left: each
    /// member had been tried or was not available.
    pub fn was_exhausted(&self) -> bool {
        if self.ejected || self.diverged || !self.others.is_empty() {
            // That changes without an event, or is not the same for all.
            return true;
        }
        let from = self.attempts.last().map_or(0, |last| last.at);
        let before = self.history.iter().rev().find(|(at, _)| *at <= from).map_or(0, |(_, set)| *set);
        let after = self.history.iter().filter(|(at, _)| *at > from).map(|(_, set)| *set);
        after.chain([before]).any(|set| set & !self.tried() == 0)
    }

    /// Whether a member that passes its checks gets no session however long the worker waits:
    /// everything is over.
    pub fn has_stuck(&self, now: Micros) -> bool {
        const LONGER_THAN_AN_EJECTION_MS: u64 = 1_000_000;
        let later = now / 1_000 + LONGER_THAN_AN_EJECTION_MS;
        let mut members = self.known.iter().filter(|known| known.object.health.state() != State::Removed);
        members.any(|known| known.is_in() && !known.object.health.is_available(later))
    }

    fn has_ejected(&self) -> bool {
        self.known.iter().any(|known| known.object.health.is_ejected())
    }

    fn tried(&self) -> Set {
        self.attempts.iter().fold(0, |set, attempt| set | 1 << attempt.endpoint)
    }
}

impl World {
    /// The `n`-th change of a session's upstream happens.
    pub fn change(&mut self, session: usize, n: usize) {
        if self.script.plain.is_some() {
            return self.change_plain(n);
        }
        let fleet = &self.script.sessions[session].fleet;
        let Some((_, change)) = fleet.changes.get(n) else { return };
        let (now, thresholds) = (self.kernel.now, [fleet.rise, fleet.fall]);
        trace!(self.kernel, "upstream of session {session}: {change:?}");
        let group = &mut self.groups[session];
        match change {
            Change::Members(seats) => {
                let told = (self.bug != Some(Bug::OldMembers)).then_some(self.secure[Side::Upstream]);
                group.replace(session, seats, now, told);
                self.meet_removal(session);
            }
            Change::Reload(seats) => {
                let seats = seats.clone();
                self.reload(session, &seats);
                self.meet_removal(session);
            }
            Change::Order { endpoint, order } => {
                let (endpoint, order) = (*endpoint, *order);
                let Some(known) = group.known.iter_mut().rev().find(|known| known.endpoint == endpoint) else { return };
                let was_down = known.is_down();
                known.obey(order);
                let fell = known.is_down() && !was_down;
                if self.bug != Some(Bug::IgnoredOrder) {
                    known.object.obey(order, now / 1_000);
                }
                group.note(now);
                if fell && self.is_open_on(session) == Some(endpoint) {
                    self.coverage.meet(Met::OrderInSession);
                }
            }
            Change::Other { hold_us, outcome, seed } => {
                let Some(upstream) = &group.upstream else { return };
                let Some(other) = Other::begin(upstream, *seed, now / 1_000) else { return };
                group.others.push((n, *outcome, other));
                self.kernel.at(now + hold_us, What::Over(session, n));
            }
            Change::Check { endpoint, passed, late_ms } => {
                let Some(known) = group.known.iter_mut().rev().find(|known| known.endpoint == *endpoint) else {
                    return;
                };
                let changes = known.check(*passed, thresholds);
                if self.bug != Some(Bug::IgnoredCheck) {
                    let report =
                        subject::report(&known.object, *passed, thresholds, (now / 1_000).saturating_sub(*late_ms));
                    assert_eq!(report, changes.then_some(known.up), "endpoint {endpoint} as its checks say");
                }
                let down = changes && !known.up;
                group.note(now);
                if down {
                    let endpoint = *endpoint;
                    self.meet_down(session, endpoint);
                }
            }
        }
        self.expect_sweep(session);
    }

    /// The handshake that began with the `n`-th change is over.
    pub fn end_other(&mut self, session: usize, n: usize) {
        let now = self.kernel.now;
        let others = &mut self.groups[session].others;
        let Some(at) = others.iter().position(|(began, ..)| *began == n) else { return };
        let (_, outcome, other) = others.swap_remove(at);
        trace!(self.kernel, "a handshake with endpoint {}: {outcome:?}", subject::number_of(other.endpoint()));
        other.end(outcome, now / 1_000);
        self.note_ejections();
    }

    /// Sees which endpoints are ejected.
    pub fn note_ejections(&mut self) {
        let now = self.kernel.now / 1_000;
        for known in self.groups.iter_mut().flat_map(|group| &mut group.known) {
            if !known.object.health.is_ejected() {
                known.clear_at = now;
            }
        }
        for group in &mut self.groups {
            if !group.ejected && group.has_ejected() {
                group.ejected = true;
                self.coverage.meet(Met::Ejected);
            }
        }
    }

    fn meet_down(&mut self, session: usize, endpoint: usize) {
        if self.is_open_on(session) == Some(endpoint) {
            self.coverage.meet(Met::DownInSession);
        }
    }

    fn meet_removal(&mut self, session: usize) {
        let group = &self.groups[session];
        let gone = |endpoint: usize| !group.is_member(endpoint);
        let met = match (self.is_open_on(session), group.attempts.last()) {
            (Some(endpoint), _) if gone(endpoint) => Met::RemovedInSession,
            (None, Some(attempt)) if gone(attempt.endpoint) => Met::RemovedInHandshake,
            _ => return,
        };
        self.coverage.meet(met);
    }

    /// The endpoint of a session whose client has its 101.
    pub fn client_is_open_on(&self, session: usize) -> Option<usize> {
        let open =
            |peer: &Peer| (peer.session, peer.side, peer.stage) == (Some(session), Some(Side::Downstream), Stage::Open);
        let last = self.groups[session].attempts.last()?;
        self.peers[..self.peers_used].iter().any(open).then_some(last.endpoint)
    }

    /// The endpoint of an established session.
    fn is_open_on(&self, session: usize) -> Option<usize> {
        let open = |peer: &Peer| peer.session == Some(session) && peer.stage == Stage::Open;
        let last = self.groups[session].attempts.last()?;
        self.peers[..self.peers_used].iter().any(open).then_some(last.endpoint)
    }

    /// The worker makes an attempt to connect to an endpoint of a session's upstream.
    pub fn check_attempt(&mut self, session: usize, endpoint: usize) {
        let (group, fleet) = (&mut self.groups[session], &self.script.sessions[session].fleet);
        if group.upstream.is_none() {
            return;
        }
        // Its choice may have been made before an attempt for which there was no descriptor.
        let waited = fleet.limit.is_some() && fleet.is_shared();
        let seat = group.seats.iter().find(|seat| seat.endpoint == endpoint).copied();
        assert!(seat.is_some(), "an attempt goes to endpoint {endpoint}, which is no member");
        // An attempt for which there was no descriptor is made again with the same endpoint.
        let first = group.chosen.is_none();
        let chosen = group.chosen.replace(endpoint) != Some(endpoint);
        assert!(group.tried() & 1 << endpoint == 0, "endpoint {endpoint} is tried again");
        assert!(!chosen || group.is_up(endpoint), "an attempt goes to endpoint {endpoint}, which is down");
        let better = group.seats.iter().find(|other| {
            let left = group.tried() & 1 << other.endpoint == 0 && group.may_get_one(other.endpoint);
            left && seat.is_some_and(|seat| other.priority < seat.priority)
        });
        let named = match fleet.sticky {
            Some(Cookie::Of(named)) if group.is_member(named) && group.tried() & 1 << named == 0 => Some(named),
            _ => None,
        };
        // A cookie is looked up among the members of the moment at which the session comes.
        let known = |named: usize| group.was_always_member(named) || first && !group.diverged;
        let due = named.filter(|named| chosen && !waited && known(*named) && group.may_get_one(*named));
        assert!(due.is_none_or(|due| due == endpoint), "endpoint {endpoint} is tried, the cookie names {due:?}");
        let ordered = !chosen || waited || group.diverged || better.is_none() || named == Some(endpoint);
        assert!(ordered, "{seat:?} is tried though {better:?} is available");
        let Some(ejects) = fleet.ejects.filter(|_| chosen) else { return };
        let now = self.kernel.now / 1_000;
        let out = |known: &Known| known.object.health.is_ejected() && now < known.clear_at + ejects.time_ms;
        assert!(!group.objects(endpoint).all(out), "an attempt goes to endpoint {endpoint}, which is ejected");
        if group.objects(endpoint).all(|known| known.object.health.is_ejected()) {
            self.coverage.meet(Met::Tried);
        }
    }

    /// It had a descriptor for it.
    pub fn note_attempt(&mut self, session: usize, endpoint: usize, outcome: Connect, sock: Option<Id>) {
        self.groups[session].attempts.push(Attempt { at: self.kernel.now, endpoint, outcome, sock });
    }

    /// The worker has done everything that is due: a session is counted as long as it is connected,
    /// once, and by no other endpoint; and no longer than it has its client.
    pub fn check_counts(&self) {
        for (session, group) in self.groups.iter().enumerate().filter(|(_, group)| group.upstream.is_some()) {
            group.check_states();
            let connected = |attempt: &Attempt| attempt.sock.is_some_and(|sock| !self.kernel.socks[sock].closed);
            let most = usize::from(self.has_client(session) || group.attempts.iter().any(connected));
            let most = most + group.others.len();
            let count = group.sessions();
            let of_upstream = group.upstream.as_ref().map_or(0, |upstream| upstream.sessions().0);
            assert!(count == of_upstream, "endpoints count {count} sessions, their upstream {of_upstream}");
            assert!(count <= most, "{count} sessions are counted for session {session}, {most} at most are there");
            for attempt in group.attempts.iter().filter(|attempt| connected(attempt)) {
                let of_endpoint = group.known.iter().filter(|known| known.endpoint == attempt.endpoint);
                let count: usize = of_endpoint.map(|known| known.object.sessions()).sum();
                let others = group.others.iter().map(|(.., other)| subject::number_of(other.endpoint()));
                let there = 1 + others.filter(|endpoint| *endpoint == attempt.endpoint).count();
                assert!(count == there, "endpoint {} counts {count} sessions of {there}", attempt.endpoint);
            }
        }
    }

    /// The worker holds the connection of the session's client.
    pub fn has_client(&self, session: usize) -> bool {
        let of_client = |peer: &&Peer| peer.session == Some(session) && peer.side == Some(Side::Downstream);
        let client = self.peers[..self.peers_used].iter().find(of_client).map(|peer| peer.sock);
        let near = client.and_then(|sock| self.kernel.socks[sock].peer);
        near.is_some_and(|near| !self.kernel.socks[near].closed)
    }
}
