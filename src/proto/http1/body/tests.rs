//! The end of a body, whole and torn.

use super::super::*;
use super::*;

fn answer(head: &str) -> Response<'_> {
    parse_response(head.as_bytes()).unwrap()
}

fn body_kind(fields: &str, status: u16) -> Result<String, Cause> {
    let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
    body_of(&answer(&head)).map(|body| match body {
        Body::None => "none".into(),
        Body::Length(len) => len.to_string(),
        Body::Chunked(_) => "chunked".into(),
        Body::UntilEof => "eof".into(),
    })
}

#[test]
fn bodies_are_delimited_once_or_not_at_all() {
    let rows: &[(&str, u16, Option<&str>)] = &[
        ("", 200, Some("eof")),
        ("", 204, Some("none")),
        ("", 304, Some("none")),
        ("Content-Length: 0\r\n", 200, Some("none")),
        ("Content-Length: 7\r\n", 200, Some("7")),
        ("content-length: \t007 \r\n", 200, Some("7")),
        ("Content-Length: 7\r\n", 204, Some("none")),
        ("Content-Length: 7\r\n", 304, Some("none")),
        ("Content-Length: 18446744073709551615\r\n", 200, Some("18446744073709551615")),
        ("Transfer-Encoding: chunked\r\n", 200, Some("chunked")),
        ("transfer-encoding: , CHUNKED ,\r\n", 200, Some("chunked")),
        ("Transfer-Encoding: chunked\r\n", 304, Some("none")),
        ("Content-Length: 18446744073709551616\r\n", 200, None),
        ("Content-Length: \r\n", 200, None),
        ("Content-Length: +7\r\n", 200, None),
        ("Content-Length: -7\r\n", 200, None),
        ("Content-Length: 0x7\r\n", 200, None),
        ("Content-Length: 7 7\r\n", 200, None),
        ("Content-Length: 7, 7\r\n", 200, None),
        ("Content-Length: 7\r\nContent-Length: 7\r\n", 200, None),
        ("Content-Length: 7\r\nContent-Length: 8\r\n", 200, None),
        ("Content-Length: 7\r\nContent-Length: 8\r\n", 204, None),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", 304, None),
        ("Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", 200, None),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 200, None),
        ("Transfer-Encoding: \r\nContent-Length: 7\r\n", 200, None),
        ("Transfer-Encoding: \r\n", 200, None),
        ("Transfer-Encoding: gzip\r\n", 200, None),
        ("Transfer-Encoding: identity\r\n", 200, None),
        ("Transfer-Encoding: gzip, chunked\r\n", 200, None),
        ("Transfer-Encoding: chunked, gzip\r\n", 200, None),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 200, None),
        ("Transfer-Encoding: chunked;x=y\r\n", 200, None),
        ("Transfer-Encoding: xchunked\r\n", 200, None),
    ];
    for (fields, status, want) in rows {
        assert_eq!(body_kind(fields, *status), want.map(String::from).ok_or(Cause::BadResponse), "{status} {fields:?}");
    }
}

/// Feeds `bytes` in the pieces that `cuts` leave: how many belong to the body if it ends in them.
pub(in crate::proto::http1) fn body_end(
    body: &mut Body,
    bytes: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Option<usize>, Cause> {
    let mut start = 0;
    for cut in cuts.into_iter().chain([bytes.len()]) {
        let (taken, over) = body.advance(&bytes[start..cut])?;
        if over {
            return Ok(Some(start + taken));
        }
        assert_eq!(taken, cut - start, "all of an unfinished piece belongs to the body");
        start = cut;
    }
    Ok(None)
}

fn chunks_torn(bytes: &[u8]) -> Result<Option<usize>, Cause> {
    let chunked = || Body::Chunked(Chunks::default());
    let whole = body_end(&mut chunked(), bytes, []);
    for cut in 0..=bytes.len() {
        assert_eq!(body_end(&mut chunked(), bytes, [cut]), whole, "cut at {cut}: {:?}", String::from_utf8_lossy(bytes));
    }
    assert_eq!(body_end(&mut chunked(), bytes, 0..bytes.len()), whole);
    whole
}

#[test]
fn chunked_bodies_end_after_their_trailers() {
    let bodies = [
        "0\r\n\r\n",
        "000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "1\r\n\r\r\n2\r\n\r\n\r\n0\r\n\r\n",
        "A\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0;x=\"y z\"\r\n\r\n",
        "5 ;a\r\nhello\r\n0 \t\r\n\r\n",
        "1\r\nx\r\n0\r\nTrailer: a\r\nOther:\tb\r\n\r\n",
    ];
    for body in bodies {
        let glued = format!("{body}HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(chunks_torn(glued.as_bytes()), Ok(Some(body.len())), "{body:?}");
        for cut in 0..body.len() {
            assert_eq!(body_end(&mut Body::Chunked(Chunks::default()), &body.as_bytes()[..cut], []), Ok(None));
        }
    }
    let mut over = Body::Chunked(Chunks::default());
    assert_eq!(over.advance(b"0\r\n\r\n"), Ok((5, true)));
    assert_eq!(over.advance(b"0\r\n\r\n"), Ok((0, true)));
}

#[test]
fn broken_chunking_is_found() {
    let bodies = [
        "\r\n",
        ";x\r\n",
        " 5\r\n",
        "x",
        "-1\r\n",
        "+1\r\n",
        "0x5\r\n",
        "5\n",
        "5\rh",
        "5 5",
        "5 a",
        "5;\n",
        "5;a\0",
        "5\r\nhellox",
        "5\r\nhello\n",
        "5\r\nhello\rx",
        "5\r\nhello\r\n\r",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\n x",
        "0\r\n:",
        "0\r\nno colon\r",
        "0\r\nA: b\n",
        "0\r\nA: b\r\n c",
        "0\r\nA: \0",
        "10000000000000000\r\n",
        "ffffffffffffffff0\r\n",
    ];
    for body in bodies {
        assert_eq!(chunks_torn(body.as_bytes()), Err(Cause::BadResponse), "{body:?}");
    }
    let mut huge = Body::Chunked(Chunks::default());
    assert_eq!(huge.advance(b"ffffffffffffffff\r\nx"), Ok((19, false)));
}

#[test]
fn other_bodies_take_what_is_theirs() {
    let mut length = Body::Length(5);
    assert_eq!(length.advance(b""), Ok((0, false)));
    assert_eq!(length.advance(b"abc"), Ok((3, false)));
    assert_eq!(length.advance(b"defg"), Ok((2, true)));
    assert_eq!(length.advance(b"h"), Ok((0, true)));
    assert_eq!(Body::None.advance(b"abc"), Ok((0, true)));
    assert_eq!(Body::UntilEof.advance(b"abc"), Ok((3, false)));
}
