use super::*;
use crate::proto::http1::{parse_request, parse_response};
use proptest::prelude::*;

/// Modified at 1994-11-06 08:49:37, asked for an hour later.
const MODIFIED: u64 = 784_111_777;
const NOW: u64 = MODIFIED + 3600;
const FILE: Representation<'_> =
    Representation { len: 1000, modified: MODIFIED, etag: "\"v1\"", media_type: "text/plain; charset=utf-8" };

const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

fn conditions(method: &str, fields: &[(&str, &str)]) -> Conditions {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    Conditions::of(&parse_request(head.as_bytes()).unwrap())
}

#[track_caller]
fn get(fields: &[(&str, &str)]) -> Selection {
    conditions("GET", fields).select(&FILE, NOW)
}

fn part(from: u64, len: u64) -> Selection {
    Selection::Part { from, len }
}

#[test]
fn a_client_that_has_the_file_gets_304() {
    for tag in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "\"v0\",W/\"v1\" ,\"v2\"", "*", ", ,\"v1\",", "\"a,b\", \"v1\""]
    {
        assert_eq!(get(&[("If-None-Match", tag)]), Selection::NotModified, "{tag}");
        assert_eq!(conditions("HEAD", &[("If-None-Match", tag)]).select(&FILE, NOW), Selection::NotModified);
    }
    for tag in ["\"v0\"", "v1", "\"v1", "\"v1\" \"v2\"", "\"v1\"x", "W/v1", "w/\"v1\"", "\"\"", "", "'v1'", "*, \"v0\""]
    {
        assert_eq!(get(&[("If-None-Match", tag)]), Selection::Whole, "{tag}");
    }
    assert_eq!(get(&[("If-None-Match", "\"v0\""), ("If-None-Match", "\"v1\"")]), Selection::NotModified, "two lines");
    assert_eq!(get(&[("If-Modified-Since", THEN)]), Selection::NotModified);
    assert_eq!(get(&[("If-Modified-Since", AFTER)]), Selection::NotModified);
    assert_eq!(get(&[("If-Modified-Since", BEFORE)]), Selection::Whole);
    // "A recipient MUST ignore If-Modified-Since if the request contains an If-None-Match header
    // field".
    assert_eq!(get(&[("If-None-Match", "\"v0\""), ("If-Modified-Since", AFTER)]), Selection::Whole);
    // The other two formats; and what is no date, which is ignored.
    for date in ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
        assert_eq!(get(&[("If-Modified-Since", date)]), Selection::NotModified, "{date}");
    }
    for date in
        ["yesterday", "", "0", "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37", "Sun, 32 Nov 2094 08:49:37 GMT"]
    {
        assert_eq!(get(&[("If-Modified-Since", date)]), Selection::Whole, "{date}");
    }
    let twice = [("If-Modified-Since", THEN), ("If-Modified-Since", THEN)];
    assert_eq!(get(&twice), Selection::Whole, "more than one member");
}

#[test]
fn a_client_that_asks_for_another_state_gets_412() {
    for (tag, selection) in [
        ("\"v1\"", Selection::Whole),
        ("*", Selection::Whole),
        ("\"v0\", \"v1\"", Selection::Whole),
        // "An origin server MUST use the strong comparison function".
        ("W/\"v1\"", Selection::Failed),
        ("\"v0\"", Selection::Failed),
        ("v1", Selection::Failed),
        ("", Selection::Failed),
    ] {
        assert_eq!(get(&[("If-Match", tag)]), selection, "{tag}");
    }
    assert_eq!(get(&[("If-Unmodified-Since", BEFORE)]), Selection::Failed);
    assert_eq!(get(&[("If-Unmodified-Since", THEN)]), Selection::Whole);
    assert_eq!(get(&[("If-Unmodified-Since", "never")]), Selection::Whole);
    assert_eq!(get(&[("If-Match", "\"v1\""), ("If-Unmodified-Since", BEFORE)]), Selection::Whole);
    // In the order of RFC 9110 section 13.2.2.
    assert_eq!(get(&[("If-Match", "\"v0\""), ("If-None-Match", "\"v1\"")]), Selection::Failed);
    assert_eq!(get(&[("If-Match", "\"v1\""), ("If-None-Match", "\"v1\"")]), Selection::NotModified);
    assert_eq!(get(&[("If-None-Match", "\"v1\""), ("Range", "bytes=0-0")]), Selection::NotModified);
    assert_eq!(get(&[("If-Match", "\"v0\""), ("Range", "bytes=5000-")]), Selection::Failed);
}

#[test]
fn one_range_is_a_part() {
    for (range, selection) in [
        ("bytes=0-0", part(0, 1)),
        ("bytes=0-999", part(0, 1000)),
        ("bytes=0-1000", part(0, 1000)),
        ("bytes=500-", part(500, 500)),
        ("bytes=999-", part(999, 1)),
        ("bytes=-1", part(999, 1)),
        ("bytes=-1000", part(0, 1000)),
        ("bytes=-5000", part(0, 1000)),
        ("BYTES=1-2", part(1, 2)),
        ("bytes= 1-2 ", part(1, 2)),
        ("bytes=5-99999999999999999999999999", part(5, 995)),
        ("bytes=0-18446744073709551615", part(0, 1000)),
        ("bytes=1000-", Selection::OutOfRange),
        ("bytes=1000-2000", Selection::OutOfRange),
        ("bytes=99999999999999999999999999-", Selection::OutOfRange),
        ("bytes=-0", Selection::OutOfRange),
    ] {
        assert_eq!(get(&[("Range", range)]), selection, "{range}");
    }
}

#[test]
fn what_is_not_one_range_of_bytes_is_ignored() {
    for range in [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5",
        "bytes=5-4",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=0x1-2",
        "bytes:0-1",
        "items=0-1",
        "bytes=0-1,5-6",
        "bytes=0-1,",
        "bytes=,0-1",
        "bytes==0-1",
        "=0-1",
        "byte=0-1",
    ] {
        assert_eq!(get(&[("Range", range)]), Selection::Whole, "{range}");
    }
    assert_eq!(get(&[("Range", "bytes=0-1"), ("Range", "bytes=5-6")]), Selection::Whole);
    assert_eq!(conditions("HEAD", &[("Range", "bytes=0-1")]).select(&FILE, NOW), Selection::Whole);
    let empty = Representation { len: 0, ..FILE };
    for (range, selection) in [
        ("bytes=0-", Selection::OutOfRange),
        ("bytes=0-0", Selection::OutOfRange),
        ("bytes=-0", Selection::OutOfRange),
        ("bytes=-5", Selection::Whole),
    ] {
        assert_eq!(conditions("GET", &[("Range", range)]).select(&empty, NOW), selection, "{range}");
    }
}

#[test]
fn a_part_is_of_the_state_that_the_client_has() {
    for (validator, selection) in [
        ("\"v1\"", part(0, 1)),
        ("W/\"v1\"", Selection::Whole),
        ("\"v0\"", Selection::Whole),
        ("v1", Selection::Whole),
        ("*", Selection::Whole),
        (THEN, part(0, 1)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", part(0, 1)),
        (BEFORE, Selection::Whole),
        (AFTER, Selection::Whole),
    ] {
        assert_eq!(get(&[("If-Range", validator), ("Range", "bytes=0-0")]), selection, "{validator}");
        assert_eq!(get(&[("If-Range", validator)]), Selection::Whole, "{validator}");
    }
    // Within its second a file can change once more.
    let fresh = conditions("GET", &[("If-Range", THEN), ("Range", "bytes=0-0")]);
    assert_eq!(fresh.select(&FILE, MODIFIED), Selection::Whole);
    assert_eq!(fresh.select(&FILE, MODIFIED + 1), part(0, 1));
    // It says nothing about a range that is out of the file.
    assert_eq!(get(&[("If-Range", "\"v0\""), ("Range", "bytes=5000-")]), Selection::Whole);
}

#[test]
fn heads_are_those_of_rfc_9110() {
    let head = |selection: Selection, head_only: bool| {
        let mut out = Vec::new();
        selection.write(&mut out, &FILE, (head_only, NOW));
        String::from_utf8(out).unwrap()
    };
    let date = "Date: Sun, 06 Nov 1994 09:49:37 GMT\r\n";
    let validators = format!("ETag: \"v1\"\r\nLast-Modified: {THEN}\r\n\r\n");
    let fields = "Accept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n";
    let text = "Content-Type: text/plain; charset=utf-8\r\nContent-Length:";
    assert_eq!(head(Selection::Whole, false), format!("HTTP/1.1 200 OK\r\n{date}{text} 1000\r\n{fields}{validators}"));
    assert_eq!(
        head(part(10, 20), false),
        format!(
            "HTTP/1.1 206 Partial Content\r\n{date}Content-Range: bytes 10-29/1000\r\n{text} 20\r\n{fields}{validators}"
        )
    );
    assert_eq!(head(Selection::NotModified, false), format!("HTTP/1.1 304 Not Modified\r\n{date}{validators}"));
    let nosniff = "X-Content-Type-Options: nosniff\r\n";
    let failed = format!("HTTP/1.1 412 Precondition Failed\r\n{date}{text} 21\r\n{nosniff}\r\n");
    assert_eq!(head(Selection::Failed, true), failed);
    assert_eq!(head(Selection::Failed, false), failed + "Precondition Failed.\n");
    assert_eq!(
        head(Selection::OutOfRange, true),
        format!(
            "HTTP/1.1 416 Range Not Satisfiable\r\n{date}{text} 23\r\n{nosniff}Content-Range: bytes */1000\r\n\r\n"
        )
    );
    for selection in [Selection::Whole, part(0, 1), Selection::NotModified, Selection::Failed, Selection::OutOfRange] {
        let head = head(selection, true);
        assert_eq!(parse_response(head.as_bytes()).unwrap().status, selection.status());
    }
}

#[test]
fn dates_that_no_clock_shows_do_no_harm() {
    let mut out = Vec::new();
    let future = Representation { modified: u64::MAX, ..FILE };
    Selection::Whole.write(&mut out, &future, (true, NOW));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("Last-Modified: Sun, 06 Nov 1994 09:49:37 GMT\r\n"), "{text}");
    assert_eq!(format_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    assert_eq!(parse_date(b"Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT\u{e9}".as_bytes()), None);
}

proptest! {
    /// Whatever is asked for, a part lies within the file and is not empty.
    #[test]
    fn a_part_lies_within_the_file(
        range in "(bytes|Bytes|lines)?=?( |[0-9]{0,3}|18446744073709551615){0,2}-{0,2}[0-9]{0,21}(,|-|[0-9]){0,3}",
        len in prop_oneof![Just(0), Just(1), 0u64..1200, Just(u64::MAX)],
    ) {
        let file = Representation { len, ..FILE };
        match conditions("GET", &[("Range", &range)]).select(&file, NOW) {
            Selection::Part { from, len: part } => {
                prop_assert!(part > 0 && from < len && part <= len - from, "{range}: {from}, {part} of {len}");
                let mut out = Vec::new();
                Selection::Part { from, len: part }.write(&mut out, &file, (true, NOW));
                let expected = format!("Content-Range: bytes {from}-{}/{len}\r\n", from + (part - 1));
                prop_assert!(String::from_utf8(out).unwrap().contains(&expected));
            }
            Selection::OutOfRange => prop_assert!(range.contains('-')),
            other => prop_assert_eq!(other, Selection::Whole),
        }
    }
}
