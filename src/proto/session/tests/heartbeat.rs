//! The heartbeat of a session: when it pings, what it makes of answers, and of none.

use super::limits::{MINUTE, rate};
use super::*;
use crate::proto::rate::{Measure, OnExcess, Rate, RateLimit};
use crate::proto::relay::ROUND_TRIP_MS;
use crate::proto::settings::Heartbeat;

const INTERVAL: Millis = 30_000;
const TIMEOUT: Millis = 10_000;
const SEED: u64 = 0x0123_4567_89ab_cdef;

fn rules(client: Millis, upstream: Millis) -> RelaySettings {
    let heartbeat = Some(Heartbeat { interval_ms: Sides::new(client, upstream), timeout_ms: TIMEOUT });
    RelaySettings { heartbeat, ..RelaySettings::default() }
}

fn beating(relay: RelaySettings, seed: u64) -> Driver {
    let mut driver = Driver::new(relay);
    driver.limits.random = seed;
    driver.establish();
    driver
}

/// Only toward the client.
fn one_leg() -> Driver {
    beating(rules(INTERVAL, 0), SEED)
}

/// The pings that were sent to `side` and not taken before, by payload.
fn pings(driver: &mut Driver, side: Side) -> Vec<Vec<u8>> {
    let sent = std::mem::take(&mut driver.seen.sent[side]);
    let (len, header): (usize, &[u8]) =
        if side == Side::Upstream { (14, &[0x89, 0x88, 0, 0, 0, 0]) } else { (10, &[0x89, 8]) };
    sent.chunks(len).map(|ping| ping.strip_prefix(header).expect("only pings").to_vec()).collect()
}

/// Time passes until the next ping to `side`.
fn next_ping(driver: &mut Driver, side: Side) -> Vec<u8> {
    loop {
        assert_eq!(driver.wait(), Timer::Heartbeat);
        if let Some(ping) = pings(driver, side).pop() {
            return ping;
        }
    }
}

fn pong_from(side: Side, payload: &[u8]) -> Vec<u8> {
    let header: &[u8] = if side == Side::Downstream { &[0x8a, 0x88, 0, 0, 0, 0] } else { &[0x8a, 8] };
    [header, payload].concat()
}

/// Bytes of `from` at `now`: what was counted with them.
fn counted(driver: &mut Driver, from: Side, bytes: &[u8]) -> Counts {
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    let input = RelayInput { now: driver.now, counts: &mut counts, authored: &mut authored };
    let relayed = driver.session.on_bytes(from, bytes, input);
    assert_eq!((relayed.consumed, relayed.forward, authored.len()), (bytes.len(), 0, 0), "it is not forwarded");
    counts[from]
}

#[test]
fn a_silent_peer_is_pinged_within_its_interval_and_answers_go_no_further() {
    for side in Side::BOTH {
        let mut driver = beating(rules(INTERVAL, INTERVAL), SEED);
        let (mut heard, mut known) = (0, Vec::new());
        // Longer than that it would be idle.
        for n in 0..8 {
            let other = side.other();
            let ping = loop {
                assert_eq!(driver.wait(), Timer::Heartbeat);
                // The other leg has a peer that always answers.
                for ping in pings(&mut driver, other) {
                    driver.bytes(other, &pong_from(other, &ping));
                }
                if let Some(ping) = pings(&mut driver, side).pop() {
                    break ping;
                }
            };
            let least = if n == 0 { INTERVAL / 2 } else { INTERVAL - INTERVAL / 8 };
            assert!((heard + least..=heard + INTERVAL).contains(&driver.now), "{n}: {heard} {}", driver.now);
            assert!(!known.contains(&ping), "each has a payload of its own");
            driver.now += 3;
            driver.bytes(side, &pong_from(side, &ping));
            known.push(ping);
            heard = driver.now;
            assert_eq!(driver.seen.sent, Sides::default(), "a pong of ours went further");
            assert_eq!(driver.session.totals().frames, Sides::default(), "it is no frame of the session");
        }
    }
}

/// They have the same times, and are not the same: neither in time nor in payload.
#[test]
fn sessions_that_were_opened_together_do_not_ping_together() {
    let mut buckets = [0u32; 10];
    let mut tags = std::collections::HashSet::new();
    let mut seed = SEED;
    for _ in 0..10_000 {
        // As the worker draws them: any bits.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut driver = beating(rules(INTERVAL, 0), seed ^ seed >> 29);
        assert!(tags.insert(next_ping(&mut driver, Side::Downstream)), "one tag for two");
        buckets[((driver.now - INTERVAL / 2) * 10 / (INTERVAL / 2 + 1)) as usize] += 1;
    }
    assert!(buckets.iter().all(|n| (850..1_150).contains(n)), "{buckets:?}");
}

#[test]
fn a_leg_on_which_something_is_heard_gets_no_ping() {
    let mut driver = one_leg();
    for _ in 0..50 {
        driver.now += INTERVAL / 2 - 1;
        let (at, _) = driver.session.deadline().unwrap();
        assert!(at > driver.now, "a ping is due at {at}, it is {}", driver.now);
        driver.bytes(Side::Downstream, &client(b"x"));
    }
    assert_eq!(driver.seen.sent[Side::Downstream], b"");
    // What goes to the peer is no sign of life.
    driver.now += INTERVAL / 2 - 1;
    driver.bytes(Side::Upstream, &server(b"y"));
    let sent = std::mem::take(&mut driver.seen.sent[Side::Downstream]);
    assert_eq!(sent, server(b"y"));
    next_ping(&mut driver, Side::Downstream);
}

#[test]
fn a_dead_peer_ends_the_session_with_a_verdict_of_its_own() {
    for (dead, on_loss, code) in [
        (Side::Downstream, Some(1012), 1001),
        (Side::Downstream, None, 1001),
        (Side::Upstream, None, 1001),
        (Side::Upstream, Some(1012), 1012),
    ] {
        let (client, upstream) = if dead == Side::Downstream { (INTERVAL, 0) } else { (0, INTERVAL) };
        let relay = RelaySettings { upstream_loss_code: on_loss, ..rules(client, upstream) };
        let mut driver = beating(relay, SEED);
        next_ping(&mut driver, dead);
        let asked = driver.now;
        // The timeout, and a last look at what has arrived.
        assert_eq!((driver.wait(), driver.now - asked), (Timer::Heartbeat, TIMEOUT));
        assert!(!driver.seen.aborted[dead]);
        assert_eq!((driver.wait(), driver.now - asked), (Timer::Heartbeat, TIMEOUT + 100));
        assert!(driver.seen.aborted[dead], "nothing is waited for from a peer that is gone");
        let other = dead.other();
        assert_eq!(our_close(&driver.seen.sent[other], other), Some(code));
        assert_eq!(driver.seen.fins[other], 1);
        driver.bytes(other, &close_of(other, code));
        driver.eof(other);
        assert_eq!(driver.verdict(), (dead.into(), Phase::Open, Cause::HeartbeatTimeout));
        let codes = driver.session.totals().close_codes;
        assert_eq!((codes[other], codes[dead]), (Some(code), None));
    }
}

/// The pong need not come: a peer that sends anything is alive, up to the last moment.
#[test]
fn any_byte_is_a_sign_of_life() {
    let whole = client(b"x");
    for late in [1, TIMEOUT - 1, TIMEOUT, TIMEOUT + 99] {
        let mut driver = one_leg();
        next_ping(&mut driver, Side::Downstream);
        let asked = driver.now;
        if late >= TIMEOUT {
            driver.wait();
        }
        driver.now = asked + late;
        // Half a frame header is enough.
        driver.bytes(Side::Downstream, &whole[..1]);
        let (at, timer) = driver.session.deadline().unwrap();
        let least = driver.now + INTERVAL - INTERVAL / 8;
        assert_eq!(timer, Timer::Heartbeat);
        assert!((least..=driver.now + INTERVAL).contains(&at), "{late}: {at}");
        next_ping(&mut driver, Side::Downstream);
        driver.bytes(Side::Downstream, &whole[1..]);
        assert_eq!(driver.seen.sent[Side::Upstream], whole);
    }
}

#[test]
fn late_pongs_of_earlier_pings_go_no_further_and_others_do() {
    let mut driver = one_leg();
    let first = next_ping(&mut driver, Side::Downstream);
    driver.bytes(Side::Downstream, &client(b"x"));
    let second = next_ping(&mut driver, Side::Downstream);
    driver.seen.sent = Sides::default();
    for payload in [&first, &second, &first] {
        driver.bytes(Side::Downstream, &pong_from(Side::Downstream, payload));
    }
    assert_eq!(driver.seen.sent, Sides::default());
    // The next one has not been sent; and what was sent on this leg is no one's on the other.
    let mut third = second.clone();
    *third.last_mut().unwrap() += 1;
    let theirs = [pong_from(Side::Downstream, &third), pong_from(Side::Downstream, b"8 bytes.")].concat();
    driver.bytes(Side::Downstream, &theirs);
    assert_eq!(driver.seen.sent[Side::Upstream], theirs);
    driver.bytes(Side::Upstream, &pong_from(Side::Upstream, &first));
    assert_eq!(driver.seen.sent[Side::Downstream], pong_from(Side::Upstream, &first));
}

#[test]
fn round_trips_are_those_of_the_last_ping() {
    let mut driver = one_leg();
    for (after, bucket) in [(0, 0), (1, 0), (2, 1), (11, 4), (9_999, 12)] {
        let ping = next_ping(&mut driver, Side::Downstream);
        driver.now += after;
        let pong = pong_from(Side::Downstream, &ping);
        let trips = counted(&mut driver, Side::Downstream, &pong).round_trips;
        assert_eq!((trips.counts[bucket], trips.sum_ms), (1, after), "{after}");
        assert_eq!(trips.counts.iter().sum::<u64>(), 1);
        // It is not measured twice.
        assert_eq!(counted(&mut driver, Side::Downstream, &pong), Counts::default());
    }
    assert_eq!(ROUND_TRIP_MS.len(), 13);
    let earlier = next_ping(&mut driver, Side::Downstream);
    driver.bytes(Side::Downstream, &client(b"x"));
    next_ping(&mut driver, Side::Downstream);
    assert_eq!(counted(&mut driver, Side::Downstream, &pong_from(Side::Downstream, &earlier)), Counts::default());
}

/// Pings leave at frame boundaries: also between the fragments of a message, never inside a frame.
#[test]
fn a_ping_waits_for_the_frame_under_way_and_is_timed_from_there() {
    for to in Side::BOTH {
        let from = to.other();
        let first = if to == Side::Upstream {
            [&[0x02, 0x84, 0, 0, 0, 0][..], b"abcd"].concat()
        } else {
            [&[0x02, 4][..], b"abcd"].concat()
        };
        let (client_ms, upstream_ms) = if to == Side::Upstream { (0, INTERVAL) } else { (INTERVAL, 0) };
        let mut driver = beating(rules(client_ms, upstream_ms), SEED);
        driver.bytes(from, &first[..first.len() - 1]);
        let under_way = std::mem::take(&mut driver.seen.sent[to]);
        assert_eq!(under_way, first[..first.len() - 1]);
        assert_eq!(driver.wait(), Timer::Heartbeat);
        assert_eq!(driver.seen.sent[to], b"");
        let idle = Timeouts::default().idle_ms;
        assert_eq!(driver.session.deadline(), Some((idle, Timer::Idle)), "nothing is due but the rest of the frame");
        driver.now += 100_000;
        driver.bytes(from, &first[first.len() - 1..]);
        let sent = std::mem::take(&mut driver.seen.sent[to]);
        assert_eq!(sent[..1], first[first.len() - 1..]);
        driver.seen.sent[to] = sent[1..].to_vec();
        assert_eq!(pings(&mut driver, to).len(), 1);
        assert_eq!(driver.session.deadline(), Some((driver.now + TIMEOUT, Timer::Heartbeat)));
        // The message goes on behind it.
        let rest = [&first[..1], &first[1..]].concat();
        let rest = [&[0x80], &rest[1..]].concat();
        driver.bytes(from, &rest);
        assert_eq!(driver.seen.sent[to], rest);
    }
}

#[test]
fn a_heartbeat_does_not_keep_an_idle_session() {
    let mut driver = beating(rules(INTERVAL, INTERVAL), SEED);
    driver.now = 5;
    driver.bytes(Side::Downstream, &client(b"x"));
    driver.seen.sent = Sides::default();
    let idle_at = 5 + Timeouts::default().idle_ms;
    loop {
        let timer = driver.wait();
        if timer == Timer::Idle {
            break;
        }
        assert_eq!(timer, Timer::Heartbeat);
        for side in Side::BOTH {
            for ping in pings(&mut driver, side) {
                // In pieces, too: not even their first bytes count.
                let pong = pong_from(side, &ping);
                driver.bytes(side, &pong[..7]);
                driver.bytes(side, &pong[7..]);
            }
        }
    }
    assert_eq!(driver.now, idle_at);
    for side in Side::BOTH {
        assert_eq!(our_close(&driver.seen.sent[side], side), Some(1001));
        driver.eof(side);
    }
    assert_eq!(driver.verdict(), (Party::Proxy, Phase::Open, Cause::IdleTimeout));
}

/// A ping that the socket did not take at once is still not something that a peer has said.
#[test]
fn a_ping_in_a_backlog_does_not_keep_an_idle_session() {
    for to in Side::BOTH {
        let (client_ms, upstream_ms) = if to == Side::Upstream { (0, INTERVAL) } else { (INTERVAL, 0) };
        let mut driver = beating(rules(client_ms, upstream_ms), SEED);
        let ping = next_ping(&mut driver, to);
        driver.now += 1;
        driver.session.on_taken(to, driver.now);
        driver.event(Event::Flushed(to));
        assert_eq!(driver.session.deadline(), Some((driver.now + TIMEOUT, Timer::Heartbeat)), "it is no answer");
        driver.bytes(to, &pong_from(to, &ping));
        let pings = |driver: &mut Driver| while driver.wait() == Timer::Heartbeat {};
        let mut idle = beating(rules(0, 0), SEED);
        idle.session = Session::from_checkpoint(driver.session.checkpoint().unwrap(), idle.settings());
        pings(&mut idle);
        assert_eq!(idle.now, Timeouts::default().idle_ms);
        // Bytes of the other peer in the same backlog count.
        let data = if to == Side::Upstream { client(b"x") } else { server(b"x") };
        driver.now += 100;
        driver.bytes(to.other(), &data);
        driver.now += 100;
        driver.session.on_taken(to, driver.now);
        idle.session = Session::from_checkpoint(driver.session.checkpoint().unwrap(), idle.settings());
        pings(&mut idle);
        assert_eq!(idle.now, driver.now + Timeouts::default().idle_ms);
    }
}

/// A side that is not read is not judged: what it owes cannot be heard.
#[test]
fn a_paused_side_is_not_judged_until_it_has_been_read_again() {
    let mut driver = beating(limited(Side::Downstream, &[PAUSE]), SEED);
    next_ping(&mut driver, Side::Downstream);
    driver.bytes(Side::Downstream, &client(b"012345678901234"));
    assert_eq!(driver.session.wants(Side::Downstream), ReadInterest::Nothing);
    let (resumes, timer) = driver.session.deadline().unwrap();
    assert_eq!(timer, Timer::Resume, "paused: no heartbeat");
    assert!(resumes > driver.now + INTERVAL.max(TIMEOUT));
    assert_eq!(driver.wait(), Timer::Resume);
    let (at, timer) = driver.session.deadline().unwrap();
    assert_eq!(timer, Timer::Heartbeat);
    assert!(at <= driver.now, "nothing was heard for longer than the interval");
    assert_eq!(driver.wait(), Timer::Heartbeat);
    assert_eq!(pings(&mut driver, Side::Downstream).len(), 1);
    assert!(!driver.seen.aborted[Side::Downstream]);
}

#[test]
fn a_ping_that_waited_in_a_backlog_has_left_when_that_has() {
    let mut driver = beating(limited(Side::Upstream, &[PAUSE]), SEED);
    // The upstream's direction is paused; the answer is not awaited from there.
    next_ping(&mut driver, Side::Downstream);
    let asked = driver.now;
    driver.bytes(Side::Upstream, &server(b"0123456789012345678"));
    assert_eq!(driver.session.wants(Side::Upstream), ReadInterest::Nothing);
    assert_eq!(driver.session.deadline(), Some((asked + TIMEOUT, Timer::Heartbeat)), "the client is read");
    // A backlog suspends it, for neither side is read to the end then.
    assert_eq!(driver.session.deadline_with_backlog().unwrap().1, Timer::Resume);
    assert_eq!(driver.wait(), Timer::Heartbeat);
    driver.now += 50;
    driver.event(Event::Flushed(Side::Upstream));
    // The client has had its time; what it sent meanwhile is read before it is given up.
    assert_eq!(driver.session.deadline(), Some((asked + TIMEOUT, Timer::Heartbeat)));
    assert_eq!(driver.wait(), Timer::Heartbeat);
    assert!(!driver.seen.aborted[Side::Downstream]);
    // Its ping was in its own backlog until now.
    driver.event(Event::Flushed(Side::Downstream));
    assert_eq!(driver.session.deadline(), Some((driver.now + TIMEOUT, Timer::Heartbeat)));
}

/// A byte a minute, after the first 20.
const PAUSE: RateLimit = RateLimit {
    measure: Measure::Bytes,
    rate: Rate { units: 1, period_ms: 60_000 },
    burst: 20,
    on_excess: OnExcess::Pause,
    close_code: 1008,
};

/// With a heartbeat of the client.
fn limited(from: Side, limits: &[RateLimit]) -> RelaySettings {
    let mut relay = rules(INTERVAL, 0);
    relay.flow.rates[from] = limits.to_vec();
    relay
}

/// Answers to our pings are not what a limit on control frames is for; everything else is, also a
/// Pong that looks like one of them.
#[test]
fn only_answers_to_our_pings_are_free_of_a_limit_on_control_frames() {
    let limit = rate(Measure::ControlFrames, 2, 3_600_000, 2, OnExcess::Close);
    let from = Side::Downstream;
    for (repeated, theirs) in [(0, 2), (1, 1), (2, 0)] {
        let mut driver = beating(limited(from, &[limit]), SEED);
        // No bytes of the peers: idle, were it not for these.
        for _ in 0..5 {
            let ping = next_ping(&mut driver, from);
            counted(&mut driver, from, &pong_from(from, &ping));
            driver.bytes(Side::Upstream, &server(b"x"));
            driver.seen.sent = Sides::default();
        }
        let ping = next_ping(&mut driver, from);
        let answer = pong_from(from, &ping);
        driver.bytes(from, &answer);
        driver.bytes(from, &answer.repeat(repeated));
        assert_eq!(driver.seen.sent[Side::Upstream], b"", "none of ours is forwarded");
        let pongs = pong_from(from, b"01234567").repeat(theirs);
        driver.bytes(from, &pongs);
        assert_eq!(driver.seen.sent[Side::Upstream], pongs);
        assert_eq!(driver.seen.sent[from], b"");
        driver.bytes(from, &answer);
        let sent = &driver.seen.sent;
        assert!(
            sent[from].starts_with(&[0x88, 25]) && sent[from][2..].starts_with(&4003_u16.to_be_bytes()),
            "{sent:?}"
        );
        let behind = sent[Side::Upstream].strip_prefix(&pongs[..]);
        assert!(
            behind.is_some_and(|close| close.starts_with(&[0x88])),
            "and the one too many is not, either: {sent:?}"
        );
    }
}

/// Both sides at once: each keeps its promise beside the other's work.
#[test]
fn a_limit_of_messages_is_exact_beside_a_heartbeat() {
    let from = Side::Downstream;
    let hour = Rate { units: 1, period_ms: 3_600_000 };
    let mut driver = beating(limited(from, &[RateLimit { rate: hour, ..MINUTE }]), SEED);
    let (message, mut messages) = (client(b"hello"), 0);
    for _ in 0..10 {
        let ping = next_ping(&mut driver, from);
        let read = [message.repeat(5), pong_from(from, &ping), message.repeat(5)].concat();
        driver.bytes(from, &read);
        messages += 10;
    }
    assert_eq!(driver.seen.sent[Side::Upstream], message.repeat(messages));
    assert_eq!(driver.seen.sent[from], b"");
    driver.bytes(from, &message);
    assert!(driver.seen.sent[from].starts_with(&[0x88]), "{:?}", driver.seen.sent);
}

/// What a slow receiver takes is a sign of life.
#[test]
fn a_receiver_that_takes_its_backlog_is_alive() {
    let mut driver = one_leg();
    driver.now = INTERVAL / 2 - 1;
    driver.session.on_taken(Side::Downstream, driver.now);
    let (at, _) = driver.session.deadline().unwrap();
    assert!(at >= driver.now + INTERVAL / 2);
    driver.session.on_taken(Side::Upstream, driver.now + 5);
    assert_eq!(driver.session.deadline().unwrap().0, at, "the other leg is another one");
}

#[test]
fn there_is_no_heartbeat_once_a_side_has_ended_or_closes() {
    for side in Side::BOTH {
        let mut driver = beating(rules(INTERVAL, INTERVAL), SEED);
        driver.eof(side);
        assert_eq!(driver.session.deadline().unwrap().1, Timer::Idle, "half-closed: only the idle timeout");
        let mut driver = beating(rules(INTERVAL, INTERVAL), SEED);
        let ping = next_ping(&mut driver, side);
        driver.event(Event::Drain);
        assert_eq!(driver.session.deadline().unwrap().1, Timer::Close);
        // A pong that crosses our Close is discarded with all the rest.
        driver.bytes(side, &pong_from(side, &ping));
        let mut driver = beating(rules(INTERVAL, INTERVAL), SEED);
        let ping = next_ping(&mut driver, side);
        driver.seen.sent = Sides::default();
        driver.bytes(side.other(), &close_of(side.other(), 1000));
        assert_eq!(driver.session.deadline().unwrap().1, Timer::Close);
        // The other direction is still open; a pong of ours goes no further there.
        driver.bytes(side, &[pong_from(side, &ping), close_of(side, 1000)].concat());
        assert_eq!(driver.seen.sent[side.other()], close_of(side, 1000));
    }
}

#[test]
fn a_tunnel_and_a_route_without_a_heartbeat_have_none() {
    for relay in [RelaySettings { mode: Mode::Opaque, ..rules(INTERVAL, INTERVAL) }, RelaySettings::default()] {
        let driver = beating(relay, SEED);
        assert_eq!(driver.session.deadline().unwrap().1, Timer::Idle);
    }
}

#[test]
fn a_session_that_is_moved_keeps_its_heartbeat() {
    let mut driver = one_leg();
    let ping = next_ping(&mut driver, Side::Downstream);
    let checkpoint = driver.session.checkpoint().expect("nothing is pending");
    let before = driver.session.deadline();
    driver.session = Session::from_checkpoint(checkpoint, driver.settings());
    assert_eq!(driver.session.deadline(), before);
    counted(&mut driver, Side::Downstream, &pong_from(Side::Downstream, &ping));
}

/// The worker files a deadline only after something other than messages: none may come closer by
/// bytes alone.
#[test]
fn an_answer_never_moves_the_next_deadline_closer() {
    for (interval, timeout) in [(INTERVAL, TIMEOUT), (1_000, 999), (200, 100), (101, 100)] {
        let heartbeat = Some(Heartbeat { interval_ms: Sides::new(interval, 0), timeout_ms: timeout });
        let mut driver = beating(RelaySettings { heartbeat, ..RelaySettings::default() }, SEED);
        for _ in 0..100 {
            let ping = next_ping(&mut driver, Side::Downstream);
            let (before, _) = driver.session.deadline().unwrap();
            driver.bytes(Side::Downstream, &pong_from(Side::Downstream, &ping));
            let (after, _) = driver.session.deadline().unwrap();
            assert!(after >= before, "{interval} {timeout}: {before} {after}");
            // Or it would be idle.
            driver.bytes(Side::Downstream, &client(b"x"));
        }
    }
}
