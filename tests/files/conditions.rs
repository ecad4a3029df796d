//! Conditions and ranges (RFC 9110 sections 13 and 14) through real sockets; every case of the
//! decision itself is in `src/proto/files/tests.rs`.

use super::common::*;
use super::site::*;
use std::fs::File;
use std::time::{Duration, SystemTime};

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// The site, whose letters were changed a day ago.
fn aged() -> Site {
    let site = Site::new();
    let file = File::options().write(true).open(site.path().join("letters.txt")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(86_400)).unwrap();
    site
}

#[test]
fn a_client_that_has_the_file_does_not_get_it_again() {
    let site = aged();
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    let first = ask(&client, "GET", "/letters.txt", "");
    let (etag, modified) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
    for (more, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {etag}\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {modified}\r\n"), 304),
        ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into(), 200),
        ("If-Modified-Since: soon\r\n".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}\r\n"), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: \"x\"\r\n".into(), 412),
        (format!("If-Match: W/{etag}\r\n"), 412),
        (format!("If-Unmodified-Since: {modified}\r\n"), 200),
        ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into(), 412),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"), 412),
    ] {
        for method in ["GET", "HEAD"] {
            // All on one connection: none has a byte too much or too few.
            let answer = ask(&client, method, "/letters.txt", &more);
            assert_eq!(answer.status, status, "{method} {more}");
            if status == 304 {
                assert_eq!((answer.field("etag"), answer.field("last-modified")), (Some(etag), Some(modified)));
                assert_eq!((answer.field("content-type"), answer.field("content-length")), (None, None), "{answer:?}");
            }
        }
    }
}

#[test]
fn every_change_is_another_tag() {
    let site = aged();
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    let path = site.path().join("letters.txt");
    let mut tags = Vec::new();
    let mut add = || {
        let answer = ask(&client, "GET", "/letters.txt", "");
        let tag = answer.field("etag").unwrap().to_owned();
        assert_eq!(ask(&client, "GET", "/letters.txt", "").field("etag"), Some(&*tag));
        assert!(!tags.contains(&tag), "{tag} of {tags:?}");
        tags.push(tag);
    };
    add();
    let modified = path.metadata().unwrap().modified().unwrap();
    // The same length, and the same time of its last change.
    std::fs::write(&path, LETTERS.to_uppercase()).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    add();
    // Another file of the same content, length and time.
    let copy = site.put("copy.txt", LETTERS.to_uppercase());
    File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
    std::fs::rename(&copy, &path).unwrap();
    add();
    std::fs::write(&path, "short").unwrap();
    add();
}

#[test]
fn a_part_of_a_file() {
    let site = aged();
    site.put("empty.txt", "");
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    for (range, content_range, part) in [
        ("0-0", "bytes 0-0/26", "a"),
        ("0-25", "bytes 0-25/26", LETTERS),
        ("3-5", "bytes 3-5/26", "def"),
        ("20-", "bytes 20-25/26", "uvwxyz"),
        ("20-1000", "bytes 20-25/26", "uvwxyz"),
        ("-3", "bytes 23-25/26", "xyz"),
        ("-1000", "bytes 0-25/26", LETTERS),
    ] {
        let answer = ask(&client, "GET", "/letters.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("content-range"), answer.text()), (206, Some(content_range), part));
        assert_eq!(answer.field("accept-ranges"), Some("bytes"));
        assert!(answer.field("etag").is_some() && answer.field("last-modified").is_some());
    }
    for range in ["26-", "100-200", "-0"] {
        let answer = ask(&client, "GET", "/letters.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("content-range")), (416, Some("bytes */26")), "{range}");
    }
    // A server may ignore the field (RFC 9110 section 14.2).
    for range in ["bytes=0-1,5-6", "bytes=5-4", "bytes=x-", "lines=1-2", "bytes=", "bytes=0-0, -1"] {
        let answer = ask(&client, "GET", "/letters.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status, answer.text(), answer.field("content-range")), (200, LETTERS, None), "{range}");
    }
    let head = ask(&client, "HEAD", "/letters.txt", "Range: bytes=0-0\r\n");
    assert_eq!((head.status, head.field("content-length")), (200, Some("26")));
    assert_eq!(ask(&client, "GET", "/empty.txt", "").body, b"");
    assert_eq!(ask(&client, "GET", "/empty.txt", "Range: bytes=0-\r\n").status, 416);
}

#[test]
fn a_part_is_of_the_file_that_the_client_has() {
    let site = aged();
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    let first = ask(&client, "GET", "/letters.txt", "");
    let (etag, modified) = (first.field("etag").unwrap(), first.field("last-modified").unwrap());
    for (validator, status) in [
        (etag, 206),
        (modified, 206),
        ("\"x\"", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200),
        (&*format!("W/{etag}"), 200),
        ("x", 200),
    ] {
        let more = format!("Range: bytes=3-5\r\nIf-Range: {validator}\r\n");
        assert_eq!(ask(&client, "GET", "/letters.txt", &more).status, status, "{validator}");
    }
    // One that was changed just now may change again within its second.
    std::fs::write(site.path().join("letters.txt"), LETTERS).unwrap();
    let modified = ask(&client, "GET", "/letters.txt", "").field("last-modified").unwrap().to_owned();
    let more = format!("Range: bytes=3-5\r\nIf-Range: {modified}\r\n");
    let answer = ask(&client, "GET", "/letters.txt", &more);
    let is_old = answer.field("date") != Some(&*modified);
    assert_eq!(answer.status, if is_old { 206 } else { 200 }, "{answer:?}");
}

#[test]
fn a_time_to_come_is_not_written() {
    let site = Site::new();
    let file = File::options().write(true).open(site.path().join("letters.txt")).unwrap();
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400)).unwrap();
    let answer = ask(&client, "GET", "/letters.txt", "");
    assert_eq!(answer.field("last-modified"), answer.field("date"));
    file.set_modified(SystemTime::UNIX_EPOCH - Duration::from_secs(86_400)).unwrap();
    let answer = ask(&client, "GET", "/letters.txt", "");
    assert_eq!(answer.field("last-modified"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
}
