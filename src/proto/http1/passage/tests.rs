//! Bodies that pass, whole and torn.

use super::*;
use proptest::prelude::*;

/// What leaves for these slices, or that they are refused; and how many sends that took.
fn passed(framing: Framing, dechunked: bool, slices: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Malformed> {
    let (mut passage, mut out, mut sends) = (Passage::new(framing, dechunked), Vec::new(), 0);
    for slice in slices {
        let mut rest = *slice;
        while !rest.is_empty() && !passage.is_done() {
            let mut authored = Vec::new();
            let Passed { forward, consumed } = passage.pass(rest, &mut authored)?;
            assert!(consumed > 0 && forward <= consumed, "{passage:?}");
            sends += usize::from(forward + authored.len() > 0);
            out.extend_from_slice(&authored);
            out.extend_from_slice(&rest[..forward]);
            rest = &rest[consumed..];
        }
    }
    Ok((out, sends, passage.is_done()))
}

/// The same, in two slices cut anywhere and byte by byte, must leave the same.
fn everywhere(body: &[u8], dechunked: bool) -> Result<Vec<u8>, Malformed> {
    let whole = passed(Framing::Chunked, dechunked, &[body]);
    let said = |result: &Result<(Vec<u8>, usize, bool), Malformed>| {
        result.as_ref().map(|(out, _, done)| (out.clone(), *done)).map_err(|error| *error)
    };
    for cut in 0..=body.len() {
        let (first, second) = body.split_at(cut);
        let torn = passed(Framing::Chunked, dechunked, &[first, second]);
        assert_eq!(said(&torn), said(&whole), "cut at {cut} of {:?}", String::from_utf8_lossy(body));
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(said(&passed(Framing::Chunked, dechunked, &bytes)), said(&whole));
    whole.map(|(out, ..)| out)
}

#[test]
fn chunks_leave_as_they_are_written_here() {
    let rows: &[(&str, &str, &str)] = &[
        ("0\r\n\r\n", "0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("005\r\nhello\r\n00\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("5;a=b;c=\"d e\"\r\nhello\r\n0;last\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 \r\nhello\r\n1\t;x\r\n!\r\n0\r\n\r\n", "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
        ("1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "a"),
        ("1\r\na\r\n0\r\nX-Sum:  1 \r\nHost: h\r\n\r\n", "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n", "a"),
        ("0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n", ""),
    ];
    for (body, chunked, content) in rows {
        assert_eq!(everywhere(body.as_bytes(), false).as_deref(), Ok(chunked.as_bytes()), "{body:?}");
        assert_eq!(everywhere(body.as_bytes(), true).as_deref(), Ok(content.as_bytes()), "{body:?}");
    }
}

#[test]
fn what_is_no_chunk_is_refused_at_its_first_byte() {
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(EXTENSION_MAX + 1));
    let trailers = format!("0\r\nX: {}\r\n\r\n", "x".repeat(TRAILER_MAX));
    for (body, at) in [
        ("\r\n", 0),
        ("x\r\n", 0),
        ("-1\r\na\r\n", 0),
        ("+1\r\na\r\n", 0),
        (" 1\r\na\r\n", 0),
        ("0x1\r\na\r\n", 1),
        ("1\na\r\n", 1),
        ("1\r\r\na\r\n", 2),
        ("1;\n\r\na\r\n", 2),
        ("1;\0\r\na\r\n", 2),
        ("1\r\nab\r\n", 4),
        ("1\r\na\n", 4),
        ("1\r\na\r\r\n", 5),
        ("1\r\na\r\n\r\n", 6),
        ("00000000000000001\r\n", 16),
        ("fffffffffffffffff\r\n", 16),
        ("0\r\nX: 1\n\r\n", 7),
        ("0\r\n\n", 3),
        ("0\r\n X: 1\r\n\r\n", 11),
        ("0\r\nX : 1\r\n\r\n", 11),
        ("0\r\nX\r\n\r\n", 7),
        (long.as_str(), EXTENSION_MAX + 2),
        (trailers.as_str(), TRAILER_MAX + 3),
    ] {
        assert_eq!(everywhere(body.as_bytes(), false), Err(Malformed), "{body:?}");
        assert!(passed(Framing::Chunked, false, &[&body.as_bytes()[..at]]).is_ok(), "{at} of {body:?}");
        assert_eq!(passed(Framing::Chunked, false, &[&body.as_bytes()[..=at]]), Err(Malformed), "{at} of {body:?}");
    }
}

#[test]
fn a_body_ends_where_it_is_said_to_end() {
    let length = |n| passed(Framing::Length(n), false, &[b"hel", b"lo"]).unwrap();
    assert_eq!(length(5), (b"hello".to_vec(), 2, true));
    assert_eq!(length(4), (b"hell".to_vec(), 2, true));
    assert_eq!(length(6), (b"hello".to_vec(), 2, false));
    assert_eq!(length(0), (Vec::new(), 0, true));
    assert_eq!(passed(Framing::None, false, &[b"GET"]), Ok((Vec::new(), 0, true)));
    assert_eq!(passed(Framing::UntilEof, false, &[b"hel", b"lo"]), Ok((b"hello".to_vec(), 2, false)));
    let mut passage = Passage::new(Framing::Chunked, false);
    let mut authored = Vec::new();
    let body = b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n";
    assert_eq!(passage.pass(body, &mut authored), Ok(Passed { forward: 11, consumed: 11 }));
    assert!(passage.is_done() && authored.is_empty() && passage.content == 1);
    assert_eq!(passage.pass(b"GET", &mut authored), Ok(Passed::default()));
}

#[test]
fn long_chunks_pass_without_a_copy_and_short_ones_cost_no_send_each() {
    let long = vec![b'x'; 40_000];
    let chunk = [format!("{:x}\r\n", long.len()).as_bytes(), &long, b"\r\n"].concat();
    let two = [&chunk[..], &chunk].concat();
    assert_eq!(passed(Framing::Chunked, false, &[&two]), Ok((two.clone(), 1, false)));
    // Cut within a header: it leaves with the data behind it.
    let (first, second) = two.split_at(chunk.len() + 2);
    assert_eq!(passed(Framing::Chunked, false, &[first, second]), Ok((two.clone(), 2, false)));
    // A chunk that is written otherwise.
    let other = [&chunk[..], b"9C40;a\r\n", &long, b"\r\n"].concat();
    assert_eq!(passed(Framing::Chunked, false, &[&other]), Ok((two.clone(), 2, false)));
    let (content, sends, _) = passed(Framing::Chunked, true, &[&two]).unwrap();
    assert_eq!((content.len(), sends), (80_000, 2));
    let short = b"1;a\r\nx\r\n".repeat(8_000);
    let (out, sends, _) = passed(Framing::Chunked, false, &[&short]).unwrap();
    assert_eq!((out, sends), (b"1\r\nx\r\n".repeat(8_000), 1));
    assert_eq!(passed(Framing::Chunked, true, &[&short]), Ok((vec![b'x'; 8_000], 1, false)));
}

proptest! {
    /// Chunks in any form and cut anywhere leave as one form, which holds the same content.
    #[test]
    fn any_cut_of_any_chunks_leaves_the_same(
        chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..9000), 0..4u8), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (mut body, mut written, mut content) = (Vec::new(), Vec::new(), Vec::new());
        for (data, form) in &chunks {
            let head = match form {
                0 => format!("{:x}\r\n", data.len()),
                1 => format!("{:X}\r\n", data.len()),
                2 => format!("00{:x}\r\n", data.len()),
                _ => format!("{:x};a=\"b\"\r\n", data.len()),
            };
            push(&mut body, &[head.as_bytes(), data, b"\r\n"]);
            push(&mut written, &[format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"]);
            content.extend_from_slice(data);
        }
        body.extend_from_slice(b"0\r\n\r\n");
        written.extend_from_slice(b"0\r\n\r\n");
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let slices: Vec<&[u8]> = at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        let (out, _, done) = passed(Framing::Chunked, false, &slices).unwrap();
        prop_assert!(done && out == written);
        let (out, _, done) = passed(Framing::Chunked, true, &slices).unwrap();
        prop_assert!(done && out == content);
    }
}
