//! Plain HTTP: `protocols`, `max_body`, `keep_alive` and its timeouts.

use super::{NAME, bad_beside, good, route_of};
use framegate::policy::route::Protocols;
use framegate::policy::upstream::KeepAlive;

#[test]
fn keys_of_plain_http_take_effect() {
    let snapshot = good(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[limits]\nmax_body = \"2MiB\"\n\
         [timeouts]\nkeep_alive = \"5s\"\nrequest_body = \"7s\"\n\
         [[upstream]]\nname = \"app\"\nendpoints = [\"http://10.0.0.1\", \"https://app.internal/base\"]\n\
         keep_alive = { connections = 5, idle = \"2s\", age = \"1m\" }\n\
         [[route]]\npath = \"/a\"\nupstream = \"app\"\nprotocols = [\"http\"]\nlimits = { max_body = \"1KiB\" }\n\
         timeouts = { request_body = \"9s\", first_byte = \"8s\" }\n\
         [[route]]\npath = \"/b\"\nupstream = \"ws://10.0.0.2\"\nprotocols = [\"websocket\"]\n\
         [[route]]\npath = \"/c\"\nupstream = \"ws://10.0.0.2\"\nprotocols = [\"http\", \"websocket\"]\n",
    );
    let route = |path: &str| route_of(&snapshot.routes, "any.host", path).unwrap();
    assert_eq!((snapshot.settings.timeouts.keep_alive_ms, snapshot.settings.timeouts.request_body_ms), (5_000, 7_000));
    let (a, b) = (route("/a"), route("/b"));
    assert_eq!((a.settings.max_body, a.settings.timeouts.request_body_ms), (1024, 9_000));
    let first_bytes = [&a, &b].map(|route| route.settings.timeouts.first_byte_ms);
    assert_eq!(first_bytes, [8_000, 120_000]);
    assert_eq!((b.settings.max_body, b.settings.timeouts.request_body_ms), (2 << 20, 7_000));
    assert_eq!(a.protocols, Protocols { websocket: false, http: true });
    assert_eq!(b.protocols, Protocols { websocket: true, http: false });
    assert_eq!(route("/c").protocols, Protocols::default());
    let upstream = &a.upstreams()[0];
    assert_eq!(upstream.rules.keep_alive, KeepAlive { connections: 5, idle_ms: 2_000, age_ms: 60_000 });
    let members = upstream.members();
    assert_eq!(members.iter().map(|member| member.endpoint.tls).collect::<Vec<_>>(), [false, true]);
    assert_eq!(b.upstreams()[0].rules.keep_alive, KeepAlive::default());
    let text = snapshot.describe(4096, 1);
    assert!(
        text.contains("/a -> app, plain HTTP alone, framed") && text.contains("/b -> ws://10.0.0.2, WebSocket alone,"),
        "{text}"
    );
    assert!(text.contains("/c -> ws://10.0.0.2, framed"), "{text}");
}

#[test]
fn errors_name_their_place_and_what_is_right() {
    let none = "takes nothing; expected \"websocket\", \"http\" or both";
    let body = "\"1 KiB and more\" is not a size; expected for example \"64 KiB\" or \"1 MiB\"";
    for (more, place, rest) in [
        ("protocols = []\n", "5:13: route.protocols", none),
        ("protocols = [\"ws\"]\n", "5:14: route.protocols", "\"ws\" is not valid; expected \"websocket\" or \"http\""),
        ("protocols = \"http\"\n", "5:13: route.protocols", "not a list; use protocols = [\"...\"]"),
        (
            "limits = { max_body = 0 }\n",
            "5:23: route.limits.max_body",
            "0 is out of range; expected \"1 B\" to \"9223372036854775807 B\"",
        ),
        ("limits = { max_body = \"1 KiB and more\" }\n", "5:23: route.limits.max_body", body),
        (
            "timeouts = { keep_alive = \"1s\" }\n",
            "5:27: route.timeouts.keep_alive",
            "applies before a route is selected; set it in [timeouts]",
        ),
    ] {
        let told = bad_beside(more);
        assert_eq!(told.first().map(String::as_str), Some(format!("{NAME}:{place}: {rest}").as_str()), "{told:#?}");
    }
}
