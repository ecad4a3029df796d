//! Messages of ours between those of the peers, and new credentials of the client.

use super::*;
use crate::proto::handshake::Extensions;
use crate::proto::relay::Relay;
use crate::proto::settings::RefreshForm;

fn form() -> RelaySettings {
    let form = RefreshForm { prefix: (*b"AUTH ").into(), json: false, max_bytes: 100 };
    RelaySettings { refresh: Some(Arc::new(form)), ..RelaySettings::default() }
}

fn text(text: &str) -> OwnFrame {
    OwnFrame::Text(text.into())
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = client(payload);
    frame[0] = first;
    frame
}

#[test]
fn a_message_of_ours_waits_for_the_end_of_a_message() {
    // A message in three frames, with a ping of the upstream inside.
    let fragments: [&[u8]; 4] = [&[0x01, 3, b'o', b'n', b'e'], &[0x89, 1, b'p'], &[0x00, 0], &[0x80, 2, b'e', b'n']];
    let (whole, next) = (fragments.concat(), server(b"next"));
    let ping = OwnFrame::Ping(*b"12345678");
    for cut in 0..=whole.len() {
        let mut driver = Driver::established();
        driver.bytes(Side::Upstream, &whole[..cut]);
        assert!(driver.session.send_toward(Side::Downstream, text("soon")));
        assert!(driver.session.send_toward(Side::Downstream, ping.clone()));
        driver.settle();
        driver.bytes(Side::Upstream, &[&whole[cut..], &next].concat());
        let sent = &driver.seen.sent[Side::Downstream];
        let at = |frame: &[u8]| sent.windows(frame.len()).position(|window| window == frame).unwrap();
        let (ours, pinged) = (text("soon").encode(None), ping.encode(None));
        assert_eq!(sent.len(), whole.len() + next.len() + ours.len() + pinged.len(), "{cut}");
        match cut {
            // Nothing of it has left: at most a header is held back.
            0 | 1 => assert!(at(&ours) == 0 && at(&pinged) == ours.len(), "{cut} {sent:?}"),
            _ => {
                assert!(at(&ours) >= whole.len() && at(&ours) < at(&next), "{cut} {sent:?}");
                // Inside the last frame both wait for its end.
                assert!(at(&pinged) <= at(&ours) || cut >= whole.len() - 2, "{cut} {sent:?}");
            }
        }
        // Without ours it is what the upstream has sent.
        let mut rest = sent.clone();
        for frame in [&ours, &pinged] {
            let from = rest.windows(frame.len()).position(|window| window == frame).unwrap();
            rest.drain(from..from + frame.len());
        }
        assert_eq!(rest, [&whole[..], &next].concat(), "{cut}");
    }
}

#[test]
fn a_close_of_ours_takes_the_place_of_messages_that_wait() {
    let mut driver = Driver::established();
    driver.bytes(Side::Upstream, &[0x01, 1, b'x']);
    for n in 0..4 {
        assert!(driver.session.send_toward(Side::Downstream, text("soon")), "{n}");
    }
    assert!(!driver.session.send_toward(Side::Downstream, text("soon")), "the message may never end");
    assert!(driver.session.send_toward(Side::Downstream, OwnFrame::Ping([7; 8])), "control frames need not wait");
    driver.event(Event::CredentialsEnded(Cause::Expired));
    assert!(!driver.session.send_toward(Side::Downstream, text("soon")));
    driver.settle();
    let sent = driver.seen.sent[Side::Downstream].clone();
    assert_eq!(our_close(&sent[3..], Side::Downstream), Some(4401));
    assert!(!sent.windows(4).any(|window| window == b"soon"));
}

#[test]
fn an_unknown_extension_gets_no_message_of_ours() {
    for (extensions, sent) in [(Extensions::None, true), (Extensions::Deflate, true), (Extensions::Unknown, false)] {
        let mut relay = Relay::new(extensions, &RelaySettings::default(), SessionLimits::default(), 0);
        assert_eq!(relay.send_toward(Side::Downstream, text("x"), Mode::Framed), sent);
        assert!(relay.send_toward(Side::Downstream, OwnFrame::Ping([0; 8]), Mode::Framed));
    }
}

#[test]
fn messages_go_to_policy_in_order_also_when_they_came_before_the_101() {
    let mut driver = Driver::new(form());
    let early = [&masked(0x81, b"one")[..], &masked(0x81, b"AUTH early"), &masked(0x81, b"two")].concat();
    driver.bytes(Side::Downstream, &[REQUEST, &early].concat());
    driver.bytes(Side::Upstream, SWITCHING);
    assert_eq!(driver.seen.taken, [b"AUTH early".to_vec()]);
    let passed = [&masked(0x81, b"one")[..], &masked(0x81, b"two")].concat();
    assert_eq!(driver.seen.sent[Side::Upstream], [b"NEW", &passed[..]].concat());
    let more = [&masked(0x81, b"AUTH a")[..], &masked(0x82, b"x"), &masked(0x81, b"AUTH b")].concat();
    driver.bytes(Side::Downstream, &more);
    assert_eq!(driver.seen.taken[1..], [b"AUTH a".to_vec(), b"AUTH b".to_vec()]);
    // The upstream may say it as often as it likes.
    driver.bytes(Side::Upstream, &server(b"AUTH c"));
    assert_eq!(driver.seen.taken.len(), 3);
    // A request that came between its head and its 101 is cut.
    let mut driver = Driver::new(form());
    driver.bytes(Side::Downstream, &[REQUEST, &masked(0x81, b"AUTH early")[..9]].concat());
    driver.bytes(Side::Upstream, SWITCHING);
    driver.bytes(Side::Downstream, &masked(0x81, b"AUTH early")[9..]);
    assert_eq!(
        (driver.seen.taken.as_slice(), &driver.seen.sent[Side::Upstream][..]),
        (&[b"AUTH early".to_vec()][..], &b"NEW"[..])
    );
}

#[test]
fn other_credentials_end_the_session_with_the_code_of_revoked_ones() {
    for (cause, code) in [(Cause::CredentialsChanged, 4003), (Cause::Revoked, 4003), (Cause::Expired, 4001)] {
        let relay = RelaySettings { revoked_code: 4003, expired_code: 4001, ..form() };
        let mut driver = Driver::established_with(relay);
        driver.event(Event::CredentialsEnded(cause));
        assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(code));
        assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    }
}

#[test]
fn a_broken_message_with_credentials_is_answered_with_1008() {
    let mut driver = Driver::established_with(form());
    driver.bytes(Side::Downstream, &masked(0x01, b"AUTH sec"));
    assert_eq!(our_close(&driver.seen.sent[Side::Downstream], Side::Downstream), Some(1008));
    assert_eq!(our_close(&driver.seen.sent[Side::Upstream], Side::Upstream), Some(1001));
    assert!(driver.seen.taken.is_empty());
    // A message that never ends is dropped with the session.
    let mut driver = Driver::established_with(form());
    driver.bytes(Side::Downstream, &masked(0x81, b"AUTH secret")[..12]);
    driver.eof(Side::Downstream);
    assert!(driver.seen.sent[Side::Upstream].is_empty() && driver.seen.fins[Side::Upstream] == 1);
}
