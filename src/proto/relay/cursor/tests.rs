mod own_pongs;

use super::*;
use crate::proto::mask::mask;
use crate::proto::relay::Unlimited;
use proptest::prelude::*;

const LIMITS: FrameLimits = FrameLimits { max_frame: 1000, max_message: 2000 };

fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let header = Header {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 7,
        opcode: first & 15,
        mask: key,
        payload_len: payload.len() as u64,
    };
    let mut out = Vec::new();
    header.write(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask(&mut out[start..], key, 0);
    }
    out
}

fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    frame(first, payload, Some([9, 8, 7, 6]))
}

/// Walks `bytes` in pieces as cut; what was forwarded and how it stopped.
fn run(mut cursor: Cursor, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Stop>, Counts) {
    let (mut out, mut counts, mut at) = (Vec::new(), Counts::default(), 0);
    let mut ends: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    for end in ends {
        while at < end {
            let mut authored = Vec::new();
            let (taken, stop) = cursor.walk(&bytes[at..end], LIMITS, &mut counts, &mut authored, &mut Unlimited);
            assert!(taken.consumed > 0 && taken.forward <= taken.consumed);
            out.extend(authored);
            out.extend_from_slice(&bytes[at..at + taken.forward]);
            at += taken.consumed;
            if stop.is_some() {
                return (out, stop, counts);
            }
        }
    }
    (out, None, counts)
}

/// The same input, cut in no, in every single, and in all places.
fn every_cut(extensions: Extensions, from: Side, bytes: &[u8]) -> (Vec<u8>, Option<Stop>) {
    let cursor = Cursor::new(from, extensions);
    let whole = run(cursor, bytes, &[]);
    for cut in 0..bytes.len() {
        assert_eq!(run(cursor, bytes, &[cut]), whole, "cut at {cut} of {bytes:02x?}");
    }
    let all: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(run(cursor, bytes, &all), whole);
    (whole.0, whole.1)
}

fn refused(extensions: Extensions, from: Side, before: &[u8], bad: &[u8], cause: Cause) {
    let (out, stop) = every_cut(extensions, from, &[before, bad].concat());
    assert_eq!(stop, Some(Stop::Violation(cause)), "{bad:02x?}");
    assert_eq!(out, before, "no byte of the offending frame leaves: {bad:02x?}");
}

#[test]
fn every_check_refuses_and_nothing_of_the_frame_leaves() {
    use Extensions::{Deflate, None, Unknown};
    use Side::{Downstream, Upstream};
    let good = client(0x81, b"hello");
    let open = client(0x01, b"frag");
    let served = frame(0x82, b"hello", Option::None);
    refused(None, Downstream, &good, &frame(0x81, b"x", Option::None), Cause::MaskBit);
    refused(None, Upstream, &served, &client(0x81, b"x"), Cause::MaskBit);
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        refused(None, Downstream, &good, &client(0x80 | reserved, b"x"), Cause::ReservedOpcode);
        refused(Deflate, Downstream, &good, &client(0x80 | reserved, b"x"), Cause::ReservedOpcode);
    }
    for rsv in 1..8u8 {
        refused(None, Downstream, &good, &client(0x81 | rsv << 4, b"x"), Cause::ReservedBits);
        if rsv != 4 {
            refused(Deflate, Downstream, &good, &client(0x81 | rsv << 4, b"x"), Cause::ReservedBits);
        }
        refused(Deflate, Downstream, &good, &client(0x89 | rsv << 4, b"x"), Cause::ReservedBits);
        refused(Deflate, Downstream, &open, &client(0x80 | rsv << 4, b"x"), Cause::ReservedBits);
    }
    refused(None, Downstream, &good, &client(0x80, b"x"), Cause::Continuation);
    refused(None, Downstream, &open, &client(0x81, b"x"), Cause::Continuation);
    refused(None, Downstream, &open, &client(0x02, b"x"), Cause::Continuation);
    for control in [8, 9, 10] {
        refused(None, Downstream, &good, &client(control, b""), Cause::ControlFragmented);
        refused(None, Downstream, &good, &client(0x80 | control, &[0; 126]), Cause::ControlTooLong);
    }
    refused(None, Upstream, &served, &[0x82, 126, 0, 125], Cause::LengthEncoding);
    refused(None, Upstream, &served, &[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], Cause::LengthEncoding);
    refused(None, Upstream, &served, &[0x82, 127, 128, 0, 0, 0, 0, 1, 0, 0], Cause::LengthEncoding);
    refused(None, Downstream, &good, &client(0x82, &[0; 1001]), Cause::FrameTooBig);
    let much = [client(0x02, &[0; 1000]), client(0x00, &[0; 900])].concat();
    refused(None, Downstream, &much, &client(0x80, &[0; 101]), Cause::MessageTooBig);
    refused(None, Downstream, &good, &client(0x88, &[3]), Cause::ClosePayload);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535] {
        refused(Unknown, Downstream, &good, &client(0x88, &code.to_be_bytes()), Cause::CloseCode);
    }
}

#[test]
fn what_is_allowed_passes_byte_for_byte() {
    let session = [
        client(0x81, b""),
        client(0x01, b"a"),
        client(0x89, &[7; 125]),
        client(0x00, &[1; 600]),
        client(0x8a, b""),
        client(0x80, b""),
        client(0x82, &[2; 1000]),
    ]
    .concat();
    assert_eq!(every_cut(Extensions::None, Side::Downstream, &session), (session.clone(), None));
    let deflated = [frame(0xc1, b"z", None), frame(0x42, b"z", None), frame(0x80, b"z", None)].concat();
    assert_eq!(every_cut(Extensions::Deflate, Side::Upstream, &deflated), (deflated.clone(), None));
    let unknown = [frame(0xf3, b"z", None), frame(0xfb, b"z", None), frame(0xb1, b"z", None)].concat();
    assert_eq!(every_cut(Extensions::Unknown, Side::Upstream, &unknown), (unknown.clone(), None));
}

#[test]
fn a_close_passes_whole_and_stops_the_walk() {
    for (payload, code) in [(&b""[..], 1005), (&[3, 232][..], 1000), (b"\x0f\xa0bye", 4000)] {
        let close = client(0x88, payload);
        let sent = [client(0x81, b"x"), close.clone(), client(0x81, b"late")].concat();
        let (out, stop) = every_cut(Extensions::None, Side::Downstream, &sent);
        assert_eq!(stop, Some(Stop::Closed(code)));
        assert_eq!(out, sent[..client(0x81, b"x").len() + close.len()]);
    }
}

#[test]
fn payload_may_pass_unseen_and_the_walk_goes_on_behind_it() {
    let bytes = [client(0x82, &[5; 700]), client(0x81, b"x")].concat();
    let mut cursor = Cursor::new(Side::Downstream, Extensions::None);
    let mut counts = Counts::default();
    assert_eq!(cursor.spliceable(), 0);
    let (taken, _) = cursor.walk(&bytes[..10], LIMITS, &mut counts, &mut Vec::new(), &mut Unlimited);
    assert_eq!(taken, Relayed::forward(10));
    assert_eq!(cursor.spliceable(), 698);
    assert!(!cursor.at_boundary());
    cursor.on_spliced(698);
    assert!(cursor.at_boundary());
    let (taken, stop) = cursor.walk(&bytes[708..], LIMITS, &mut counts, &mut Vec::new(), &mut Unlimited);
    assert_eq!((taken, stop), (Relayed::forward(7), None));
    assert_eq!((counts.frames[1], counts.frames[2]), (1, 1));
    let (_, _) = cursor.walk(&client(0x88, &[3, 232, 65])[..8], LIMITS, &mut counts, &mut Vec::new(), &mut Unlimited);
    assert_eq!(cursor.spliceable(), 0, "a Close is seen");
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_have_one_verdict(
        bytes in proptest::collection::vec(
            prop_oneof![Just(0x81u8), Just(0x82), Just(0x88), Just(0x80), Just(1), any::<u8>()],
            0..200,
        ),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
        from in prop_oneof![Just(Side::Downstream), Just(Side::Upstream)],
        extensions in prop_oneof![Just(Extensions::None), Just(Extensions::Deflate), Just(Extensions::Unknown)],
    ) {
        let cursor = Cursor::new(from, extensions);
        let (out, stop, counts) = run(cursor, &bytes, &[]);
        prop_assert_eq!(run(cursor, &bytes, &cuts), (out.clone(), stop, counts));
        prop_assert_eq!(&bytes[..out.len()], &out[..]);
    }
}
