//! The limits of an established session: rates, fragments, age. What is sent waits in a queue, as
//! in a kernel, until the session wants it; time is virtual.

use super::*;
use crate::proto::rate::{Bucket, Measure, OnExcess, Rate, RateLimit};
use crate::proto::relay::SessionLimits;
use crate::proto::settings::{FlowLimits, SessionAge};

/// One byte of a message too many is read before reading is paused for bytes.
const ONE_BYTE: u64 = 1;

pub(super) fn rate(measure: Measure, units: u64, period_ms: Millis, burst: u64, on_excess: OnExcess) -> RateLimit {
    RateLimit { measure, rate: Rate { units, period_ms }, burst, on_excess, close_code: 4003 }
}

fn relay_with(from: Side, limits: &[RateLimit]) -> RelaySettings {
    let mut flow = FlowLimits::default();
    flow.rates[from] = limits.to_vec();
    RelaySettings { flow, ..RelaySettings::default() }
}

fn limited(limits: &[RateLimit]) -> Driver {
    Driver::established_with(relay_with(Side::Downstream, limits))
}

impl Driver {
    /// Reads of what waits in `queue` as far as the session wants it; how much that was.
    fn read(&mut self, from: Side, queue: &mut Vec<u8>) -> usize {
        let before = queue.len();
        while !queue.is_empty() && !self.session.is_over() {
            let max = match self.session.wants_now(from, self.now) {
                ReadInterest::Nothing | ReadInterest::Shared => break,
                ReadInterest::Bytes(max) => max.min(queue.len()),
                ReadInterest::Payload(_) | ReadInterest::Discard => queue.len(),
            };
            let read: Vec<u8> = queue.drain(..max).collect();
            self.bytes(from, &read);
        }
        before - queue.len()
    }

    /// Time passes until `at`; deadlines come when they are due, and what waits is read then.
    fn until(&mut self, at: Millis, from: Side, queue: &mut Vec<u8>) {
        while let Some((due, timer)) = self.session.deadline().filter(|(due, _)| *due <= at) {
            self.now = due.max(self.now);
            self.event(Event::Timer(timer));
            self.read(from, queue);
        }
        self.now = at;
    }

    fn is_paused(&self, from: Side) -> bool {
        self.session.wants(from) == ReadInterest::Nothing
    }

    fn messages_to(&self, to: Side) -> usize {
        let header = if to == Side::Upstream { 6 } else { 2 };
        let (sent, mut at, mut n) = (&self.seen.sent[to], 0, 0);
        while let Some(len) = sent.get(at + 1).map(|len| usize::from(len & 0x7f)) {
            n += usize::from(sent[at] == 0x82);
            at += header + len;
        }
        n
    }
}

pub(super) const MINUTE: RateLimit = RateLimit {
    measure: Measure::Messages,
    rate: Rate { units: 100, period_ms: 60_000 },
    burst: 100,
    on_excess: OnExcess::Close,
    close_code: 4003,
};

#[test]
fn message_101_of_100_closes_both_sides_and_does_not_pass() {
    // However the messages arrive: one by one, or with the one too many in the middle of a read.
    for batch in [1, 7, 100, 101, 150] {
        let mut driver = limited(&[MINUTE]);
        let mut queue = client(b"hello").repeat(150);
        while !queue.is_empty() {
            let mut read: Vec<u8> = queue.drain(..(batch * 11).min(queue.len())).collect();
            driver.read(Side::Downstream, &mut read);
        }
        let to_upstream = &driver.seen.sent[Side::Upstream];
        assert!(to_upstream.starts_with(&client(b"hello").repeat(100)), "batch {batch}");
        assert_eq!(driver.messages_to(Side::Upstream), 100, "batch {batch}");
        assert_eq!(our_close(to_upstream, Side::Upstream), Some(1001));
        assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(4003));
        assert!(driver.seen.sent[Side::Downstream].ends_with(b"too many messages"));
        let verdict = driver.session.verdict().unwrap();
        assert_eq!((verdict.party, verdict.cause), (Party::Downstream, Cause::MessageRate));
    }
}

#[test]
fn a_sender_within_its_rate_is_never_stopped() {
    let mut driver = limited(&[MINUTE]);
    let mut sent = 0;
    for second in 0..3_600 {
        // 100 at once after a minute of silence, else one in 600 ms.
        driver.now = 1_000 * second;
        let n = if second % 120 == 60 { 100 } else { usize::from(second % 120 < 60) };
        driver.bytes(Side::Downstream, &client(b"x").repeat(n));
        sent += n;
    }
    assert_eq!(driver.messages_to(Side::Upstream), sent);
    assert_eq!(driver.session.verdict(), None);
}

#[test]
fn fragments_of_a_message_count_once_and_control_frames_do_not() {
    let mut driver = limited(&[RateLimit { burst: 2, ..MINUTE }]);
    let first = [&[0x02, 0x81, 0, 0, 0, 0, b'a'][..], &[0x89, 0x80, 0, 0, 0, 0]].concat();
    let more = [0x00, 0x81, 0, 0, 0, 0, b'b'].repeat(10);
    let last = [0x80, 0x81, 0, 0, 0, 0, b'c'];
    let fragmented = [&first[..], &more, &last].concat();
    driver.bytes(Side::Downstream, &fragmented);
    driver.bytes(Side::Downstream, &client(b"two"));
    assert_eq!(driver.seen.sent[Side::Upstream], [&fragmented[..], &client(b"two")].concat());
    assert_eq!(driver.session.verdict(), None);
    driver.bytes(Side::Downstream, &client(b"three"));
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::MessageRate);
}

#[test]
fn what_a_client_sends_before_its_101_counts() {
    let mut driver = Driver::new(relay_with(Side::Downstream, &[RateLimit { burst: 2, ..MINUTE }]));
    driver.bytes(Side::Downstream, &[REQUEST, &client(b"early").repeat(3)].concat());
    driver.bytes(Side::Upstream, SWITCHING);
    assert!(driver.seen.sent[Side::Upstream].starts_with(&[b"NEW", &client(b"early").repeat(2)[..]].concat()));
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::MessageRate);
}

#[test]
fn messages_that_pause_are_held_back_from_the_first_byte_too_many() {
    let limit = rate(Measure::Messages, 10, 1_000, 10, OnExcess::Pause);
    for payload in [0, 1, 5, 100] {
        let mut driver = limited(&[limit]);
        let frame = client(&vec![7; payload]);
        // Exactly the burst: nothing is exceeded, and nothing is paused.
        let mut queue = frame.repeat(10);
        driver.read(Side::Downstream, &mut queue);
        assert!(queue.is_empty() && !driver.is_paused(Side::Downstream), "{payload} B");
        let mut queue = frame.repeat(12);
        driver.read(Side::Downstream, &mut queue);
        assert!(driver.is_paused(Side::Downstream), "{payload} B");
        assert_eq!(driver.seen.sent[Side::Upstream].len(), 10 * frame.len(), "not a byte more than ten messages");
        // The other direction goes on, control frames among it, and so does what we say ourselves.
        driver.bytes(Side::Upstream, &[&server(b"down")[..], &[0x89, 0]].concat());
        assert_eq!(driver.seen.sent[Side::Downstream], [&server(b"down")[..], &[0x89, 0]].concat());
        assert!(driver.session.send_toward(Side::Upstream, OwnFrame::Ping([1; 8])));
        driver.settle();
        assert_eq!(driver.seen.sent[Side::Upstream].len(), 10 * frame.len() + 14, "the ping is between two frames");
        driver.seen.sent[Side::Upstream].truncate(10 * frame.len());
        assert_eq!(driver.session.deadline(), Some((100, Timer::Resume)), "one in 100 ms");
        driver.until(100, Side::Downstream, &mut queue);
        assert_eq!(driver.seen.sent[Side::Upstream].len(), 11 * frame.len(), "{payload} B");
        driver.until(200, Side::Downstream, &mut queue);
        assert_eq!(driver.seen.sent[Side::Upstream], frame.repeat(12), "nothing is lost");
        assert_eq!(driver.session.verdict(), None);
    }
}

#[test]
fn bytes_that_pause_leave_the_rest_in_the_kernel() {
    let limit = rate(Measure::Bytes, 1_000, 1_000, 1_000, OnExcess::Pause);
    for mode in [Mode::Framed, Mode::Opaque] {
        let relay = RelaySettings { mode, ..relay_with(Side::Upstream, &[limit]) };
        let mut driver = Driver::established_with(relay);
        let mut queue = server(&[7; 98]).repeat(30);
        let read = driver.read(Side::Upstream, &mut queue);
        assert_eq!((read as u64, driver.is_paused(Side::Upstream)), (1_000 + ONE_BYTE, true), "{mode:?}");
        assert!(!driver.is_paused(Side::Downstream));
        assert_eq!(driver.session.deadline().map(|(_, timer)| timer), Some(Timer::Resume));
        driver.until(1_000, Side::Upstream, &mut queue);
        let sent = driver.seen.sent[Side::Downstream].len() as u64;
        assert!((1_900..=2_000 + ONE_BYTE).contains(&sent), "{sent} in a second, {mode:?}");
        driver.until(5_000, Side::Upstream, &mut queue);
        assert!(queue.is_empty());
        assert_eq!(driver.seen.sent[Side::Downstream], server(&[7; 98]).repeat(30), "nothing is lost");
        assert!(!driver.is_paused(Side::Upstream));
        assert_eq!(driver.session.deadline().map(|(_, timer)| timer), Some(Timer::Idle));
    }
}

#[test]
fn an_excess_that_lasts_closes_and_one_that_ends_does_not() {
    let patient = OnExcess::PauseThenClose { patience_ms: 5_000 };
    let limit = rate(Measure::Messages, 10, 1_000, 10, patient);
    // 25 too many: they pass in 2.5 s. Then silence; then the same again.
    let mut driver = limited(&[limit]);
    for round in 0..3 {
        let mut queue = client(b"hello").repeat(35);
        driver.read(Side::Downstream, &mut queue);
        driver.until(driver.now + 10_000, Side::Downstream, &mut queue);
        assert!(queue.is_empty());
        assert_eq!((driver.messages_to(Side::Upstream), driver.session.verdict()), (35 * (round + 1), None));
    }
    // A sender that never stops.
    let (mut driver, mut queue) = (limited(&[limit]), client(b"hello").repeat(1_000));
    driver.read(Side::Downstream, &mut queue);
    driver.until(4_999, Side::Downstream, &mut queue);
    assert_eq!(driver.session.verdict(), None);
    driver.until(5_000, Side::Downstream, &mut queue);
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::MessageRate);
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(4003));
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    assert!((59..=60).contains(&driver.messages_to(Side::Upstream)), "ten, and ten a second for five seconds");
    // What it still sends is discarded, and its FIN ends the session.
    driver.read(Side::Downstream, &mut queue);
    assert!(queue.is_empty());
    driver.eof(Side::Downstream);
    driver.eof(Side::Upstream);
    assert_eq!(driver.verdict(), (Party::Downstream, Phase::Open, Cause::MessageRate));
}

#[test]
fn an_upstream_that_exceeds_its_limit_is_closed_as_one_that_offends() {
    let limit = rate(Measure::Messages, 10, 1_000, 2, OnExcess::Close);
    let mut driver = Driver::established_with(relay_with(Side::Upstream, &[limit]));
    driver.bytes(Side::Upstream, &server(b"x").repeat(3));
    assert_eq!(driver.messages_to(Side::Downstream), 2);
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(4003));
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1014));
    assert_eq!(driver.session.verdict().unwrap().party, Party::Upstream);
}

#[test]
fn our_close_waits_for_the_end_of_a_paused_frame_that_stays_slow() {
    let limit = rate(Measure::Bytes, 1_000, 1_000, 1_000, OnExcess::Pause);
    let mut driver = limited(&[limit]);
    let frame = [&[0x82, 0xfe, 0x07, 0xd0, 0, 0, 0, 0][..], &[7; 2_000]].concat();
    let mut queue = frame.repeat(2);
    driver.read(Side::Downstream, &mut queue);
    assert!(driver.is_paused(Side::Downstream));
    driver.event(Event::Drain);
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1001), "the other side: at once");
    assert!(driver.is_paused(Side::Downstream), "the frame goes on as slowly as it did");
    driver.until(500, Side::Downstream, &mut queue);
    let sent = driver.seen.sent[Side::Upstream].len() as u64;
    assert!((1_400..=1_500 + ONE_BYTE).contains(&sent), "{sent}");
    driver.until(1_100, Side::Downstream, &mut queue);
    let sent = &driver.seen.sent[Side::Upstream];
    assert_eq!((&sent[..2_008], our_close(sent, Side::Upstream)), (&frame[..], Some(1001)));
    assert!(queue.is_empty(), "the second frame is discarded");
}

#[test]
fn a_drain_while_messages_are_paused_closes_at_once() {
    let limit = rate(Measure::Messages, 1, 60_000, 2, OnExcess::PauseThenClose { patience_ms: 60_000 });
    let (mut driver, mut queue) = (limited(&[limit]), client(b"hello").repeat(5));
    driver.read(Side::Downstream, &mut queue);
    assert!(driver.is_paused(Side::Downstream));
    driver.event(Event::Drain);
    assert_eq!(driver.messages_to(Side::Upstream), 2);
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    assert_eq!(driver.session.wants(Side::Downstream), ReadInterest::Discard);
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::Drain);
    // The other direction was never limited; the close deadline ends it all.
    while driver.seen.ended.is_none() {
        driver.wait();
    }
    assert!(driver.now <= 60_000);
}

#[test]
fn a_paused_session_is_not_idle_and_an_end_is_seen_when_it_is_read_again() {
    let limit = rate(Measure::Messages, 1, 600_000, 1, OnExcess::Pause);
    let (mut driver, mut queue) = (limited(&[limit]), client(b"hello").repeat(2));
    driver.read(Side::Downstream, &mut queue);
    assert_eq!(driver.session.deadline(), Some((600_000, Timer::Resume)), "not the idle timeout of 300 s");
    driver.until(600_000, Side::Downstream, &mut queue);
    assert_eq!((driver.messages_to(Side::Upstream), driver.session.verdict()), (2, None));
    assert_eq!(driver.session.deadline(), Some((900_000, Timer::Idle)));
    // Half-close of the direction that is not paused.
    let mut queue = client(b"hello");
    driver.read(Side::Downstream, &mut queue);
    assert!(driver.is_paused(Side::Downstream));
    driver.eof(Side::Upstream);
    assert_eq!(driver.seen.fins[Side::Downstream], 1);
    driver.until(1_200_000, Side::Downstream, &mut queue);
    assert_eq!(driver.messages_to(Side::Upstream), 3);
}

#[test]
fn pings_are_limited_by_themselves_and_a_close_never_is() {
    let limit = rate(Measure::ControlFrames, 10, 1_000, 10, OnExcess::Close);
    let ping: &[u8] = &[0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
    let mut driver = limited(&[limit]);
    driver.bytes(Side::Downstream, &client(b"x").repeat(500));
    driver.bytes(Side::Downstream, &ping.repeat(10));
    driver.bytes(Side::Downstream, &close_of(Side::Downstream, 1000));
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::Close);
    let mut driver = limited(&[limit]);
    driver.bytes(Side::Downstream, &[ping.repeat(9), [0x8a, 0x80, 0, 0, 0, 0].to_vec(), ping.to_vec()].concat());
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::ControlRate);
    let passed = [ping.repeat(9), [0x8a, 0x80, 0, 0, 0, 0].to_vec()].concat();
    assert!(driver.seen.sent[Side::Upstream].starts_with(&passed));
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream][passed.len()..], Side::Upstream), Some(1001));
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(4003));
}

#[test]
fn a_message_of_too_many_fragments_closes_with_1008() {
    let flow = FlowLimits { fragments: 4, ..FlowLimits::default() };
    let relay = RelaySettings { flow, ..RelaySettings::default() };
    let piece = |first: u8| [first, 0x81, 0, 0, 0, 0, b'a'];
    let four = [piece(0x02), piece(0), piece(0), piece(0x80)].concat();
    let mut driver = Driver::established_with(relay.clone());
    driver.bytes(Side::Downstream, &four.repeat(3));
    driver.bytes(Side::Downstream, &client(b"whole").repeat(9));
    assert_eq!(driver.session.verdict(), None);
    driver.bytes(Side::Downstream, &[piece(0x02), piece(0), piece(0), piece(0), piece(0x80)].concat());
    assert_eq!(driver.session.verdict().unwrap().cause, Cause::TooManyFragments);
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1008));
    // The upstream's are limited, too.
    let mut driver = Driver::established_with(relay);
    driver.bytes(Side::Upstream, &[&[2, 0][..], &[0, 0].repeat(4)].concat());
    assert_eq!(driver.session.verdict().unwrap().party, Party::Upstream);
}

#[test]
fn a_session_ends_at_its_age_with_its_code_and_a_jitter() {
    let age = SessionAge { max_ms: 10_000, jitter_ms: 2_000, close_code: 4408 };
    let mut ends = std::collections::BTreeSet::new();
    for random in [0, 1, 777, 2_000, 2_001, u64::MAX] {
        let flow = FlowLimits { age: Some(age), ..FlowLimits::default() };
        let mut driver = Driver::new(RelaySettings { flow, ..RelaySettings::default() });
        driver.limits = SessionLimits { random, ..SessionLimits::default() };
        driver.bytes(Side::Downstream, REQUEST);
        driver.now = 500;
        driver.bytes(Side::Upstream, SWITCHING);
        // Messages do not make it younger.
        driver.now = 7_000;
        driver.bytes(Side::Downstream, &client(b"x"));
        assert_eq!(driver.wait(), Timer::Age);
        assert!((8_500..=10_500).contains(&driver.now), "its age is that of the WebSocket: {}", driver.now);
        ends.insert(driver.now);
        assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(4408));
        assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
        assert_eq!(driver.wait(), Timer::Close, "once");
        assert_eq!(driver.verdict(), (Party::Proxy, Phase::Open, Cause::SessionAge));
    }
    assert_eq!(ends.len(), 5, "{ends:?}");
}

#[test]
fn sessions_share_a_bucket_and_each_keeps_its_own() {
    let shared = Arc::new(Bucket::new(RateLimit { burst: 10, close_code: 4029, ..MINUTE }, 0));
    let mut sessions: Vec<_> = (0..3)
        .map(|_| {
            let mut driver = Driver::new(relay_with(Side::Downstream, &[RateLimit { burst: 6, ..MINUTE }]));
            driver.limits = SessionLimits { shared: vec![Arc::clone(&shared)], random: 0 };
            driver.bytes(Side::Downstream, REQUEST);
            driver.bytes(Side::Upstream, SWITCHING);
            driver.seen = Seen::default();
            driver
        })
        .collect();
    let code = |driver: &Driver| our_close(&driver.seen.sent[Side::Downstream], Side::Downstream);
    sessions[0].bytes(Side::Downstream, &client(b"x").repeat(6));
    sessions[1].bytes(Side::Downstream, &client(b"x").repeat(3));
    assert_eq!((code(&sessions[0]), code(&sessions[1])), (None, None));
    sessions[2].bytes(Side::Downstream, &client(b"x").repeat(3));
    assert_eq!((sessions[2].messages_to(Side::Upstream), code(&sessions[2])), (1, Some(4029)), "the tenth of all");
    sessions[0].bytes(Side::Downstream, &client(b"x"));
    assert_eq!(code(&sessions[0]), Some(4003), "its own comes first");
    // What the upstream says is not its clients'.
    sessions[1].bytes(Side::Upstream, &server(b"x").repeat(50));
    assert_eq!(sessions[1].session.verdict(), None);
    sessions[1].now = 600;
    sessions[1].bytes(Side::Downstream, &client(b"x"));
    assert_eq!(code(&sessions[1]), None, "600 ms later there is room for one");
}

/// An established session that shares this bucket, without limits of its own.
fn sharing(shared: &Arc<Bucket>, random: u64) -> Driver {
    let mut driver = Driver::new(RelaySettings::default());
    driver.limits = SessionLimits { shared: vec![Arc::clone(shared)], random };
    driver.bytes(Side::Downstream, REQUEST);
    driver.bytes(Side::Upstream, SWITCHING);
    driver.seen = Seen::default();
    driver
}

#[test]
fn sessions_on_eight_threads_pass_exactly_what_a_bucket_that_closes_has() {
    for chunk in [1, 7, 50] {
        let limit = RateLimit { rate: Rate { units: 1, period_ms: 3_600_000 }, burst: 1_000, ..MINUTE };
        let shared = Arc::new(Bucket::new(limit, 0));
        let passed: usize = std::thread::scope(|scope| {
            let session = |_| {
                scope.spawn(|| {
                    let mut driver = sharing(&shared, 0);
                    for _ in 0..400 / chunk {
                        driver.bytes(Side::Downstream, &client(b"x").repeat(chunk));
                    }
                    let closed = our_close(&driver.seen.sent[Side::Downstream], Side::Downstream);
                    assert!(closed.is_none_or(|code| code == 4003), "{closed:?}");
                    (driver.messages_to(Side::Upstream), closed.is_some())
                })
            };
            let sessions: Vec<_> = (0..8).map(session).collect();
            let ends: Vec<_> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
            assert!(ends.iter().filter(|(_, closed)| *closed).count() >= 5, "{ends:?}");
            ends.iter().map(|(passed, _)| passed).sum()
        });
        assert_eq!(passed, 1_000, "in reads of {chunk}");
    }
}

#[test]
fn sessions_that_share_a_bucket_that_pauses_have_its_rate_together() {
    for measure in [Measure::Messages, Measure::Bytes] {
        // A message has seven bytes.
        let unit = if measure == Measure::Bytes { 7 } else { 1 };
        let shared = Arc::new(Bucket::new(rate(measure, 10 * unit, 1_000, 10 * unit, OnExcess::Pause), 0));
        let mut drivers: [Driver; 4] = std::array::from_fn(|n| sharing(&shared, 77 * n as u64));
        let mut queues: [Vec<u8>; 4] = std::array::from_fn(|_| client(b"x").repeat(1_000));
        let passed = |driver: &Driver| driver.messages_to(Side::Upstream);
        for now in 0..=10_000 {
            for (driver, queue) in drivers.iter_mut().zip(&mut queues) {
                driver.until(now, Side::Downstream, queue);
                driver.read(Side::Downstream, queue);
                assert_eq!(driver.session.verdict(), None);
            }
            let all: usize = drivers.iter().map(passed).sum();
            // A byte too many shows the excess to each session.
            let most = 10 + now / 100 + if measure == Measure::Bytes { 1 } else { 0 };
            assert!(all as u64 <= most, "{all} at {now}");
        }
        let each = drivers.each_ref().map(passed);
        let all: usize = each.iter().sum();
        assert!((100..=111).contains(&all) && each.iter().all(|own| *own >= 5), "{measure:?}: {each:?}");
    }
}

#[test]
fn a_session_is_not_read_for_what_another_one_has_taken() {
    let shared = Arc::new(Bucket::new(rate(Measure::Messages, 10, 1_000, 10, OnExcess::Pause), 0));
    let (mut one, mut other) = (sharing(&shared, 1), sharing(&shared, 2));
    let mut queue = client(b"x").repeat(30);
    one.read(Side::Downstream, &mut queue);
    assert!(one.is_paused(Side::Downstream) && !other.is_paused(Side::Downstream));
    // The other one knows it before its first read.
    let mut others = client(b"y").repeat(30);
    other.read(Side::Downstream, &mut others);
    assert_eq!((one.messages_to(Side::Upstream), other.messages_to(Side::Upstream)), (10, 0));
    let due = |driver: &Driver| driver.session.deadline().filter(|(_, timer)| *timer == Timer::Resume).unwrap().0;
    assert!((100..=300).contains(&due(&one)) && (100..=300).contains(&due(&other)), "there is room, and a turn");
    // Who comes first has what there is, and the pause of the one that comes next goes on.
    let (first, second) = if due(&one) <= due(&other) { (&mut one, &mut other) } else { (&mut other, &mut one) };
    let at = due(second);
    let before = [first.messages_to(Side::Upstream), second.messages_to(Side::Upstream)];
    shared.take(9, at);
    first.now = at;
    first.event(Event::Timer(Timer::Resume));
    shared.take(1, at);
    second.until(at, Side::Downstream, &mut client(b"z"));
    assert!(second.is_paused(Side::Downstream) && due(second) > at);
    assert_eq!([first.messages_to(Side::Upstream), second.messages_to(Side::Upstream)], before);
    // What the upstream says is not limited by it.
    one.bytes(Side::Upstream, &server(b"x").repeat(100));
    assert_eq!(one.messages_to(Side::Downstream), 100);
}

#[test]
fn a_tunnel_shares_bytes_alone() {
    let bucket = |measure| Arc::new(Bucket::new(rate(measure, 1, 3_600_000, 40, OnExcess::Pause), 0));
    let (messages, bytes) = (bucket(Measure::Messages), bucket(Measure::Bytes));
    let mut driver = Driver::new(RelaySettings { mode: Mode::Opaque, ..RelaySettings::default() });
    driver.limits = SessionLimits { shared: vec![Arc::clone(&messages), Arc::clone(&bytes)], random: 0 };
    driver.bytes(Side::Downstream, REQUEST);
    driver.bytes(Side::Upstream, SWITCHING);
    let mut queue = vec![0x82; 100];
    assert_eq!(driver.read(Side::Downstream, &mut queue), 41);
    assert_eq!((messages.left(messages.level(0)), bytes.left(bytes.level(0))), (40, 0));
}

#[test]
fn whole_records_that_exceed_a_bucket_are_forwarded_and_owed() {
    let limit = rate(Measure::Messages, 10, 1_000, 10, OnExcess::Pause);
    let mut driver = limited(&[limit]);
    // As TLS delivers them: more than was asked for.
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
    let record = client(b"x").repeat(40);
    let relayed = driver.session.on_bytes(Side::Downstream, &record, input);
    assert_eq!((relayed.forward, counts[Side::Downstream].pauses), (record.len(), 1));
    driver.settle();
    assert!(driver.is_paused(Side::Downstream));
    assert_eq!(driver.session.deadline(), Some((3_100, Timer::Resume)), "thirty are owed, and one may pass");
}

/// So many units, each with its time.
type Passed = Vec<(Millis, u64)>;

/// What a sender does: it waits, then sends messages with payloads of a size.
type Step = (u64, usize, usize);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![Just(0u64), 0u64..50, 0u64..5_000];
    proptest::collection::vec((wait, 0usize..30, 0usize..120), 1..40)
}

fn limit_of_messages() -> impl Strategy<Value = RateLimit> {
    let on_excess = prop_oneof![
        Just(OnExcess::Close),
        Just(OnExcess::Pause),
        (1u64..20_000).prop_map(|patience_ms| OnExcess::PauseThenClose { patience_ms })
    ];
    (1u64..50, 100u64..20_000, 1u64..60, on_excess)
        .prop_map(|(units, period, burst, on_excess)| rate(Measure::Messages, units, period, burst, on_excess))
}

/// Whether what passed keeps to the limit in every window.
fn keeps_to(limit: &RateLimit, passed: &Passed, more: u64) -> bool {
    passed.iter().enumerate().all(|(first, (from, _))| {
        let mut sum = 0;
        passed[first..].iter().all(|(to, n)| {
            sum += n;
            let gained = u128::from(limit.rate.units) * u128::from(to - from) / u128::from(limit.rate.period_ms);
            u128::from(sum) <= u128::from(limit.burst + more) + gained
        })
    })
}

/// Runs a sender against a limit: the messages that passed and the bytes that were read, each with
/// their times.
fn run(limit: RateLimit, steps: &[Step]) -> (Driver, Passed, Passed) {
    let (mut driver, mut queue, mut passed, mut read) = (limited(&[limit]), Vec::new(), Vec::new(), Vec::new());
    let mut before = 0;
    let mut reads = |driver: &mut Driver, queue: &mut Vec<u8>| {
        let bytes = driver.read(Side::Downstream, queue) as u64;
        let messages = driver.messages_to(Side::Upstream) as u64;
        passed.push((driver.now, messages - std::mem::replace(&mut before, messages)));
        read.push((driver.now, bytes));
    };
    for (wait, n, payload) in steps {
        let at = driver.now + wait;
        while let Some((due, timer)) = driver.session.deadline().filter(|(due, _)| *due <= at) {
            // A Close at once leaves a deadline that has passed.
            driver.now = due.max(driver.now);
            driver.event(Event::Timer(timer));
            reads(&mut driver, &mut queue);
        }
        driver.now = at;
        queue.extend(client(&vec![1; *payload]).repeat(*n));
        reads(&mut driver, &mut queue);
    }
    (driver, passed, read)
}

proptest! {
    #[test]
    fn never_more_messages_pass_than_burst_and_rate(limit in limit_of_messages(), steps in steps()) {
        let (driver, passed, _) = run(limit, &steps);
        prop_assert!(keeps_to(&limit, &passed, 0), "{:?} {:?}", passed, driver.session.verdict());
    }

    #[test]
    fn never_more_bytes_are_read_than_burst_and_rate(
        (units, period, burst) in (1u64..5_000, 100u64..5_000, 1u64..5_000),
        steps in steps()
    ) {
        let limit = rate(Measure::Bytes, units, period, burst, OnExcess::Pause);
        let (driver, _, read) = run(limit, &steps);
        prop_assert!(keeps_to(&limit, &read, ONE_BYTE), "{:?}", read);
        prop_assert_eq!(driver.session.verdict(), None);
    }

    #[test]
    fn a_sender_that_keeps_to_its_limit_is_neither_paused_nor_closed(
        limit in limit_of_messages(),
        wanted in steps()
    ) {
        let mut driver = limited(&[limit]);
        // What it has room for, in messages times the period.
        let (units, period) = (limit.rate.units, limit.rate.period_ms);
        let mut tokens = limit.burst * period;
        let mut sent = 0;
        for (wait, n, payload) in wanted {
            driver.now += wait;
            tokens = (tokens + wait * units).min(limit.burst * period);
            let n = n.min((tokens / period) as usize);
            tokens -= n as u64 * period;
            sent += n;
            let mut queue = client(&vec![1; payload]).repeat(n);
            driver.read(Side::Downstream, &mut queue);
            prop_assert!(queue.is_empty() && !driver.is_paused(Side::Downstream));
        }
        prop_assert_eq!((driver.messages_to(Side::Upstream), driver.session.verdict()), (sent, None));
    }
}
