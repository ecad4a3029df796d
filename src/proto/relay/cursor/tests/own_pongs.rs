//! Pongs to pings of ours are consumed however they are cut; everything else passes byte for byte.

use super::*;

const TAG: u32 = 0x5bd1_e995;
const SENT: u32 = 3;

fn payload(tag: u32, number: u32) -> Vec<u8> {
    [tag.to_be_bytes(), number.to_be_bytes()].concat()
}

fn of(from: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let key = (from == Side::Downstream).then_some([0x11, 0x80, 0xff, 0x07]);
    frame(first, payload, key)
}

/// As the relay judges it: the number of our ping.
fn ours(held: [u8; 8]) -> Option<u32> {
    (1..=SENT).find(|number| held[..] == payload(TAG, *number))
}

/// Walks `bytes` in pieces that end at `ends`: what was forwarded, and the pongs that were not.
fn walk_cut(from: Side, pinged: bool, bytes: &[u8], ends: &[usize]) -> (Vec<u8>, Vec<u32>, Counts) {
    let mut cursor = Cursor::new(from, Extensions::None);
    if pinged {
        cursor.expect_pongs();
    }
    let (mut out, mut numbers, mut counts, mut at) = (Vec::new(), Vec::new(), Counts::default(), 0);
    for end in ends.iter().copied().chain([bytes.len()]) {
        while at < end {
            let mut authored = Vec::new();
            let (taken, stop) = cursor.walk(&bytes[at..end], LIMITS, &mut counts, &mut authored, &mut Unlimited);
            assert!(taken.consumed > 0 && taken.forward <= taken.consumed);
            out.extend(authored);
            out.extend_from_slice(&bytes[at..at + taken.forward]);
            at += taken.consumed;
            match stop {
                Some(Stop::Pong) => {
                    assert_eq!(taken.forward, 0, "a pong is held by itself");
                    match ours(cursor.pong().expect("it is held")) {
                        Some(number) => {
                            cursor.drop_pong();
                            numbers.push(number);
                        }
                        None => drop(cursor.pass_pong(&mut counts, &mut out)),
                    }
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
    }
    (out, numbers, counts)
}

/// In no, in every one, in every two, and in all places.
fn every_cut(from: Side, pinged: bool, bytes: &[u8]) -> (Vec<u8>, Vec<u32>, Counts) {
    let whole = walk_cut(from, pinged, bytes, &[]);
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            assert_eq!(walk_cut(from, pinged, bytes, &[first, second]), whole, "cut at {first} and {second}");
        }
    }
    let all: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(walk_cut(from, pinged, bytes, &all), whole);
    whole
}

#[test]
fn our_pongs_are_consumed_however_they_are_cut() {
    for from in Side::BOTH {
        let own = |number| of(from, 0x8a, &payload(TAG, number));
        let before = of(from, 0x01, b"frag");
        let between = of(from, 0x8a, b"theirs");
        let after = of(from, 0x80, &[7; 150]);
        let sent = [own(1), before.clone(), own(3), between.clone(), own(2), own(3), after.clone(), own(1)].concat();
        let (out, numbers, counts) = every_cut(from, true, &sent);
        assert_eq!(out, [before, between, after].concat());
        assert_eq!(numbers, [1, 3, 2, 3, 1]);
        assert_eq!(counts.frames[usize::from(opcode::PONG)], 1, "only the pong that was forwarded counts");
    }
}

#[test]
fn pongs_that_look_like_ours_pass_byte_for_byte() {
    for from in Side::BOTH {
        let ours = payload(TAG, 1);
        let longer = [&ours[..], &[0]].concat();
        let look_alikes = [
            of(from, 0x8a, &payload(TAG, 0)),
            of(from, 0x8a, &payload(TAG, SENT + 1)),
            of(from, 0x8a, &payload(TAG, u32::MAX)),
            of(from, 0x8a, &payload(TAG ^ 1, 1)),
            of(from, 0x8a, &payload(TAG ^ 1 << 31, 1)),
            of(from, 0x8a, &payload(!TAG, 1)),
            of(from, 0x8a, &ours[..7]),
            of(from, 0x8a, &longer),
            of(from, 0x8a, b""),
            of(from, 0x89, &ours),
            of(from, 0x82, &ours),
            of(from, 0x81, &ours),
        ]
        .concat();
        let (out, numbers, counts) = every_cut(from, true, &look_alikes);
        assert_eq!((out, numbers), (look_alikes, vec![]));
        assert_eq!(counts.frames[usize::from(opcode::PONG)], 9);
    }
}

#[test]
fn before_the_first_ping_every_pong_passes() {
    for from in Side::BOTH {
        let sent = of(from, 0x8a, &payload(TAG, 1));
        assert_eq!(every_cut(from, false, &sent).0, sent);
    }
}

#[test]
fn a_pong_that_may_be_ours_waits_until_that_is_known() {
    for from in Side::BOTH {
        let sent = of(from, 0x8a, &payload(TAG, SENT + 1));
        let (mut cursor, mut counts) = (Cursor::new(from, Extensions::None), Counts::default());
        cursor.expect_pongs();
        let mut authored = Vec::new();
        let (taken, stop) = cursor.walk(&sent[..sent.len() - 1], LIMITS, &mut counts, &mut authored, &mut Unlimited);
        assert_eq!((taken.forward, authored.len(), stop), (0, 0, None));
        assert!(cursor.at_boundary(), "nothing of it has left: a frame of ours may");
        let (taken, stop) = cursor.walk(&sent[sent.len() - 1..], LIMITS, &mut counts, &mut authored, &mut Unlimited);
        assert_eq!((taken, authored.len(), stop), (Relayed::consume(1), 0, Some(Stop::Pong)));
        assert_eq!(cursor.pass_pong(&mut counts, &mut authored), sent.len() as u64);
        assert_eq!((authored, cursor.frames()), (sent, 1));
    }
}

/// A pong with reserved bits is of an extension, and a broken one is a violation.
#[test]
fn only_plain_pongs_can_be_ours() {
    let mut extended = Cursor::new(Side::Upstream, Extensions::Unknown);
    let sent = frame(0xca, &payload(TAG, 1), None);
    extended.expect_pongs();
    let (taken, stop) = extended.walk(&sent, LIMITS, &mut Counts::default(), &mut Vec::new(), &mut Unlimited);
    assert_eq!((taken, stop), (Relayed::forward(sent.len()), None));
    let unmasked = frame(0x8a, &payload(TAG, 1), None);
    let mut cursor = Cursor::new(Side::Downstream, Extensions::None);
    cursor.expect_pongs();
    let (_, stop) = cursor.walk(&unmasked, LIMITS, &mut Counts::default(), &mut Vec::new(), &mut Unlimited);
    assert_eq!(stop, Some(Stop::Violation(Cause::MaskBit)));
}

proptest! {
    /// Any mixture of frames in any cut: what is left out is what is ours.
    #[test]
    fn mixtures_pass_without_our_pongs(
        kinds in prop::collection::vec((0..6u8, 0..8u32, 0..40usize), 0..12),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        down in any::<bool>(),
    ) {
        let from = if down { Side::Downstream } else { Side::Upstream };
        let (mut sent, mut expected, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, number, len) in kinds {
            let bytes = match kind {
                0 | 1 => of(from, 0x8a, &payload(TAG, number)),
                2 => of(from, 0x8a, &payload(TAG.wrapping_add(number + 1), 1)),
                3 => of(from, 0x8a, &vec![number as u8; len]),
                4 => of(from, 0x89, &payload(TAG, number)),
                _ => of(from, 0x82, &vec![0x8a; len]),
            };
            if kind < 2 && (1..=SENT).contains(&number) {
                numbers.push(number);
            } else {
                expected.extend_from_slice(&bytes);
            }
            sent.extend(bytes);
        }
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
        ends.sort_unstable();
        let (out, swallowed, _) = walk_cut(from, true, &sent, &ends);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(swallowed, numbers);
    }
}
