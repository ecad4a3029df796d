//! Shadows: their keys, their limits, and what is wrong with a line.

use super::{NAME, bad_beside, good_beside};

/// As `WRONG` in the parent.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "shadow = { upstream = \"ap\", percent = 10 }\n",
        "5:23: route.shadow.upstream",
        "no [[upstream]] is named \"ap\"; add an [[upstream]] section with that name, or use a URL such as \
         \"ws://10.0.0.1:9000\"",
    ),
    (
        "shadow = { percent = 10 }\n",
        "5:10: route.shadow.upstream",
        "missing; expected the name of an [[upstream]] or a URL such as \"ws://10.0.0.9:9000\"",
    ),
    (
        "shadow = { upstream = \"ws://10.0.0.9:1\" }\n",
        "5:10: route.shadow.percent",
        "missing; add the share of sessions, for example percent = 10",
    ),
    (
        "shadow = { upstream = \"ws://10.0.0.9:1\", percent = 0.001 }\n",
        "5:52: route.shadow.percent",
        "0.001 is not valid; expected a number from 0.01 to 100, with at most two decimal places",
    ),
    (
        "shadow = { upstream = \"ws://10.0.0.9:1\", percent = 1, buffer = \"1KiB\" }\n",
        "5:64: route.shadow.buffer",
        "\"1KiB\" is out of range; expected \"16 KiB\" to \"64 MiB\"",
    ),
    (
        "splice = \"on\"\nshadow = { upstream = \"ws://10.0.0.9:1\", percent = 1 }\n",
        "6:10: route.shadow",
        "requires splice = \"off\": what the kernel forwards is not seen here",
    ),
    ("[limits]\nmax_shadows = 0\n", "6:15: limits.max_shadows", "0 is not valid; expected a number from 1 to 1000000"),
    (
        "shadow = { upstream = \"ws://10.0.0.9:1\", percent = 1, buffer = \"1MiB\" }\n\
         [limits]\nshadow_buffers = \"512KiB\"\n",
        "7:18: limits.shadow_buffers",
        "512 KiB is less than the buffer of one shadow (1 MiB); raise it, or lower that",
    ),
];

#[test]
fn what_is_wrong_is_said_where_it_is() {
    for (more, place, rest) in WRONG {
        let told = bad_beside(more);
        assert_eq!(told, [format!("{NAME}:{place}: {rest}")], "{more}");
    }
    let unknown = bad_beside("shadow = { upstream = \"ws://10.0.0.9:1\", percent = 1, sticky = true }\n");
    assert!(unknown[0].contains("sticky") && unknown[0].contains("unknown key"), "{unknown:?}");
}

#[test]
fn shadows_count_where_a_route_has_one() {
    let limits = "[limits]\nmax_shadows = 100\nshadow_buffers = \"1MiB\"\n";
    let without = good_beside(limits);
    assert_eq!((without.limits.max_shadows, without.limits.shadow_buffer_bytes), (0, 0));
    assert_eq!(without.limits.resolve(1024).max_sessions, 320);
    let text = without.describe(4096, 1);
    assert!(!text.contains("shadow"), "{text}");

    let shadow = "shadow = { upstream = \"ws://10.0.0.9:1\", percent = 0.5, buffer = \"64KiB\" }\n";
    let with = good_beside(&format!("{shadow}{limits}"));
    assert_eq!((with.limits.max_shadows, with.limits.shadow_buffer_bytes), (100, 1 << 20));
    assert_eq!(with.limits.resolve(1024).max_sessions, 270);
    let route = &with.routes.entries()[0].route;
    let shadow_of = route.shadow.as_ref().unwrap();
    assert_eq!((shadow_of.share, shadow_of.buffer_bytes), (50, 64 << 10));
    let text = with.describe(4096, 1);
    for line in [
        ", 0.5 % shadowed to ws://10.0.0.9:1, 64 KiB buffered",
        "\n  ws://10.0.0.9:1\n",
        "\n     1.0 MiB  buffers for shadows, all workers together\n",
        "\n     3.7 MiB  100 shadows, two heads of 16 KiB each, and 4 KiB in the kernel\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let secure = shadow.replace("ws://", "wss://");
    let text = good_beside(&format!("{secure}{limits}")).describe(4096, 1);
    assert!(text.contains("\n     3.6 MiB  100 TLS connections with shadows, 37 KiB each\n"), "{text}");
    let errors = good_beside(&format!("{shadow}[limits]\nmax_shadows = 700\n")).resource_errors(1024, 1);
    let right =
        "which leaves no descriptors for sessions; raise it or lower limits.max_handshakes or limits.max_shadows";
    assert!(errors[0].ends_with(right), "{errors:?}");
    let few = format!("{shadow}[limits]\nmax_sessions = 320\nmax_handshakes = 128\nmax_shadows = 321\n");
    let errors = good_beside(&few).resource_errors(1024, 1);
    assert!(errors[0].contains("320 sessions, 321 shadows and 128 handshakes need 1345 descriptors"), "{errors:?}");
    let errors = good_beside(&format!("{shadow}{limits}")).resource_errors(4096, 5);
    assert_eq!(errors, ["limits.shadow_buffers: 1 MiB is too small for 5 workers; expected at least \"1280 KiB\""]);
}
