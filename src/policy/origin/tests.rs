//! Origins against lists and against the request's own host: look-alikes, one table each.

use super::*;
use crate::proto::http1::Field;

fn list(elements: &[&str]) -> Origins {
    let mut list = OriginList::default();
    elements.iter().for_each(|element| list.add(element).unwrap());
    Origins::Listed(list)
}

/// The verdict on a request with these fields.
fn judged(origins: &Origins, host: &str, fields: &[(&'static str, &str)], change: impl Fn(&mut Facts<'_>)) -> bool {
    let fields = fields.iter().map(|(name, value)| Field { name, value: value.as_bytes() }).collect();
    let request = Request { is_http10: false, method: "GET", target: "/", path: "/", query: "", host, fields };
    let mut facts = Facts::of(&request);
    change(&mut facts);
    let verdict = origins.judge(&facts);
    let cause = if origins.is_listed() { Cause::OriginRefused } else { Cause::OriginCrossSite };
    assert!(verdict.is_ok() || verdict == Err(cause), "{verdict:?}");
    verdict.is_ok()
}

/// An Origin, and whether [`LIST`] admits it.
const SENT: &[(&str, bool)] = &[
    // Exactly what is listed.
    ("https://example.com", true),
    ("http://plain.example.com:8080", true),
    ("https://xn--bcher-kva.example", true),
    ("https://[2001:db8::7]", true),
    ("https://192.0.2.7:8443", true),
    ("chrome-extension://abcdefgh", true),
    // Case of scheme and host, default ports, other ways to write an address.
    ("HTTPS://EXAMPLE.COM", true),
    ("https://Example.Com", true),
    ("https://example.com:443", true),
    ("https://[2001:DB8:0:0:0:0:0:7]", true),
    ("https://[2001:0db8::0007]:443", true),
    ("https://XN--BCHER-KVA.example", true),
    // Another scheme.
    ("http://example.com", false),
    ("http://example.com:443", false),
    ("ws://example.com", false),
    ("wss://example.com", false),
    ("wss://example.com:443", false),
    ("ftp://example.com", false),
    ("httpss://example.com", false),
    ("https//example.com", false),
    ("https:/example.com", false),
    ("https:example.com", false),
    ("//example.com", false),
    ("example.com", false),
    ("://example.com", false),
    ("1https://example.com", false),
    (" https://example.com", false),
    ("chrome-extension://abcdefgi", false),
    ("moz-extension://abcdefgh", false),
    // Ports.
    ("https://example.com:80", false),
    ("https://example.com:8443", false),
    ("https://example.com:4430", false),
    ("https://example.com:44", false),
    ("https://example.com:", false),
    ("https://example.com:0443", false),
    ("https://example.com:+443", false),
    ("https://example.com:-443", false),
    ("https://example.com:443:443", false),
    ("https://example.com:65979", false), // 443 + 65536
    ("https://example.com:4x3", false),
    ("https://example.com: 443", false),
    ("https://example.com:\u{ff14}43", false),
    ("http://plain.example.com", false),
    ("http://plain.example.com:80", false),
    // Suffixes and prefixes.
    ("https://example.com.", false),
    ("https://example.com..", false),
    ("https://.example.com", false),
    ("https://evilexample.com", false),
    ("https://example.com.evil.net", false),
    ("https://example.comevil.net", false),
    ("https://example.co", false),
    ("https://example.com-evil.net", false),
    ("https://example.org", false),
    ("https://www.example.com", false),
    ("https://xample.com", false),
    ("https://example\u{2024}com", false),
    // More than an origin.
    ("https://example.com/", false),
    ("https://example.com/path", false),
    ("https://example.com?", false),
    ("https://example.com#", false),
    ("https://example.com\\", false),
    ("https://example.com\\.evil.net", false),
    ("https://example.com@evil.net", false),
    ("https://evil.net@example.com", false),
    ("https://user@example.com", false),
    ("https://user:443@example.com", false),
    ("https://evil.net#@example.com", false),
    ("https://evil.net/https://example.com", false),
    ("https://example.com https://evil.net", false),
    ("https://evil.net https://example.com", false),
    ("https://example.com, https://example.com", false),
    ("https://example.com,", false),
    ("https://example.com;", false),
    ("https://example.com\t", false),
    ("https://exam\tple.com", false),
    ("https://https://example.com", false),
    // Other alphabets and encodings.
    ("https://b\u{fc}cher.example", false),
    ("https://ex\u{e4}mple.com", false),
    ("https://\u{435}xample.com", false), // a Cyrillic e
    ("https://example.\u{441}om", false),
    ("https://\u{ff45}xample.com", false), // a wide e
    ("https://example\u{3002}com", false), // an ideographic full stop
    ("https://exam\u{ad}ple.com", false),  // a soft hyphen
    ("https://e%78ample.com", false),
    ("https://example%2ecom", false),
    ("https://xn--bcher-kva.example.evil.net", false),
    // Addresses.
    ("https://192.0.2.7", false),
    ("https://192.0.2.07:8443", false),
    ("https://3221225991:8443", false), // 192.0.2.7 as one number
    ("https://0xc0000207:8443", false),
    ("https://[::ffff:192.0.2.7]:8443", false),
    ("https://[2001:db8::8]", false),
    ("https://2001:db8::7", false),
    ("https://[2001:db8::7", false),
    ("https://[2001:db8::7]x", false),
    ("https://[2001:db8::7%25eth0]", false),
    ("https://[example.com]", false),
    ("https://[]", false),
    // Wildcards: one label or more, with its scheme and port.
    ("https://a.sub.example.net", true),
    ("https://a.b.c.sub.example.net", true),
    ("https://A.SUB.example.NET:443", true),
    ("https://xn--bcher-kva.sub.example.net", true),
    ("http://x.dev.example.net:3000", true),
    ("https://sub.example.net", false),
    ("https://.sub.example.net", false),
    ("https://a..sub.example.net", false),
    ("https://evilsub.example.net", false),
    ("https://a-sub.example.net", false),
    ("https://a.sub.example.net.evil.net", false),
    ("https://a.sub.example.net.", false),
    ("https://a.sub.example.net:8443", false),
    ("http://a.sub.example.net", false),
    ("http://a.sub.example.net:443", false),
    ("wss://a.sub.example.net", false),
    ("https://*.sub.example.net", false),
    ("https://evil.net/.sub.example.net", false),
    ("https://evil.net#.sub.example.net", false),
    ("https://evil.net:1.sub.example.net", false),
    ("https://evil@a.sub.example.net", false),
    ("http://x.dev.example.net", false),
    // What is not named.
    ("null", false),
    ("NULL", false),
    ("absent", false),
    ("*", false),
    ("", false),
    (" ", false),
    ("https://", false),
    ("file://", false),
    ("about:blank", false),
    ("data:", false),
];

const LIST: &[&str] = &[
    "https://example.com",
    "http://plain.example.com:8080",
    "https://xn--bcher-kva.example",
    "https://[2001:db8::7]",
    "https://192.0.2.7:8443",
    "chrome-extension://abcdefgh",
    "https://*.sub.example.net",
    "http://*.dev.example.net:3000",
];

#[test]
fn lists_admit_what_they_name_and_no_look_alike() {
    let origins = list(LIST);
    for (sent, admitted) in SENT {
        for more in [&[][..], &[("Cookie", "a=b")]] {
            let fields: Vec<_> = [("Origin", *sent)].iter().chain(more).copied().collect();
            assert_eq!(judged(&origins, "example.com", &fields, |_| {}), *admitted, "{sent:?} {more:?}");
        }
        // Two lines, also twice the same.
        let fields = [("Origin", *sent), ("origin", "https://example.com")];
        assert!(!judged(&origins, "example.com", &fields, |_| {}), "{sent:?} twice");
        assert!(judged(&Origins::Any, "example.com", &fields, |_| {}));
    }
    assert!(SENT.len() >= 60);
    assert!(!judged(&origins, "example.com", &[], |_| {}), "absent");
    let long = format!("https://{}.sub.example.net", "a.".repeat(200).trim_end_matches('.'));
    assert!(!judged(&origins, "example.com", &[("Origin", &long)], |_| {}), "longer than a name can be");
    let request = Request {
        is_http10: false,
        method: "GET",
        target: "/",
        path: "/",
        query: "",
        host: "example.com",
        fields: vec![Field { name: "Origin", value: b"https://example.com\xff" }],
    };
    assert_eq!(origins.judge(&Facts::of(&request)), Err(Cause::OriginRefused), "not UTF-8");
}

#[test]
fn null_and_absent_are_admitted_where_they_are_named() {
    for (elements, null, absent) in [
        (&["https://example.com"][..], false, false),
        (&["null"], true, false),
        (&["absent"], false, true),
        (&["https://example.com", "absent", "null"], true, true),
    ] {
        let origins = list(elements);
        assert_eq!(judged(&origins, "example.com", &[("Origin", "null")], |_| {}), null, "{elements:?}");
        assert_eq!(judged(&origins, "example.com", &[], |_| {}), absent, "{elements:?}");
        for other in ["NULL", "Null", "nul", "null ", "\"null\"", "", "absent", "https://null"] {
            assert!(!judged(&origins, "example.com", &[("Origin", other)], |_| {}), "{other:?} {elements:?}");
        }
        assert!(!judged(&origins, "example.com", &[("Origin", "null"), ("Origin", "null")], |_| {}));
    }
}

#[test]
fn a_list_says_what_is_wrong_with_an_element() {
    for (element, why) in [
        ("example.com", "expected for example"),
        ("", "expected for example"),
        ("https://", "expected for example"),
        ("https://*", "expected for example"),
        ("https://*.", "expected for example"),
        ("https://*.*.example.com", "expected for example"),
        ("https://a*.example.com", "expected for example"),
        ("*.example.com", "expected for example"),
        ("https://example.com:99999", "expected for example"),
        ("https://user@example.com", "expected for example"),
        ("Null", "expected for example"),
        ("https://example.com/", "no path"),
        ("https://example.com/chat", "no path"),
        ("https://b\u{fc}cher.example", "Punycode"),
        ("wss://example.com", "use https://"),
        ("ws://*.example.com", "use http://"),
        ("https://*.0.0.1", "not for parts of an address"),
        ("https://*.example.1", "not for parts of an address"),
        ("https://*.[::1]", "not for parts of an address"),
    ] {
        let mut list = OriginList::default();
        let error = list.add(element).unwrap_err();
        assert!(error.contains(why), "{element:?}: {error}");
        assert_eq!(list, OriginList::default());
    }
}

/// Host, Origin, and whether it is the request's own: on a listener without TLS, and with.
const OWN: &[(&str, &str, bool, bool)] = &[
    ("example.com", "https://example.com", true, true),
    ("example.com", "http://example.com", true, false),
    ("EXAMPLE.com", "https://example.COM", true, true),
    ("example.com:443", "https://example.com", true, true),
    ("example.com:80", "http://example.com", true, false),
    ("example.com:80", "https://example.com", false, false),
    ("example.com:443", "http://example.com:443", true, false),
    ("example.com:8080", "http://example.com:8080", true, false),
    ("example.com:8443", "https://example.com:8443", true, true),
    ("example.com:8443", "https://example.com", false, false),
    ("example.com", "https://example.com:8443", false, false),
    ("example.com", "http://example.com:443", false, false),
    ("example.com", "https://example.com:80", false, false),
    ("example.com", "wss://example.com", true, true),
    ("example.com", "ws://example.com", true, false),
    ("example.com", "ftp://example.com", false, false),
    ("example.com.", "https://example.com.", true, true),
    ("example.com.", "https://example.com", false, false),
    ("example.com", "https://example.com.", false, false),
    ("example.com", "https://www.example.com", false, false),
    ("www.example.com", "https://example.com", false, false),
    ("example.com", "https://evilexample.com", false, false),
    ("example.com", "https://example.com.evil.net", false, false),
    ("example.com", "https://example.com@evil.net", false, false),
    ("example.com", "https://example.com/", false, false),
    ("example.com", "null", false, false),
    ("null", "null", false, false),
    ("example.com", "", false, false),
    ("example.com", "example.com", false, false),
    ("", "https://", false, false),
    ("[::1]", "https://[::1]", true, true),
    ("[::1]:8443", "https://[0:0::1]:8443", true, true),
    ("[::1]", "https://[::2]", false, false),
    ("127.0.0.1", "https://localhost", false, false),
    ("under_score", "https://under_score", true, true),
    ("b\u{fc}cher.example", "https://b\u{fc}cher.example", false, false),
];

#[test]
fn requests_with_cookies_must_come_from_their_own_host() {
    for (host, origin, plain, secure) in OWN {
        let fields = [("Cookie", "session=1"), ("Origin", *origin)];
        assert_eq!(judged(&Origins::Own, host, &fields, |_| {}), *plain, "{host} {origin} without TLS");
        let over_tls = |facts: &mut Facts<'_>| facts.secure = true;
        assert_eq!(judged(&Origins::Own, host, &fields, over_tls), *secure, "{host} {origin} with TLS");
        let twice = [fields[0], fields[1], fields[1]];
        assert!(!judged(&Origins::Own, host, &twice, |_| {}), "{host} {origin} twice");
        // Without cookies there is nothing to protect, and without Origin it is no page.
        assert!(judged(&Origins::Own, host, &fields[1..], |_| {}) && judged(&Origins::Own, host, &fields[..1], |_| {}));
        assert!(judged(&Origins::Any, host, &twice, |_| {}));
    }
    let empty = [("COOKIE", ""), ("Origin", "https://evil.net")];
    assert!(!judged(&Origins::Own, "example.com", &empty, |_| {}), "an empty Cookie is one");
}

#[test]
fn a_trusted_proxy_says_which_host_and_scheme_the_client_used() {
    let host = ("X-Forwarded-Host", "example.com");
    let (https, http) = (("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http"));
    for (fields, origin, trusted, stranger) in [
        (&[host][..], "https://example.com", true, false),
        (&[host, https], "https://example.com", true, false),
        (&[host, https], "http://example.com", false, false),
        (&[host, http], "http://example.com", true, false),
        (&[host, http], "https://example.com", false, false),
        (&[("X-Forwarded-Host", "example.com, inner")], "https://example.com", true, false),
        (&[("X-Forwarded-Host", "example.com:8443")], "https://example.com:8443", true, false),
        (&[host], "https://evil.net", false, false),
        // What the request itself says counts as well.
        (&[host], "https://inner", true, true),
        (&[https], "http://inner", false, true),
        (&[http], "https://inner", false, true),
    ] {
        let all: Vec<_> = [("Cookie", "a=b"), ("Origin", origin)].iter().chain(fields).copied().collect();
        for (is_trusted, own) in [(true, trusted), (false, stranger)] {
            let found = judged(&Origins::Own, "inner", &all, |facts| facts.trusted = is_trusted);
            assert_eq!(found, own, "{origin} {fields:?} trusted {is_trusted}");
        }
    }
}
