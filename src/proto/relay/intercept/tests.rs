use crate::proto::end::Cause;
use crate::proto::frame::{Header, opcode};
use crate::proto::handshake::Extensions;
use crate::proto::interface::{Action, ReadInterest};
use crate::proto::mask::mask;
use crate::proto::rate::{Measure, OnExcess, Rate, RateLimit};
use crate::proto::relay::{Noticed, OwnFrame, Relay, RelayInput, SessionLimits};
use crate::proto::settings::{FlowLimits, Mode, RefreshForm, RelaySettings};
use crate::proto::{Side, Sides};
use proptest::prelude::*;
use std::sync::Arc;

fn settings(prefix: &str, json: bool) -> RelaySettings {
    let form = RefreshForm { prefix: prefix.as_bytes().into(), json, max_bytes: 300 };
    RelaySettings { refresh: Some(Arc::new(form)), ..RelaySettings::default() }
}

fn text(prefix: &str) -> RelaySettings {
    settings(prefix, false)
}

/// A frame of a client; `first` as on the wire.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x51, 9, 0xa0, payload.len() as u8];
    let mut out = Vec::new();
    let (fin, rsv, opcode) = (first & 0x80 != 0, first >> 4 & 7, first & 15);
    Header { fin, rsv, opcode, mask: Some(key), payload_len: payload.len() as u64 }.write(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..], key, 0);
    out
}

/// What became of a stream: what was forwarded, which messages were taken, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    forwarded: Vec<u8>,
    taken: Vec<String>,
    cause: Option<Cause>,
    counts: u64,
}

/// Shows a relay `bytes`, in pieces that end at `ends`.
fn run(settings: &RelaySettings, extensions: Extensions, bytes: &[u8], ends: &[usize]) -> Ran {
    let mut relay = Relay::new(extensions, settings, SessionLimits::default(), 0);
    let (mut ran, mut counts, mut at) = (Ran::default(), Sides::default(), 0);
    for end in ends.iter().copied().chain([bytes.len()]) {
        while at < end {
            let mut authored = Vec::new();
            let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
            let (relayed, noticed) = relay.on_bytes(Side::Downstream, &bytes[at..end], settings, input);
            assert!(relayed.consumed > 0 && relayed.forward <= relayed.consumed);
            ran.forwarded.extend(authored);
            ran.forwarded.extend_from_slice(&bytes[at..at + relayed.forward]);
            at += relayed.consumed;
            match noticed {
                None => {}
                Some(Noticed::Taken) => {
                    ran.taken.push(String::from_utf8(relay.fetch().unwrap().0).unwrap());
                    assert_eq!(relay.fetch(), None);
                }
                Some(Noticed::Cause(_, cause)) => {
                    ran.cause = Some(cause);
                    return ran;
                }
            }
        }
    }
    assert_eq!(relay.bytes()[Side::Downstream], ran.forwarded.len() as u64);
    assert_eq!(counts[Side::Downstream].bytes, ran.forwarded.len() as u64);
    ran.counts = counts[Side::Downstream].frames.iter().sum();
    assert_eq!(ran.counts, relay.frames()[Side::Downstream]);
    ran
}

/// The same input whole, cut at every place, in two and in all.
#[track_caller]
fn every_cut(settings: &RelaySettings, bytes: &[u8]) -> Ran {
    let whole = run(settings, Extensions::None, bytes, &[]);
    for cut in 0..bytes.len() {
        assert_eq!(run(settings, Extensions::None, bytes, &[cut]), whole, "cut at {cut}");
    }
    let all: Vec<_> = (0..bytes.len()).collect();
    assert_eq!(run(settings, Extensions::None, bytes, &all), whole, "cut everywhere");
    whole
}

const PING: u8 = 0x80 | opcode::PING;

#[test]
fn messages_with_credentials_are_taken_and_all_others_pass() {
    let others: Vec<Vec<u8>> = vec![
        frame(0x81, b"AUTX secret"),
        frame(0x81, b"AUT"),
        frame(0x81, b""),
        frame(0x82, b"AUTH binary"),
        frame(PING, b"AUTH ping"),
        frame(0x01, b"fragments: "),
        frame(PING, b""),
        frame(0x80, b"AUTH is no begin of a message"),
        frame(0x81, &[b'x'; 200]),
        frame(0x81, &[b'y'; 70_000]),
        frame(0x01, b"AUX"),
        frame(0x80, b"H "),
    ];
    let settings = text("AUTH ");
    let plain = others.concat();
    let ran = run(&settings, Extensions::None, &plain, &[]);
    assert_eq!(ran, Ran { forwarded: plain, counts: 12, ..Ran::default() });
    for (at, other) in others.iter().enumerate().filter(|(_, other)| other.len() < 1_000) {
        // Not between the fragments of a message.
        if [6, 7, 11].contains(&at) {
            continue;
        }
        let rest = [&[][..], &others[6], &others[7]].concat();
        let rest = if at == 5 {
            rest
        } else if at == 10 {
            others[11].clone()
        } else {
            Vec::new()
        };
        let stream =
            [&frame(0x81, b"AUTH one"), &other[..], &rest, &frame(0x81, b"AUTH "), &frame(0x81, b"z")].concat();
        let ran = every_cut(&settings, &stream);
        assert_eq!((ran.taken, ran.cause), (vec!["AUTH one".to_owned(), "AUTH ".to_owned()], None));
        assert_eq!(ran.forwarded, [&other[..], &rest, &frame(0x81, b"z")].concat(), "{at}");
    }
}

#[test]
fn a_message_as_long_as_it_may_be_is_taken_whole() {
    let secret = format!("AUTH {}", "s".repeat(295));
    let stream = [frame(0x81, b"before"), frame(0x81, secret.as_bytes()), frame(0x81, b"after")].concat();
    let ran = every_cut(&text("AUTH "), &stream);
    assert_eq!(ran.taken, [secret]);
    assert_eq!(ran.forwarded, [frame(0x81, b"before"), frame(0x81, b"after")].concat());
}

#[test]
fn what_may_hold_part_of_a_secret_ends_the_session() {
    let good = frame(0x81, b"good");
    let long = format!("AUTH {}", "s".repeat(296));
    for (name, bad) in [
        ("too long", frame(0x81, long.as_bytes())),
        ("fragmented", frame(0x01, b"AUTH sec")),
        ("cut inside of what it begins with", frame(0x01, b"AU")),
        ("an empty first fragment", frame(0x01, b"")),
    ] {
        let ran = every_cut(&text("AUTH "), &[&good[..], &bad].concat());
        assert_eq!((ran.cause, &ran.forwarded), (Some(Cause::RefreshFormat), &good), "{name}");
        assert!(ran.taken.is_empty(), "{name}");
    }
    // An upstream has turned compression on although it was not offered to it.
    let compressed = run(&text("AUTH "), Extensions::Deflate, &[&good[..], &frame(0xc1, b"x")].concat(), &[]);
    assert_eq!((compressed.cause, compressed.forwarded), (Some(Cause::RefreshFormat), good));
}

#[test]
fn the_rules_of_frames_hold_all_the_same() {
    let unmasked = [0x81, 5, b'A', b'U', b'T', b'H', b' '];
    let reserved = frame(0xc1, b"AUTH x");
    let inside = [frame(0x01, b"some"), frame(0x81, b"AUTH x")].concat();
    let long = frame(0x81, &[b'x'; 1001]);
    let mut settings = text("AUTH ");
    settings.limits.max_frame = 1000;
    for (bad, passed, cause) in [
        (&unmasked[..], 0, Cause::MaskBit),
        (&reserved, 0, Cause::ReservedBits),
        (&inside, frame(0x01, b"some").len(), Cause::Continuation),
        (&long, 0, Cause::FrameTooBig),
        (&[0x83, 0x80, 1, 2, 3, 4], 0, Cause::ReservedOpcode),
        (&[0x81, 0xfe, 0, 5, 1, 2, 3, 4], 0, Cause::LengthEncoding),
    ] {
        let ran = every_cut(&settings, bad);
        assert_eq!((ran.cause, &ran.forwarded[..]), (Some(cause), &bad[..passed]));
    }
}

#[test]
fn json_may_have_white_space_between_its_tokens() {
    let settings = settings("{\"type\":\"my auth\",\"token\":\"", true);
    for taken in [
        "{\"type\":\"my auth\",\"token\":\"x\"}",
        " {\n\t\"type\" :\r\n \"my auth\" , \"token\": \"x\"}",
        "{\"type\":\"my auth\",\"token\":\"x",
    ] {
        let ran = every_cut(&settings, &[frame(0x81, taken.as_bytes()), frame(0x81, b"{}")].concat());
        assert_eq!((ran.taken, ran.forwarded), (vec![taken.to_owned()], frame(0x81, b"{}")), "{taken}");
    }
    for other in [
        "{\"type\":\"myauth\",\"token\":\"x\"}",
        "{\"type\":\"my  auth\",\"token\":\"x\"}",
        "{\"ty pe\":\"my auth\",\"token\":\"x\"}",
        "{\"token\":\"x\",\"type\":\"my auth\"}",
        "{ \u{b}\"type\":\"my auth\",\"token\":\"x\"}",
        "   ",
        "{\"type\":\"my auth\",\"token\":",
    ] {
        let ran = every_cut(&settings, &frame(0x81, other.as_bytes()));
        assert_eq!((ran.forwarded, ran.taken.len()), (frame(0x81, other.as_bytes()), 0), "{other}");
    }
    // What it is cannot be seen within the bytes that are held back.
    let spaces = format!("{{{}", " ".repeat(256));
    assert_eq!(every_cut(&settings, &frame(0x81, spaces.as_bytes())).cause, Some(Cause::RefreshFormat));
    let fewer = format!("{{{}", " ".repeat(255));
    assert_eq!(every_cut(&settings, &frame(0x81, fewer.as_bytes())).cause, None);
}

#[test]
fn they_count_for_the_limits_of_the_client() {
    let limit = |on_excess| RateLimit {
        measure: Measure::Messages,
        rate: Rate { units: 3, period_ms: 60_000 },
        burst: 3,
        on_excess,
        close_code: 4003,
    };
    let with = |on_excess| {
        let flow = FlowLimits { rates: Sides::new(vec![limit(on_excess)], Vec::new()), ..FlowLimits::default() };
        RelaySettings { flow, ..text("AUTH ") }
    };
    let stream = [frame(0x81, b"AUTH a"), frame(0x81, b"AUx"), frame(0x81, b"AUTH b"), frame(0x81, b"AUTH c")].concat();
    let ran = every_cut(&with(OnExcess::Close), &stream);
    assert_eq!((ran.cause, ran.taken.len()), (Some(Cause::MessageRate), 2));
    assert_eq!(ran.forwarded, frame(0x81, b"AUx"));

    // Paused where the fourth begins, and never inside of one before it.
    let settings = with(OnExcess::Pause);
    let mut relay = Relay::new(Extensions::None, &settings, SessionLimits::default(), 0);
    let (mut at, mut taken, mut counts) = (0, 0, Sides::default());
    while let ReadInterest::Bytes(most) = relay.wants(Side::Downstream, &settings) {
        let mut authored = Vec::new();
        let read = &stream[at..stream.len().min(at + most.min(3))];
        let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
        let (relayed, noticed) = relay.on_bytes(Side::Downstream, read, &settings, input);
        (at, taken) = (at + relayed.consumed, taken + u32::from(noticed == Some(Noticed::Taken)));
        relay.fetch();
    }
    let before = stream.len() - frame(0x81, b"AUTH c").len();
    assert_eq!((taken, counts[Side::Downstream].pauses), (2, 1));
    assert!((before + 1..before + 6).contains(&at), "{at} {before}");
}

#[test]
fn a_frame_of_ours_leaves_while_a_message_is_held_or_taken() {
    let settings = text("AUTH ");
    let secret = frame(0x81, b"AUTH secret");
    for cut in 1..secret.len() {
        let mut relay = Relay::new(Extensions::None, &settings, SessionLimits::default(), 0);
        let (mut counts, mut authored) = (Sides::default(), Vec::new());
        let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
        let (relayed, noticed) = relay.on_bytes(Side::Downstream, &secret[..cut], &settings, input);
        assert_eq!((relayed.forward, relayed.consumed, noticed), (0, cut, None));
        assert!(relay.send_toward(Side::Upstream, OwnFrame::Ping([1; 8]), Mode::Framed));
        let sent = relay.poll_action(0);
        assert_eq!(sent, Some(Action::SendFrame(Side::Upstream, OwnFrame::Ping([1; 8]))), "{cut}");
    }
}

#[test]
fn no_text_shows_what_is_held() {
    let settings = text("AUTH ");
    let mut relay = Relay::new(Extensions::None, &settings, SessionLimits::default(), 0);
    let (mut counts, mut authored) = (Sides::default(), Vec::new());
    let key = [0; 4];
    let mut bytes = vec![0x81, 0x80 | 12];
    bytes.extend_from_slice(&key);
    bytes.extend_from_slice(b"AUTH sesame!");
    for piece in [&bytes[..15], &bytes[15..]] {
        let input = RelayInput { now: 0, counts: &mut counts, authored: &mut authored };
        relay.on_bytes(Side::Downstream, piece, &settings, input);
        let shown = format!("{relay:?}");
        assert!(!shown.contains("115, 101, 115") && !shown.contains("sesa"), "{shown}");
    }
    let shown = format!("{:?}", Action::Refresh(relay.fetch().unwrap()));
    assert_eq!(shown, "Refresh(TakenMessage(12 bytes))");
}

proptest! {
    /// With any messages and any cuts: a stream without those that are to be taken.
    #[test]
    fn nothing_depends_on_the_cuts(
        messages in proptest::collection::vec((0..7u8, "[AUTH x]{0,8}"), 1..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let settings = text("AUTH ");
        let (mut stream, mut left, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, payload) in &messages {
            let bytes = match kind {
                0 => frame(0x82, payload.as_bytes()),
                1 => frame(PING, payload.as_bytes()),
                2 => [frame(0x01, b"other"), frame(PING, b""), frame(0x80, payload.as_bytes())].concat(),
                _ => frame(0x81, payload.as_bytes()),
            };
            stream.extend_from_slice(&bytes);
            match *kind > 2 && payload.starts_with("AUTH ") {
                true => taken.push(payload.clone()),
                false => left.extend_from_slice(&bytes),
            }
        }
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        ends.sort_unstable();
        let ran = run(&settings, Extensions::None, &stream, &ends);
        prop_assert_eq!((ran.forwarded, ran.taken, ran.cause), (left, taken, None));
    }
}
