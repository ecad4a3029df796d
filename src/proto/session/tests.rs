mod heartbeat;

use super::*;
use crate::proto::Sides;
use crate::proto::http1::FieldEdits;
use crate::proto::interface::{Admission, Refusal, Upgrade};
use crate::proto::relay::Counts;
use crate::proto::relay::SessionLimits;
use crate::proto::settings::{Mode, RelaySettings, Timeouts};
use proptest::prelude::*;

mod limits;
mod plain;
mod refresh;

const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A shell that does what it is asked and remembers it: what went where, and the verdict.
#[derive(Default, Debug, PartialEq, Eq)]
struct Seen {
    sent: Sides<Vec<u8>>,
    /// Messages with new credentials.
    taken: Vec<Vec<u8>>,
    fins: Sides<u32>,
    aborted: Sides<bool>,
    refused: Option<Cause>,
    head_only: bool,
    connects: u32,
    ended: Option<End>,
}

struct Driver {
    session: Session,
    seen: Seen,
    now: Millis,
    relay: RelaySettings,
    /// What policy gives it beside them.
    limits: SessionLimits,
    /// What becomes of a connect attempt; connected if nothing.
    connect: Option<fn() -> Event>,
}

impl Driver {
    fn new(relay: RelaySettings) -> Driver {
        let session = Session::new(Arc::default(), 0);
        Driver { session, seen: Seen::default(), now: 0, relay, limits: SessionLimits::default(), connect: None }
    }

    fn handshaking() -> Driver {
        Driver::new(RelaySettings::default())
    }

    fn established_with(relay: RelaySettings) -> Driver {
        let mut driver = Driver::new(relay);
        driver.establish();
        driver
    }

    fn establish(&mut self) {
        self.bytes(Side::Downstream, REQUEST);
        self.bytes(Side::Upstream, SWITCHING);
        assert!(self.session.is_established());
        self.seen = Seen::default();
    }

    fn established() -> Driver {
        Driver::established_with(RelaySettings::default())
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::new(Settings { relay: self.relay.clone(), ..Settings::default() })
    }

    fn bytes(&mut self, from: Side, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.session.is_over() {
            match self.session.wants_now(from, self.now) {
                ReadInterest::Nothing | ReadInterest::Payload(_) | ReadInterest::Shared => return,
                ReadInterest::Discard => {
                    self.session.on_discarded(from, bytes.len(), self.now);
                    bytes = &[];
                }
                ReadInterest::Bytes(max) => {
                    let slice = &bytes[..max.min(bytes.len())];
                    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
                    let input = RelayInput { now: self.now, counts: &mut counts, authored: &mut authored };
                    let relayed = self.session.on_bytes(from, slice, input);
                    assert!(relayed.consumed > 0 && relayed.forward <= relayed.consumed);
                    assert!(relayed.consumed <= slice.len());
                    self.seen.sent[from.other()].extend(authored);
                    self.seen.sent[from.other()].extend_from_slice(&slice[..relayed.forward]);
                    bytes = &bytes[relayed.consumed..];
                }
            }
            self.settle();
        }
    }

    fn event(&mut self, event: Event) {
        self.session.on_event(event, self.now);
        self.settle();
    }

    fn eof(&mut self, side: Side) {
        self.event(Event::Ended(side, TransportEnd::Eof));
    }

    fn reset(&mut self, side: Side) {
        self.event(Event::Ended(side, TransportEnd::Reset));
    }

    fn settle(&mut self) {
        while let Some(action) = self.session.poll_action(self.now) {
            match action {
                Action::Decide => {
                    assert!(self.session.request().is_some());
                    let (request_id, limits) = ("id".into(), self.limits.clone());
                    let settings = self.settings();
                    let admission = Admission { request_id, settings, shadowed: false, limits, plain: None };
                    self.session.on_event(Event::Admitted(admission), self.now);
                }
                Action::Connect | Action::Retry | Action::Renew => {
                    self.seen.connects += 1;
                    let event = self.connect.map_or_else(
                        || {
                            let response = FieldEdits::new();
                            let request = b"NEW".to_vec();
                            Event::Connected(Box::new(Upgrade {
                                request,
                                response,
                                may_retry: false,
                                reused: false,
                                until: None,
                                by: Party::Upstream,
                            }))
                        },
                        |outcome| outcome(),
                    );
                    self.session.on_event(event, self.now);
                }
                Action::Refuse { refusal, head_only } | Action::Reply { refusal, head_only } => {
                    (self.seen.refused, self.seen.head_only) = (Some(refusal.cause), head_only);
                }
                Action::Send(to, bytes) => self.seen.sent[to].extend(bytes),
                Action::Established { .. } | Action::Hangup(_) => {}
                Action::Streaming | Action::Release | Action::Next { .. } => panic!("a plain request"),
                Action::SendFrame(to, frame) => {
                    let key = (to == Side::Upstream).then_some([0; 4]);
                    self.seen.sent[to].extend(frame.encode(key));
                }
                Action::HalfClose(to) => {
                    self.seen.fins[to] += 1;
                    self.session.on_event(Event::Finished(to), self.now);
                }
                Action::Abort(side) => self.seen.aborted[side] = true,
                Action::Refresh(message) => self.seen.taken.push(message.0),
                Action::Close(ended) => assert!(self.seen.ended.replace(ended).is_none(), "one verdict"),
            }
        }
    }

    /// Time passes until the next deadline.
    fn wait(&mut self) -> Timer {
        let (at, timer) = self.session.deadline().expect("a deadline");
        self.now = at;
        self.event(Event::Timer(timer));
        timer
    }

    fn verdict(&self) -> (Party, Phase, Cause) {
        let ended = self.seen.ended.expect("a verdict");
        (ended.party, ended.phase, ended.cause)
    }
}

fn client(payload: &[u8]) -> Vec<u8> {
    // A key of zeros leaves the payload as it is.
    [&[0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat()
}

fn server(payload: &[u8]) -> Vec<u8> {
    [&[0x82, payload.len() as u8][..], payload].concat()
}

fn close_of(side: Side, code: u16) -> Vec<u8> {
    let mask: &[u8] = if side == Side::Downstream { &[0x82, 0, 0, 0, 0] } else { &[2] };
    [&[0x88], mask, &code.to_be_bytes()].concat()
}

/// The code of a Close of ours at the end of what was sent.
fn our_close(sent: &[u8], to: Side) -> Option<u16> {
    let start = sent.iter().rposition(|byte| *byte == 0x88)?;
    let code = sent.get(start + if to == Side::Upstream { 6 } else { 2 }..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*code))
}

#[test]
fn early_bytes_are_held_for_the_101_and_judged_as_frames_after_it() {
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, &[REQUEST, &client(b"early")].concat());
    assert_eq!(driver.seen.sent[Side::Upstream], b"NEW");
    driver.bytes(Side::Upstream, &[SWITCHING, &server(b"glued")].concat());
    assert_eq!(driver.seen.sent[Side::Upstream], [b"NEW", &client(b"early")[..]].concat());
    assert!(driver.seen.sent[Side::Downstream].ends_with(&server(b"glued")));
}

#[test]
fn early_bytes_are_discarded_on_any_other_answer() {
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, &[REQUEST, &client(b"early")].concat());
    driver.bytes(Side::Upstream, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno AND MORE");
    assert_eq!(driver.seen.sent[Side::Upstream], b"NEW");
    assert!(driver.seen.sent[Side::Downstream].ends_with(b"\r\n\r\nno"));
    assert_eq!(driver.seen.fins[Side::Downstream], 1);
    driver.eof(Side::Downstream);
    assert_eq!(driver.verdict(), (Party::Upstream, Phase::Response, Cause::UpstreamResponse));
}

#[test]
fn interim_answers_are_consumed_and_bounded() {
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, REQUEST);
    driver.bytes(Side::Upstream, b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n");
    driver.bytes(Side::Upstream, SWITCHING);
    assert!(driver.session.is_established());
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, REQUEST);
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(9000));
    driver.bytes(Side::Upstream, &[hint.as_bytes(), hint.as_bytes()].concat());
    assert_eq!(driver.seen.refused, Some(Cause::BadResponse));
}

#[test]
fn a_violation_closes_both_sides_each_with_its_code() {
    for (from, bad) in [(Side::Downstream, &server(b"x")[..]), (Side::Upstream, &client(b"x"))] {
        let mut driver = Driver::established();
        driver.bytes(from, bad);
        assert_eq!(our_close(&driver.seen.sent[from], from), Some(1002));
        let other = if from == Side::Upstream { 1014 } else { 1001 };
        assert_eq!(our_close(&driver.seen.sent[from.other()], from.other()), Some(other));
        assert_eq!(driver.seen.fins, Sides([1, 1]));
        driver.bytes(from, b"anything");
        driver.eof(from);
        driver.eof(from.other());
        assert_eq!(driver.verdict(), (from.into(), Phase::Open, Cause::MaskBit));
    }
}

#[test]
fn our_close_waits_for_the_end_of_the_frame_and_nothing_follows_it() {
    let mut driver = Driver::established();
    let (head, tail) = (&server(b"0123456789")[..5], &server(b"0123456789")[5..]);
    driver.bytes(Side::Upstream, head);
    driver.event(Event::Drain);
    assert_eq!(driver.seen.sent[Side::Downstream], head, "mid-frame: not yet");
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    // The rest of the frame, and a Close that answers ours: it is consumed.
    driver.bytes(Side::Upstream, &[tail, &close_of(Side::Upstream, 1001)].concat());
    let sent = &driver.seen.sent[Side::Downstream];
    assert_eq!(sent[..12], server(b"0123456789"));
    assert_eq!(our_close(sent, Side::Downstream), Some(1001));
    assert_eq!(sent.iter().filter(|byte| **byte == 0x88).count(), 1, "one Close, ours");
    assert_eq!(driver.seen.fins, Sides([1, 1]));
}

#[test]
fn a_frame_that_never_ends_gets_a_fin_at_the_close_deadline() {
    let mut driver = Driver::established();
    driver.bytes(Side::Upstream, &server(b"0123456789")[..5]);
    driver.event(Event::Drain);
    driver.wait();
    assert_eq!(driver.verdict(), (Party::Proxy, Phase::Open, Cause::Drain));
    assert_eq!(driver.now, Timeouts::default().close_ms);
}

#[test]
fn after_both_closes_the_client_gets_a_fin_and_the_upstream_has_time() {
    for first in Side::BOTH {
        let mut driver = Driver::established();
        driver.bytes(first, &close_of(first, 1000));
        assert_eq!(driver.seen.fins, Sides([0, 0]));
        driver.bytes(first.other(), &close_of(first.other(), 1000));
        assert_eq!(driver.seen.fins, Sides::new(1, 0));
        assert_eq!(driver.session.totals().close_codes, Sides([Some(1000); 2]));
        driver.eof(Side::Downstream);
        assert_eq!(driver.seen.fins, Sides::new(1, 0), "not before its own");
        driver.eof(Side::Upstream);
        assert_eq!(driver.verdict(), (first.into(), Phase::Open, Cause::Close));
    }
}

#[test]
fn half_close_passes_and_the_other_direction_goes_on() {
    for side in Side::BOTH {
        let mut driver = Driver::established();
        driver.eof(side);
        assert_eq!(driver.seen.fins[side.other()], 1);
        let frame = if side == Side::Upstream { client(b"on") } else { server(b"on") };
        driver.bytes(side.other(), &frame);
        assert_eq!(driver.seen.sent[side], frame);
        driver.eof(side.other());
        assert_eq!(driver.verdict(), (side.into(), Phase::Open, Cause::Eof));
    }
}

#[test]
fn a_reset_is_passed_on_as_a_reset_unless_the_session_had_closed() {
    for side in Side::BOTH {
        let mut driver = Driver::established();
        driver.reset(side);
        assert!(driver.seen.aborted[side.other()]);
        assert_eq!(driver.verdict(), (side.into(), Phase::Open, Cause::Reset));
        let mut driver = Driver::established();
        driver.bytes(side, &close_of(side, 1000));
        driver.reset(side);
        assert!(!driver.seen.aborted[side.other()]);
        driver.bytes(side.other(), &close_of(side.other(), 1000));
        driver.eof(side.other());
        assert_eq!(driver.verdict(), (side.into(), Phase::Open, Cause::Close));
    }
}

#[test]
fn data_after_close_gets_1002_after_500ms_without_the_other_close() {
    let mut driver = Driver::established();
    driver.bytes(Side::Downstream, &[close_of(Side::Downstream, 1000), client(b"late")].concat());
    assert_eq!(driver.seen.sent[Side::Upstream], close_of(Side::Downstream, 1000));
    driver.wait();
    assert_eq!(driver.now, 500);
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1002));
    let mut driver = Driver::established();
    driver.bytes(Side::Downstream, &[close_of(Side::Downstream, 1000), client(b"late")].concat());
    driver.now = 499;
    driver.bytes(Side::Upstream, &close_of(Side::Upstream, 1000));
    assert_eq!(driver.seen.sent[Side::Downstream], close_of(Side::Upstream, 1000));
    assert_eq!(driver.session.deadline(), Some((5000, Timer::Close)));
}

#[test]
fn an_upstream_that_is_lost_becomes_a_close_where_the_route_says_so() {
    let mut driver = Driver::new(RelaySettings { upstream_loss_code: Some(1012), ..RelaySettings::default() });
    driver.bytes(Side::Downstream, REQUEST);
    driver.bytes(Side::Upstream, SWITCHING);
    driver.seen = Seen::default();
    driver.eof(Side::Upstream);
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1012));
    assert_eq!(driver.seen.fins, Sides([1, 1]));
    driver.bytes(Side::Downstream, &close_of(Side::Downstream, 1012));
    assert!(driver.seen.sent[Side::Upstream].is_empty(), "the answering Close is consumed");
    driver.eof(Side::Downstream);
    assert_eq!(driver.verdict(), (Party::Upstream, Phase::Open, Cause::UpstreamLoss));
}

#[test]
fn a_tunnel_passes_anything_and_closes_with_a_fin() {
    let mut driver =
        Driver::new(RelaySettings { mode: Mode::Opaque, upstream_loss_code: Some(1012), ..RelaySettings::default() });
    driver.bytes(Side::Downstream, REQUEST);
    driver.bytes(Side::Upstream, SWITCHING);
    driver.seen = Seen::default();
    driver.bytes(Side::Downstream, b"\xff\xff\xff");
    assert_eq!(driver.seen.sent[Side::Upstream], b"\xff\xff\xff");
    driver.wait();
    assert_eq!(driver.seen.sent[Side::Downstream], b"");
    assert_eq!(driver.seen.fins, Sides([1, 1]));
}

#[test]
fn every_phase_of_the_handshake_has_its_deadline() {
    let mut driver = Driver::handshaking();
    driver.wait();
    assert_eq!((driver.now, driver.verdict().2), (10_000, Cause::NoRequest));
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, b"GET ");
    driver.wait();
    assert_eq!((driver.now, driver.seen.refused), (10_000, Some(Cause::HeadTimeout)));
    driver.wait();
    assert_eq!((driver.now, driver.verdict().2), (12_000, Cause::HeadTimeout));
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, REQUEST);
    driver.wait();
    assert_eq!((driver.now, driver.seen.refused), (10_000, Some(Cause::ResponseTimeout)));
}

#[test]
fn a_client_that_leaves_takes_its_upstream_with_it() {
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, REQUEST);
    assert!(driver.session.client_waits());
    driver.eof(Side::Downstream);
    assert!(driver.seen.aborted[Side::Upstream]);
    assert_eq!(driver.verdict(), (Party::Downstream, Phase::Response, Cause::Eof));
}

#[test]
fn a_head_is_never_read_beyond_its_limit() {
    let settings = Arc::new(Settings { head_bytes: 200, ..Settings::default() });
    let mut driver = Driver { session: Session::new(settings, 0), ..Driver::handshaking() };
    driver.bytes(Side::Downstream, &REQUEST[..100]);
    assert_eq!(driver.session.wants(Side::Downstream), ReadInterest::Bytes(100));
    driver.bytes(Side::Downstream, &REQUEST[..100].repeat(9));
    assert_ne!(driver.seen.refused, None);
}

#[test]
fn late_data_keeps_the_close_deadline_where_no_close_can_be_sent() {
    let mut driver = Driver::established();
    driver.eof(Side::Upstream);
    driver.bytes(Side::Downstream, &[close_of(Side::Downstream, 1000), client(b"late")].concat());
    assert_eq!(driver.session.deadline(), Some((5000, Timer::Close)));
    driver.wait();
    assert_eq!(driver.verdict(), (Party::Downstream, Phase::Open, Cause::Close));
}

#[test]
fn a_refusal_is_sent_whole_to_a_client_that_half_closes() {
    let mut session = Session::new(Arc::default(), 0);
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
    session.on_bytes(Side::Downstream, b"GET / HTTP/1.1\r\n bad\r\n\r\n", input);
    while session.poll_action(0).is_some() {}
    // Its FIN was asked for and has not left: the refusal still waits.
    session.on_event(Event::Ended(Side::Downstream, TransportEnd::Eof), 0);
    assert_eq!(session.poll_action(0), None);
    session.on_event(Event::Finished(Side::Downstream), 0);
    assert!(matches!(session.poll_action(0), Some(Action::Close(_))));
}

#[test]
fn the_close_code_for_a_broken_upstream_is_settable() {
    let relay = RelaySettings { upstream_error_code: 1011, ..RelaySettings::default() };
    let mut driver = Driver::established_with(relay);
    driver.bytes(Side::Upstream, &client(b"masked"));
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1011));
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1002));
}

#[test]
fn frames_of_ours_leave_at_frame_boundaries_and_a_close_is_the_last() {
    let (ping, pong) = (OwnFrame::Ping(*b"12345678"), OwnFrame::Pong(*b"abcdefgh"));
    let mut driver = Driver::established();
    let frame = server(b"0123456789");
    driver.bytes(Side::Upstream, &frame[..5]);
    assert!(driver.session.send_toward(Side::Downstream, ping.clone()));
    assert!(driver.session.send_toward(Side::Downstream, pong.clone()));
    driver.settle();
    assert_eq!(driver.seen.sent[Side::Downstream], &frame[..5], "inside a frame");
    driver.bytes(Side::Upstream, &[&frame[5..], &server(b"next")].concat());
    let want = [&frame[..], &ping.encode(None), &pong.encode(None), &server(b"next")].concat();
    assert_eq!(driver.seen.sent[Side::Downstream], want);
    driver.event(Event::Drain);
    assert!(!driver.session.send_toward(Side::Downstream, ping.clone()), "nothing follows a Close");
    let mut tunnel = Driver::established_with(RelaySettings { mode: Mode::Opaque, ..RelaySettings::default() });
    assert!(!tunnel.session.send_toward(Side::Upstream, ping), "a tunnel knows no frames");
    tunnel.settle();
}

#[test]
fn an_attempt_without_a_socket_is_made_again_as_long_as_time_lasts() {
    let mut driver = Driver::handshaking();
    driver.connect = Some(|| Event::NoSocket);
    driver.bytes(Side::Downstream, REQUEST);
    assert_eq!((driver.wait(), driver.now), (Timer::Connect, 100));
    assert_eq!((driver.seen.connects, driver.seen.refused), (2, None));
    driver.connect = None;
    driver.wait();
    assert_eq!(driver.seen.sent[Side::Upstream], b"NEW");
    let mut driver = Driver::handshaking();
    driver.connect = Some(|| Event::NoSocket);
    driver.bytes(Side::Downstream, REQUEST);
    while driver.wait() != Timer::ConnectTotal {}
    assert_eq!((driver.now, driver.seen.refused), (10_000, Some(Cause::NoSockets)));
}

#[test]
fn a_decision_that_is_not_made_in_time_is_a_refusal() {
    let mut session = Session::new(Arc::default(), 0);
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    session.on_bytes(Side::Downstream, REQUEST, RelayInput { now: 5, counts: &mut counts, authored: &mut authored });
    assert_eq!(session.poll_action(5), Some(Action::Decide));
    assert_eq!((session.poll_action(5), session.deadline()), (None, Some((10_005, Timer::Decision))));
    assert!(session.client_waits());
    session.on_event(Event::Timer(Timer::Decision), 10_005);
    let refusal = Refusal::from(Cause::DecisionTimeout);
    assert_eq!(session.poll_action(10_005), Some(Action::Refuse { refusal, head_only: false }));
    // The verdict comes too late.
    session.on_event(Event::Refused(Cause::Forbidden.into()), 10_006);
    while let Some(action) = session.poll_action(10_006) {
        assert!(!matches!(action, Action::Refuse { .. } | Action::Connect));
    }
    assert_eq!(session.status(), 504);
}

#[test]
fn head_is_refused_without_a_body_also_where_its_head_is_malformed() {
    for request in ["HEAD / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.1\r\n bad\r\n\r\n"] {
        let mut driver = Driver::handshaking();
        driver.bytes(Side::Downstream, request.as_bytes());
        assert!(driver.seen.refused.is_some() && driver.seen.head_only, "{request:?}");
    }
    let mut driver = Driver::handshaking();
    driver.bytes(Side::Downstream, b"GET / HTTP/1.1\r\n\r\n");
    assert!(driver.seen.refused.is_some() && !driver.seen.head_only);
}

/// A request that is refused with `refusal`, after its FIN has left.
fn refused_with(refusal: Refusal) -> Session {
    let mut session = Session::new(Arc::default(), 0);
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
    session.on_bytes(Side::Downstream, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", input);
    assert_eq!(session.poll_action(0), Some(Action::Decide));
    session.on_event(Event::Refused(refusal), 0);
    while session.poll_action(0).is_some() {}
    session.on_event(Event::Finished(Side::Downstream), 10);
    session
}

#[test]
fn a_client_that_sends_a_long_body_has_its_time_to_read_the_response() {
    let mut session = refused_with(Cause::NoRoute.into());
    session.on_discarded(Side::Downstream, 64 << 10, 20);
    assert_eq!(session.wants(Side::Downstream), ReadInterest::Discard);
    session.on_discarded(Side::Downstream, 1, 30);
    // Closing now would reset it.
    assert_eq!(session.wants(Side::Downstream), ReadInterest::Nothing);
    assert_eq!((session.poll_action(30), session.is_over()), (None, false));
    assert_eq!(session.deadline(), Some((2_010, Timer::Linger)));
    session.on_event(Event::Timer(Timer::Linger), 2_010);
    assert!(session.is_over());
}

#[test]
fn a_response_of_the_route_has_its_status_and_its_cause() {
    let reply = crate::proto::http1::Reply { status: 503, fields: FieldEdits::new(), body: Arc::from(&b"later"[..]) };
    let mut session = refused_with(Refusal { reply: Some(Box::new(reply)), ..Cause::Responded.into() });
    assert_eq!(session.status(), 503);
    session.on_event(Event::Ended(Side::Downstream, TransportEnd::Eof), 20);
    let end = End { party: Party::Proxy, phase: Phase::Request, cause: Cause::Responded };
    assert_eq!(session.poll_action(20), Some(Action::Close(end)));
}

#[test]
fn a_client_whose_transport_failed_is_drained_before_it_is_closed() {
    for (cause, refuse) in [(Cause::PlainOnTls, true), (Cause::TlsVersion, false)] {
        let session = Session::rejected(cause, refuse, Arc::default(), 0);
        let mut driver = Driver { session, ..Driver::handshaking() };
        driver.settle();
        assert_eq!(driver.seen.refused, refuse.then_some(cause));
        assert_eq!(driver.seen.fins, Sides::new(1, 0));
        assert_eq!(driver.session.wants(Side::Downstream), ReadInterest::Discard);
        driver.eof(Side::Downstream);
        assert_eq!(driver.verdict(), (Party::Downstream, Phase::Tls, cause));
    }
}

/// One session as a script: who sends what, in order.
fn script() -> impl Strategy<Value = Vec<(Side, Vec<u8>)>> {
    let side = prop_oneof![Just(Side::Downstream), Just(Side::Upstream)];
    let step = (side, 0..12u8, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(side, kind, payload)| {
        let good = if side == Side::Downstream { client(&payload) } else { server(&payload) };
        let bytes = match kind {
            0 => close_of(side, 1000 + u16::from(payload.first().copied().unwrap_or(0) % 20)),
            1 => payload,
            2 => [
                &[0x89, if side == Side::Downstream { 0x80 } else { 0 }][..],
                if side == Side::Downstream { &[0; 4] } else { &[] },
            ]
            .concat(),
            _ => good,
        };
        (side, bytes)
    });
    proptest::collection::vec(step, 1..12)
}

proptest! {
    #[test]
    fn the_same_bytes_have_the_same_verdict_however_they_are_cut(script in script(), piece in 1..9usize) {
        let run = |piece: usize| {
            let mut driver = Driver::established();
            for (side, bytes) in &script {
                bytes.chunks(piece).for_each(|part| driver.bytes(*side, part));
            }
            for side in Side::BOTH {
                driver.eof(side);
            }
            if driver.seen.ended.is_none() {
                driver.wait();
            }
            (driver.seen, driver.session.totals())
        };
        prop_assert_eq!(run(usize::MAX), run(piece));
    }

    /// The seam for moving a pair: a calm session continues from its checkpoint as if nothing had
    /// happened.
    #[test]
    fn a_session_continues_from_its_checkpoint(script in script(), at in 0..12usize) {
        let run = |travel: bool| {
            let mut driver = Driver::established();
            for (n, (side, bytes)) in script.iter().enumerate() {
                let (head, tail) = bytes.split_at(bytes.len() / 2);
                driver.bytes(*side, head);
                if let (true, Some(record)) = (travel && n == at, driver.session.checkpoint()) {
                    driver.session = Session::from_checkpoint(record, driver.settings());
                }
                driver.bytes(*side, tail);
            }
            (driver.seen, driver.session.totals())
        };
        prop_assert_eq!(run(false), run(true));
    }
}
