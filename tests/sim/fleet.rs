//! The endpoints of a session's upstream, and what becomes of them while the schedule runs: health
//! checks that flap or come late, members that are replaced, orders of an administrator, reloads.
//! Part of the script: drawn from its seed.

use crate::kernel::Micros;
use crate::rng::Rng;
use crate::schedule::Connect;
use framegate::policy::health::Order;

/// Endpoints that an upstream may ever have.
pub const ENDPOINTS: usize = 4;

/// An endpoint as a member of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub endpoint: usize,
    pub weight: u16,
    pub priority: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The result of a health check, reported so long after it was known.
    Check { endpoint: usize, passed: bool, late_ms: u64 },
    /// The members are replaced by these.
    Members(Vec<Seat>),
    /// What the admin listener asks of an endpoint.
    Order { endpoint: usize, order: Order },
    /// Another configuration, in which the upstream has these members. Those of the other sessions
    /// stay as they are.
    Reload(Vec<Seat>),
    /// A session of another worker begins: how long its handshake takes, and what comes of it.
    Other { hold_us: Micros, outcome: Outcome, seed: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeds,
    Fails,
    /// Its client leaves.
    Leaves,
}

/// When handshakes eject an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejects {
    pub failures: u32,
    /// The first ejection.
    pub time_ms: u64,
    pub max_percent: u32,
}

/// The cookie that the client of a session sends, where its upstream has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cookie {
    Missing,
    Of(usize),
    /// Of no endpoint.
    Wrong,
}

/// Close code toward the client for an endpoint that has gone down. One that nothing else sends.
pub const DOWN_CODE: u16 = 1013;

#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The members at the start.
    pub seats: Vec<Seat>,
    /// One of the ways to balance.
    pub balance: usize,
    pub ejects: Option<Ejects>,
    /// The most sessions of an endpoint, and how many may wait for room.
    pub limit: Option<usize>,
    pub queue: usize,
    /// Health checks in a row that change the state of an endpoint.
    pub rise: u32,
    pub fall: u32,
    /// Clients come back by a cookie.
    pub sticky: Option<Cookie>,
    /// The session is closed within this time when its endpoint goes down; `None` keeps it.
    pub closes_ms: Option<u64>,
    /// Retries that there are in all; `None` for more than there are endpoints.
    pub retries: Option<u64>,
    /// With their time, from the start of the session on.
    pub changes: Vec<(Micros, Change)>,
    /// One endpoint stays a member and passes all its checks.
    pub anchored: bool,
}

/// Two endpoints to which nothing happens.
const PLAIN: [Seat; 2] = [Seat { endpoint: 0, weight: 1, priority: 0 }, Seat { endpoint: 1, weight: 1, priority: 0 }];

/// Ways to balance, by their position in `Balance::ALL`. The last one, by a hash table, is drawn
/// less often: its tables took half of the time of all schedules.
const BALANCES: [usize; 14] = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5];

/// How long a session may wait for room.
pub const QUEUE_MS: u64 = 700;

impl Fleet {
    /// Sessions of other workers share the endpoints.
    pub fn is_shared(&self) -> bool {
        self.changes.iter().any(|(_, change)| matches!(change, Change::Other { .. }))
    }

    /// The session may be closed because its endpoint goes down.
    pub fn may_close(&self) -> bool {
        self.closes_ms.is_some() && !self.changes.is_empty()
    }

    /// There is a reload among the changes.
    pub fn reloads(&self) -> bool {
        self.changes.iter().any(|(_, change)| matches!(change, Change::Reload(_)))
    }

    /// Whether an attempt certainly works: nothing happens to the endpoints, or not to the one that
    /// matters. `None`: that depends.
    pub fn works(&self, connects: [Connect; 2]) -> Option<bool> {
        match (self.changes.is_empty(), self.seats.len()) {
            (true, n) => {
                let tries = self.retries.map_or(n, |retries| n.min(1 + retries as usize));
                Some(connects.iter().take(tries).any(|connect| *connect == Connect::Works))
            }
            (false, _) => (self.anchored && connects == [Connect::Works; 2]).then_some(true),
        }
    }
}

/// `whole`: its session must open.
pub fn draw(rng: &mut Rng, whole: bool, connects: [Connect; 2]) -> Fleet {
    let (rise, fall) = (rng.pick(&[1, 1, 2, 3]), rng.pick(&[1, 1, 2, 3]));
    let seats = PLAIN.to_vec();
    let mut fleet = Fleet { seats, balance: rng.pick(&BALANCES), rise, fall, ..Fleet::default() };
    fleet.sticky = rng.one_in(4).then(|| draw_cookie(rng));
    fleet.retries = (!whole && rng.one_in(6)).then(|| rng.below(2));
    if rng.one_in(2) {
        return fleet;
    }
    // Where an attempt fails there must be another endpoint, which is there and available.
    let anchored = whole || rng.one_in(3);
    fleet.closes_ms = (!whole && rng.one_in(2)).then(|| rng.pick(&[0, 500, 20_000]));
    let moves = !whole || connects == [Connect::Works; 2];
    let fewest = if moves { usize::from(anchored) } else { 2 };
    fleet.anchored = anchored;
    fleet.seats = draw_seats(rng, anchored, fewest);
    fleet.limit = rng.one_in(4).then(|| rng.size(1, 2));
    fleet.queue = rng.pick(&[0, 1, 1]);
    let failures = rng.pick(&[1, 1, 2]);
    let ejects = Ejects { failures, time_ms: rng.pick(&[50, 300, 2_000]), max_percent: rng.pick(&[50, 100]) };
    // It must not be the anchor.
    fleet.ejects = (!anchored && moves && rng.one_in(2)).then_some(ejects);
    for _ in 0..if moves { rng.size(0, 9) } else { 0 } {
        let at = rng.pick(&[0, 300, 2_000, 8_000, 50_000, 400_000, 3_100_000]) + rng.below(2_000);
        fleet.changes.push((at, draw_change(rng, anchored)));
    }
    fleet
}

fn draw_cookie(rng: &mut Rng) -> Cookie {
    match rng.below(6) {
        0 => Cookie::Missing,
        1 => Cookie::Wrong,
        _ => Cookie::Of(rng.size(0, ENDPOINTS - 1)),
    }
}

fn draw_seats(rng: &mut Rng, anchored: bool, fewest: usize) -> Vec<Seat> {
    let mut seats = Vec::new();
    let first = rng.size(0, ENDPOINTS - 1);
    let count = rng.size(fewest, ENDPOINTS);
    for n in 0..count {
        // The anchor is the first endpoint.
        let endpoint = if anchored { n } else { (first + n) % ENDPOINTS };
        let (weight, priority) = (rng.pick(&[1, 1, 2, 5, 1_000]), rng.pick(&[0, 0, 0, 1, 2]));
        seats.push(Seat { endpoint, weight, priority });
    }
    seats
}

fn draw_change(rng: &mut Rng, anchored: bool) -> Change {
    if rng.one_in(3) {
        let seats = draw_seats(rng, anchored, usize::from(anchored));
        return if rng.one_in(8) { Change::Reload(seats) } else { Change::Members(seats) };
    }
    if rng.one_in(3) {
        let endpoint = rng.size(usize::from(anchored), ENDPOINTS - 1);
        return Change::Order { endpoint, order: rng.pick(&[Order::Drain, Order::Down, Order::Ready]) };
    }
    if !anchored && rng.one_in(2) {
        let outcome = rng.pick(&[Outcome::Succeeds, Outcome::Fails, Outcome::Fails, Outcome::Leaves]);
        let hold_us = rng.pick(&[0, 500, 5_000, 100_000, 900_000]) + rng.below(500);
        return Change::Other { hold_us, outcome, seed: rng.word() };
    }
    let endpoint = rng.size(0, ENDPOINTS - 1);
    let passed = anchored && endpoint == 0 || rng.one_in(3);
    Change::Check { endpoint, passed, late_ms: rng.pick(&[0, 0, 5, 400]) }
}
