use super::*;
use crate::proto::end::CAUSES;
use std::collections::BTreeSet;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
/// A moment of the monotonic clock.
const NOW: Millis = 10 * HOUR;

fn rules(units: u64, entries: usize) -> BlockRules {
    BlockRules {
        failures: Rate { units, period_ms: MINUTE },
        first_ms: 10_000,
        longest_ms: HOUR,
        entries,
        prefixes: Prefixes { ipv4: 32, ipv6: 64 },
        exempt: ["10.1.0.0/16".parse().unwrap()].into_iter().collect(),
    }
}

fn client(n: u32) -> IpAddr {
    IpAddr::from((0xc000_0200_u32 + n).to_be_bytes())
}

fn fail(blocks: &Blocks, address: IpAddr, times: u64, now: Millis) -> Vec<Option<Millis>> {
    (0..times).map(|_| blocks.failed(address, now)).collect()
}

#[test]
fn the_last_failure_of_too_many_blocks_and_no_other_address() {
    let blocks = Blocks::new(rules(5, 64));
    assert_eq!(fail(&blocks, client(1), 5, NOW), [None, None, None, None, Some(10_000)]);
    assert_eq!(blocks.left(client(1), NOW), Some(10_000));
    assert_eq!(blocks.left(client(1), NOW + 9_999), Some(1));
    assert_eq!((blocks.left(client(1), NOW + 10_000), blocks.left(client(2), NOW)), (None, None));
    assert_eq!(blocks.count(), 1);
    // Those under way when it was blocked neither count nor prolong it.
    assert_eq!(fail(&blocks, client(1), 50, NOW + 5_000), [None; 50]);
    assert_eq!(blocks.left(client(1), NOW + 5_000), Some(5_000));
}

#[test]
fn failures_that_are_rare_enough_never_block() {
    let blocks = Blocks::new(rules(5, 64));
    // One each 12 s is what 5 in a minute allow.
    for n in 0..1_000 {
        assert_eq!(blocks.failed(client(1), NOW + n * 12_000), None);
    }
    // A little more often does, after a while.
    let after = (0..1_000).position(|n| blocks.failed(client(2), NOW + n * 11_000).is_some());
    assert!(after.is_some_and(|n| (5..100).contains(&n)), "{after:?}");
}

#[test]
fn blocks_grow_up_to_the_longest_and_a_quiet_time_forgets() {
    let blocks = Blocks::new(rules(3, 64));
    let mut now = NOW;
    for expected in [10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600, 3_600] {
        let block = fail(&blocks, client(1), 3, now);
        assert_eq!(block, [None, None, Some(expected * 1_000)]);
        assert_eq!(blocks.list(now)[0].left_ms, expected * 1_000);
        now += expected * 1_000;
    }
    assert_eq!(blocks.count(), 12);
    // Nearly an hour later it is known as before, and that is a failure that counts again.
    now += HOUR - 1;
    assert_eq!(fail(&blocks, client(1), 3, now), [None, None, Some(HOUR)]);
    assert_eq!(blocks.list(now)[0].blocks, 13);
    now += 2 * HOUR;
    assert_eq!(fail(&blocks, client(1), 3, now), [None, None, Some(10_000)]);
    assert_eq!(blocks.list(now)[0].blocks, 1);
}

#[test]
fn addresses_count_by_their_prefix() {
    let blocks = Blocks::new(BlockRules { prefixes: Prefixes { ipv4: 24, ipv6: 48 }, ..rules(2, 64) });
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    blocks.failed(address("2001:db8:1:1::1"), NOW);
    blocks.failed(address("2001:db8:1:ffff::2"), NOW);
    blocks.failed(address("198.51.100.1"), NOW);
    // An IPv4-mapped address is the same one.
    blocks.failed(address("::ffff:198.51.100.200"), NOW);
    for (text, blocked) in [
        ("2001:db8:1::9", true),
        ("2001:db8:2::9", false),
        ("198.51.100.77", true),
        ("::ffff:198.51.100.1", true),
        ("198.51.101.1", false),
    ] {
        assert_eq!(blocks.left(address(text), NOW).is_some(), blocked, "{text}");
    }
    let networks: BTreeSet<_> = blocks.list(NOW).into_iter().map(|one| one.network.to_string()).collect();
    assert_eq!(networks.iter().map(String::as_str).collect::<Vec<_>>(), ["198.51.100.0/24", "2001:db8:1::/48"]);
}

#[test]
fn the_exempt_are_never_blocked_also_if_they_become_it_later() {
    let proxy = IpAddr::from([10, 1, 2, 3]);
    let blocks = Blocks::new(rules(2, 64));
    assert_eq!(fail(&blocks, proxy, 100, NOW), [None; 100]);
    assert_eq!((blocks.left(proxy, NOW), blocks.list(NOW)), (None, Vec::new()));
    fail(&blocks, client(1), 2, NOW);
    assert!(blocks.left(client(1), NOW).is_some());
    let after = Blocks::new(BlockRules { exempt: [client(1).into()].into_iter().collect(), ..rules(2, 64) });
    after.inherit(&blocks);
    assert_eq!((after.left(client(1), NOW), after.list(NOW)), (None, Vec::new()));
}

#[test]
fn a_reload_keeps_blocks_and_a_lifted_one_is_forgotten() {
    let before = Blocks::new(rules(2, 64));
    fail(&before, client(1), 2, NOW);
    let after = Blocks::new(BlockRules { first_ms: 5, ..rules(9, 64) });
    after.inherit(&before);
    assert_eq!(after.left(client(1), NOW), Some(10_000));
    assert!(after.lift(client(1), NOW) && !after.lift(client(1), NOW) && !after.lift(client(2), NOW));
    assert_eq!(after.left(client(1), NOW), None);
    // The next block is its first again.
    assert_eq!(fail(&after, client(1), 9, NOW).last(), Some(&Some(5)));
    let other = Blocks::new(rules(2, 128));
    other.inherit(&after);
    assert_eq!(other.left(client(1), NOW), None, "a table of another size begins anew");
}

#[test]
fn a_full_table_keeps_the_blocked_and_forgets_who_was_quiet_longest() {
    let blocks = Blocks::new(rules(2, WAYS));
    (0..8).for_each(|n| assert_eq!(fail(&blocks, client(n), 2, NOW), [None, Some(10_000)]));
    // No place: not counted, and none is unblocked for it.
    assert_eq!(fail(&blocks, client(100), 5, NOW + 1), [None; 5]);
    assert_eq!(blocks.overflows(), 5);
    assert!((0..8).all(|n| blocks.left(client(n), NOW + 1).is_some()));
    // Once a block is over its place can be had.
    assert_eq!(fail(&blocks, client(100), 2, NOW + 10_000), [None, Some(10_000)]);
    // Of two that are not blocked, the one that has been quiet for longer goes.
    let blocks = Blocks::new(rules(3, WAYS));
    assert!((0..8).all(|n| blocks.failed(client(n), NOW + u64::from(n)).is_none()));
    blocks.failed(client(100), NOW + 100);
    blocks.failed(client(0), NOW + 100);
    // It was the first, so it is counted from the start: two more do not block it, one later.
    assert_eq!(fail(&blocks, client(0), 2, NOW + 100), [None, Some(10_000)]);
    assert_eq!(fail(&blocks, client(7), 2, NOW + 100), [None, Some(10_000)], "this one was kept");
}

#[test]
fn what_it_holds_is_bounded() {
    let blocks = Blocks::new(rules(2, 1_024));
    for n in 0..100_000 {
        blocks.failed(client(n), NOW + u64::from(n));
        blocks.failed(client(n), NOW + u64::from(n));
    }
    let table = blocks.table.load();
    assert_eq!(table.places.len(), 1_024);
    assert!(blocks.list(NOW + 100_000).len() <= 1_024 && !blocks.list(NOW + 100_000).is_empty());
    assert_eq!(PLACE_BYTES, 40);
}

#[test]
fn workers_together_block_once() {
    let blocks = Blocks::new(rules(1_000, 64));
    let blocked: usize = std::thread::scope(|scope| {
        let count = || fail(&blocks, client(1), 500, NOW).iter().flatten().count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((blocked, blocks.count()), (1, 1));
    assert_eq!(blocks.list(NOW).len(), 1);
}

/// Who is to be blocked for what is a promise of the manual.
#[test]
fn failures_are_these() {
    let names: Vec<_> = CAUSES.iter().filter(|info| is_failure(info.cause)).map(|info| info.name).collect();
    let expected = "tls-malformed tls-bad-record tls-misbehaved malformed-head head-too-large too-many-fields \
                    bad-host bad-target bad-key protected-header bad-credentials mask-bit reserved-opcode \
                    reserved-bits continuation control-fragmented control-too-long length-encoding close-payload \
                    close-code data-after-close";
    assert_eq!(names.join(" "), expected);
    let end = |party, phase, cause| End { party, phase, cause };
    assert!(is_violation(end(Party::Downstream, Phase::Open, Cause::MaskBit)));
    assert!(!is_violation(end(Party::Upstream, Phase::Open, Cause::MaskBit)));
    assert!(!is_violation(end(Party::Downstream, Phase::Open, Cause::Close)));
    assert!(!is_violation(end(Party::Downstream, Phase::Request, Cause::MalformedHead)), "a refusal has told");
}
