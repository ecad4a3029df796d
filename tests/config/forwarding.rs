//! Who the client is: the PROXY protocol and the forwarding headers, and what is wrong with their
//! keys.

use super::{NAME, bad, bad_beside, good};
use framegate::proto::handshake::ForwardingHeaders;
use framegate::proto::proxy_protocol::Version;

const ROUTE: &str = "[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";

#[test]
fn keys_take_effect_and_show_in_check() {
    let text = "[[listener]]\nlisten = \"0.0.0.0:8080\"\nproxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
                [[listener]]\nlisten = \"0.0.0.0:8081\"\n\
                [[route]]\nupstream = \"one\"\nforwarding_headers = \"both\"\n\
                [[route]]\npath = \"/two\"\nupstream = \"two\"\nforwarding_headers = \"forwarded\"\n\
                [[route]]\npath = \"/three\"\nupstream = \"three\"\nforwarding_headers = \"x-forwarded\"\n\
                [[upstream]]\nname = \"one\"\nendpoints = [\"ws://a\"]\nproxy_protocol = \"v1\"\n\
                [[upstream]]\nname = \"two\"\nendpoints = [\"wss://b\"]\nproxy_protocol = \"v2\"\n\
                [[upstream]]\nname = \"three\"\nendpoints = [\"ws://c\"]\nproxy_protocol = \"off\"\n";
    let snapshot = good(text);
    assert_eq!([0, 1].map(|n| snapshot.listeners[n].proxy_protocol), [true, false]);
    let versions: Vec<_> = snapshot.upstreams.iter().map(|upstream| upstream.rules.proxy_protocol).collect();
    assert_eq!(versions, [Some(Version::V1), Some(Version::V2), None]);
    let headers = |name: &str| {
        let entries = snapshot.routes.entries().iter();
        let mut of = entries.filter(|entry| entry.route.name.ends_with(name));
        of.next().unwrap().route.forwarding_headers
    };
    assert_eq!(headers("*"), ForwardingHeaders::Both);
    assert_eq!(headers("two"), ForwardingHeaders::Forwarded);
    assert_eq!(headers("three"), ForwardingHeaders::XForwarded);
    let text = snapshot.describe(4096, 1);
    for line in [
        "listener   0.0.0.0:8080, only with a PROXY header, trusts 10.0.0.0/8\n",
        "listener   0.0.0.0:8081\n",
        ", sends Forwarded and X-Forwarded-For\n",
        ", sends Forwarded instead of X-Forwarded-For\n",
        "  one: ws://a, PROXY header v1\n",
        "  two: wss://b, PROXY header v2\n",
        "  three: ws://c\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
}

#[test]
fn who_is_trusted_may_connect() {
    let listener = |keys: &str| {
        let text = format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{keys}\n{ROUTE}");
        good(&text).listeners.remove(0)
    };
    let may = |keys: &str| {
        ["10.1.2.3", "::ffff:10.1.2.3", "11.1.2.3"].map(|peer| listener(keys).may_connect(peer.parse().unwrap()))
    };
    let trusted = "trusted_proxies = [\"10.0.0.0/8\"]";
    assert_eq!(may(&format!("{trusted}\nproxy_protocol = true")), [true, true, false]);
    assert_eq!(may(&format!("{trusted}\nproxy_protocol = false")), [true; 3]);
    assert_eq!(may(""), [true; 3]);
}

#[test]
fn headers_of_everybody_are_refused() {
    let why = "requires trusted_proxies, the only peers whose PROXY header is believed; add for example \
               trusted_proxies = [\"10.0.0.0/8\"]";
    for (keys, at) in [("proxy_protocol = true", "3:18"), ("trusted_proxies = []\nproxy_protocol = true", "4:18")] {
        let errors = bad(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{keys}\n{ROUTE}"));
        assert_eq!(errors, [format!("{NAME}:{at}: listener.proxy_protocol: {why}")], "{keys}");
    }
}

#[test]
fn wrong_values_are_named() {
    let listener = |value: &str| {
        let keys = format!("trusted_proxies = [\"::1\"]\nproxy_protocol = {value}");
        bad(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n{keys}\n{ROUTE}"))
    };
    let why = "is not a boolean; expected true or false, without quotes";
    assert_eq!(listener("\"v2\""), [format!("{NAME}:4:18: listener.proxy_protocol: \"v2\" {why}")]);
    assert_eq!(listener("1"), [format!("{NAME}:4:18: listener.proxy_protocol: 1 {why}")]);
    for value in ["\"v3\"", "true", "2"] {
        let text = format!("[[upstream]]\nname = \"a\"\nendpoints = [\"ws://a\"]\nproxy_protocol = {value}\n");
        let right = "did you mean \"v1\" or \"v2\"?";
        let expected = format!("{NAME}:8:18: upstream.proxy_protocol: {value} is not valid; {right}");
        assert_eq!(bad_beside(&text), [expected]);
    }
    let errors = bad_beside("forwarding_headers = \"rfc7239\"\n");
    let right = "expected \"x-forwarded\", \"forwarded\" or \"both\"";
    assert_eq!(errors, [format!("{NAME}:5:22: route.forwarding_headers: \"rfc7239\" is not valid; {right}")]);
    let errors = bad_beside("forwarding_headers = \"forwarder\"\n");
    assert_eq!(
        errors,
        [format!("{NAME}:5:22: route.forwarding_headers: \"forwarder\" is not valid; did you mean \"forwarded\"?")]
    );
}
