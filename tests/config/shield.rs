//! `[shield]`: what its keys mean, what `check` says of them, and what is wrong with a line.

use super::{NAME, bad_beside, good_beside};
use framegate::policy::block::{BlockRules, Prefixes};
use framegate::policy::shield::Shield;
use framegate::proto::rate::Rate;

#[test]
fn keys_take_effect_and_trusted_proxies_are_exempt() {
    let snapshot = good_beside(
        "[[listener]]\nlisten = \"0.0.0.0:8081\"\ntrusted_proxies = [\"192.0.2.0/24\"]\n\
         [shield]\nwork = 64\nqueue = 100\nwait = \"1s\"\nretry_after = \"1m\"\nipv4_prefix = 24\nipv6_prefix = 48\n\
         cookies = [\"session\", \"id\"]\n\
         block = { failures = \"5/10s\", first = \"30s\", longest = \"2h\", entries = 1000, exempt = [\"10.0.0.0/8\"] }\n",
    );
    let Shield { work, queue, wait_ms, retry_after_ms, prefixes, cookies, blocks } = &snapshot.shield;
    assert_eq!((*work, *queue, *wait_ms, *retry_after_ms), (64, 100, 1_000, 60_000));
    assert_eq!((prefixes, cookies.join(" ").as_str()), (&Prefixes { ipv4: 24, ipv6: 48 }, "session id"));
    let rules = &blocks.as_ref().unwrap().rules;
    let networks = ["10.0.0.0/8", "192.0.2.0/24"].map(|network| network.parse().unwrap());
    let expected = BlockRules {
        failures: Rate { units: 5, period_ms: 10_000 },
        first_ms: 30_000,
        longest_ms: 7_200_000,
        entries: 1_000,
        prefixes: *prefixes,
        exempt: networks.into_iter().collect(),
    };
    assert_eq!(*rules, expected);
    let told = snapshot.describe(4096, 2);
    for line in [
        "shield     handshake work 64 in a pass, by address (IPv4 /24, IPv6 /48), first TLS tickets, sticky cookies, \
         cookies session, id",
        "           100 wait for 1s, others get 503 with Retry-After 1m to 2m; 5/10s failures block an address \
         for 30s, up to 2h, 2 networks never",
        "   284.5 KiB  100 handshakes in the queues of workers, and all others by address",
        "    39.1 KiB  1000 addresses that failed, 40 B each",
    ] {
        assert!(told.contains(&format!("{line}\n")), "{line}\nin\n{told}");
    }
}

#[test]
fn by_default_handshakes_are_fair_and_no_address_is_blocked() {
    let snapshot = good_beside("");
    assert_eq!(snapshot.shield, Shield::default());
    let told = snapshot.describe(4096, 1);
    for line in [
        "shield     handshake work 32 in a pass, by address (IPv4 /32, IPv6 /64), first TLS tickets, sticky \
         cookies",
        "           4096 wait for 3s, others get 503 with Retry-After 5s to 10s; no address is blocked",
    ] {
        assert!(told.contains(&format!("{line}\n")), "{line}\nin\n{told}");
    }
    assert!(good_beside("[shield]\nblock = { failures = \"off\" }\n").shield.blocks.is_none());
    // A longest block below the usual first one lowers that.
    let short = good_beside("[shield]\nblock = { failures = \"2/s\", longest = \"5s\" }\n");
    assert_eq!(short.shield.blocks.unwrap().rules.first_ms, 5_000);
}

#[test]
fn what_is_wrong_is_said_where_it_is() {
    for (line, place, rest) in [
        ("work = 0", "6:8: shield.work", "0 is not valid; expected a number from 1 to 65536"),
        ("queue = \"many\"", "6:9: shield.queue", "\"many\" is not valid; expected a number from 1 to 1000000"),
        ("wait = \"1\"", "6:8: shield.wait", "\"1\" is not a duration; expected for example \"30s\" or \"5m\""),
        ("retry_after = \"2h\"", "6:15: shield.retry_after", "\"2h\" is out of range; expected \"1s\" to \"1h\""),
        ("ipv4_prefix = 4", "6:15: shield.ipv4_prefix", "4 is not valid; expected a number from 8 to 32"),
        ("ipv6_prefix = 129", "6:15: shield.ipv6_prefix", "129 is not valid; expected a number from 16 to 128"),
        ("cookies = [\"a b\"]", "6:12: shield.cookies", "\"a b\" is not a name for a cookie"),
        ("block = {}", "6:9: shield.block.failures", "missing; expected for example \"20/60s\", or \"off\""),
        (
            "block = { failures = \"20\" }",
            "6:22: shield.block.failures",
            "\"20\" is not a rate: it has no period; expected for example \"100/60s\", or \"off\"",
        ),
        (
            "block = { failures = \"2/s\", first = \"2h\" }",
            "6:37: shield.block.first",
            "2h exceeds longest (1h); lower it, or raise longest",
        ),
        (
            "block = { failures = \"2/s\", entries = 1 }",
            "6:39: shield.block.entries",
            "1 is not valid; expected a number from 64 to 16777216",
        ),
        (
            "block = { failures = \"2/s\", exempt = [\"office\"] }",
            "6:39: shield.block.exempt",
            "\"office\" is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"",
        ),
        ("blocks = {}", "6:1: shield.blocks", "unknown key; did you mean \"block\"?"),
    ] {
        let told = bad_beside(&format!("[shield]\n{line}\n"));
        assert_eq!(told, [format!("{NAME}:{place}: {rest}")], "{line}");
    }
}
