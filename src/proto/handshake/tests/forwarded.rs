//! The Forwarded field: whom it names, and what the upstream gets of it.

use super::*;

const NEAR: &str = "10.0.0.1";
/// Trusted, as is everything in 10.0.0.0/8.
const FAR: &str = "203.0.113.7";

/// The client of a request with these lines from [`NEAR`].
fn client(lines: &[&str]) -> String {
    let head = with(lines);
    let request = parse_request(head.as_bytes()).unwrap();
    let trusted = |address: IpAddr| address.to_string().starts_with("10.");
    client_of(&request, NEAR.parse().unwrap(), trusted).to_string()
}

#[test]
fn forwarded_names_the_client() {
    let rows = [
        ("for=203.0.113.7", FAR),
        ("For=203.0.113.7", FAR),
        ("FOR=\"203.0.113.7\"", FAR),
        ("for=\"203.0.113.7:4711\"", FAR),
        ("for=\"203.0.113.7:_port\"", FAR),
        ("for=\"\\203.0.\\113.7\"", FAR),
        ("for=\"[2001:db8::7]\"", "2001:db8::7"),
        ("for=\"[2001:DB8::7]:4711\"", "2001:db8::7"),
        ("for=\"[::ffff:203.0.113.7]\"", FAR),
        ("for=203.0.113.7;proto=https;by=10.0.0.2;host=a.example", FAR),
        ("proto=https;for=203.0.113.7", FAR),
        (";;for=203.0.113.7;;", FAR),
        ("proto=https ; for=203.0.113.7", FAR),
        ("by=\"a;for=192.0.2.1, for=192.0.2.2\";for=203.0.113.7", FAR),
        ("by=\"\\\", for=192.0.2.1\";for=203.0.113.7", FAR),
        ("secret=\"\";for=203.0.113.7", FAR),
        (" , ,for=203.0.113.7 ,, ", FAR),
        ("for=192.0.2.1, for=203.0.113.7", FAR),
        ("for=203.0.113.7, for=10.0.0.9", FAR),
        ("for=192.0.2.1,for=203.0.113.7,for=10.0.0.9;proto=http , for=\"10.0.0.8:1\"", FAR),
        ("for=10.0.0.7, for=10.0.0.8", "10.0.0.7"),
        // What is no address ends the walk.
        ("for=192.0.2.1, for=unknown", NEAR),
        ("for=192.0.2.1, for=Unknown, for=10.0.0.9", "10.0.0.9"),
        ("for=192.0.2.1, for=_hidden, for=10.0.0.9", "10.0.0.9"),
        ("for=192.0.2.1, for=\"_hidden:_x\"", NEAR),
        ("for=192.0.2.1, proto=https", NEAR),
        ("for=192.0.2.1, ;", NEAR),
        ("for=unknown", NEAR),
        ("", NEAR),
        (",", NEAR),
    ];
    for (line, expected) in rows {
        assert_eq!(client(&[&format!("Forwarded: {line}")]), expected, "{line}");
    }
}

/// A line that is malformed anywhere says nothing, whatever stands at its end.
#[test]
fn malformed_lines_are_not_believed() {
    let rows = [
        "for=203.0.113.7:4711",
        "for=[2001:db8::7]",
        "for=\"2001:db8::7\"",
        "for=\"[2001:db8::7\"",
        "for=\"[2001:db8::7]4711\"",
        "for=\"[203.0.113.7]\"",
        "for=\"[fe80::1%eth0]\"",
        "for=\"203.0.113.7:\"",
        "for=\"203.0.113.7:123456\"",
        "for=\"203.0.113.7:http\"",
        "for=\"203.0.113.7 \"",
        "for=203.0.113",
        "for=203.0.113.07",
        "for=localhost",
        "for=_",
        "for=_a~b",
        "for=",
        "for=\"\"",
        "for",
        "=203.0.113.7",
        "for =203.0.113.7",
        "for= 203.0.113.7",
        "for==203.0.113.7",
        "for=203.0.113.7;for=203.0.113.7",
        "for=203.0.113.7;FOR=192.0.2.1",
        "for=203.0.113.7;proto=a;proto=b",
        "for=203.0.113.7 proto=https",
        "for=203.0.113.7\"",
        "for=\"203.0.113.7",
        "for=\"203.0.113.7\\",
        "for=\"203.0.113.7\\\"",
        "for=\"a\"203.0.113.7",
        "for={203.0.113.7}",
        "for='203.0.113.7'",
        "by=\", for=203.0.113.7",
        "for=\"192.0.2.1, for=203.0.113.7",
        "bad, for=203.0.113.7",
        "for=203.0.113.7, bad",
        "for=203.0.113.7,\u{e9}=1",
    ];
    for line in rows {
        assert_eq!(client(&[&format!("Forwarded: {line}")]), NEAR, "{line}");
        // Nor are the lines before it; those behind it are.
        assert_eq!(client(&["Forwarded: for=192.0.2.1", &format!("Forwarded: {line}")]), NEAR, "{line}");
        let behind = ["Forwarded: for=10.0.0.9", "Forwarded: for=203.0.113.7"];
        assert_eq!(client(&[&format!("Forwarded: {line}"), behind[0]]), "10.0.0.9", "{line}");
        assert_eq!(client(&[&format!("Forwarded: {line}"), behind[1], behind[0]]), FAR, "{line}");
    }
}

#[test]
fn several_lines_are_one_list_and_x_forwarded_for_goes_first() {
    let rows: &[(&[&str], &str)] = &[
        (&["Forwarded: for=192.0.2.1", "forwarded: for=203.0.113.7, for=10.0.0.9", "FORWARDED: for=10.0.0.8"], FAR),
        (&["X-Forwarded-For: 203.0.113.7", "Forwarded: for=192.0.2.1"], FAR),
        (&["Forwarded: for=192.0.2.1", "X-Forwarded-For: 203.0.113.7"], FAR),
        // It is there, although it names no address.
        (&["Forwarded: for=192.0.2.1", "X-Forwarded-For: unknown"], NEAR),
        (&["Forwarded: for=192.0.2.1", "X-Forwarded-For: \t"], NEAR),
        (&["X-Forwarded-For: 192.0.2.1, garbage, 10.0.0.9"], "10.0.0.9"),
    ];
    for (lines, expected) in rows {
        assert_eq!(client(lines), *expected, "{lines:?}");
    }
    let head = with(&["Forwarded: for=192.0.2.1"]);
    let request = parse_request(head.as_bytes()).unwrap();
    assert_eq!(client_of(&request, FAR.parse().unwrap(), |_| false).to_string(), FAR, "nobody is trusted");
}

#[test]
fn forwarded_is_written_where_the_route_asks_for_it() {
    let as_they = |headers, trusted| Forwarding { headers, ..add(trusted) };
    let ours = "Forwarded: for=203.0.113.7;host=a.example;proto=http";
    let identity = ["X-Request-Id: rid", TRACE];
    let middle = [&HANDSHAKE[..], &["X-App: 1"]].concat();
    // The word of an untrusted peer is dropped, whatever is written.
    let only = [&[ours][..], &identity].concat();
    assert_eq!(sent(&with(&FORWARDING), &as_they(ForwardingHeaders::Forwarded, false)), expected(&middle, &only));
    let both = [&[ours][..], &ADDED].concat();
    assert_eq!(sent(&with(&FORWARDING), &as_they(ForwardingHeaders::Both, false)), expected(&middle, &both));

    // That of a trusted one is continued in one line, without what is malformed.
    let lines = [
        "Forwarded: for=192.0.2.1;by=\"a,b\" ,for=_x",
        "forwarded: for=\"oops",
        "Forwarded: ,",
        "Forwarded: for=10.0.0.9",
    ];
    let head = with(&[&lines[..], &FORWARDING[1..]].concat());
    let continued =
        "Forwarded: for=192.0.2.1;by=\"a,b\" ,for=_x, for=10.0.0.9, for=203.0.113.7;host=a.example;proto=http";
    let kept = [&HANDSHAKE[..], &["X-Forwarded-Port: 443", "X-App: 1"]].concat();
    let only = [&[continued][..], &identity].concat();
    assert_eq!(sent(&head, &as_they(ForwardingHeaders::Forwarded, true)), expected(&kept, &only));
    let kept = [
        &HANDSHAKE[..],
        &["X-Forwarded-Proto: https", "X-Forwarded-Host: public.example", "X-Forwarded-Port: 443"],
        &["X-Real-IP: 10.0.0.1", "X-App: 1"],
    ]
    .concat();
    let both = [&[continued, "X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 203.0.113.7"][..], &identity].concat();
    assert_eq!(sent(&head, &as_they(ForwardingHeaders::Both, true)), expected(&kept, &both));
}

#[test]
fn x_forwarded_for_becomes_forwarded() {
    let forwarded = |lines: &[&str], add: &Forwarding<'_>| {
        let sent = sent(&with(lines), &Forwarding { headers: ForwardingHeaders::Forwarded, ..*add });
        let mut found = sent.into_iter().filter(|line| line.starts_with("Forwarded:"));
        let line = found.next().unwrap();
        assert_eq!(found.next(), None);
        // What we write is read again: the last hop is the peer.
        let read = client_of(&parse_request(with(&[&line]).as_bytes()).unwrap(), NEAR.parse().unwrap(), |address| {
            address.to_string() == NEAR
        });
        assert_eq!(read, add.peer.to_canonical(), "{line}");
        line
    };
    let old =
        ["X-Forwarded-For: 192.0.2.1, 2001:db8::7, junk", "X-Forwarded-Proto: wss", "X-Forwarded-Host: b.example:8443"];
    assert_eq!(
        forwarded(&old, &add(true)),
        "Forwarded: for=192.0.2.1;host=\"b.example:8443\";proto=wss, for=\"[2001:db8::7]\", for=unknown, \
         for=203.0.113.7;host=a.example;proto=http"
    );
    let doubtful = ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: a b", "X-Forwarded-Host: a\"b\\c"];
    assert_eq!(
        forwarded(&doubtful, &add(true)),
        "Forwarded: for=192.0.2.1;host=\"a\\\"b\\\\c\", for=203.0.113.7;host=a.example;proto=http"
    );
    let six = Forwarding { peer: "2001:db8::9".parse().unwrap(), secure: true, ..add(false) };
    assert_eq!(forwarded(&old, &six), "Forwarded: for=\"[2001:db8::9]\";host=a.example;proto=https");
}
