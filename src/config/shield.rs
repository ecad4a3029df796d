//! `[shield]`: handshakes beyond what a worker can serve, and addresses that fail too often.

use super::Listener;
use super::build::Builder;
use super::file::{self, Block, Section};
use super::flow::rate;
use super::upstreams::cookie_name;
use super::value::{self, duration_text};
use crate::memory::{HALF_OPEN_PLACE_BYTES, HANDSHAKE_LANES_BYTES, HANDSHAKE_PLACE_BYTES};
use crate::policy::block::{BlockRules, Blocks, PLACE_BYTES, Prefixes};
use crate::policy::networks::Networks;
use crate::policy::shield::Shield;
use crate::proto::rate::{Measure, Rate};
use ipnet::IpNet;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Value;

const WORK: RangeInclusive<u64> = 1..=65_536;
const QUEUE: RangeInclusive<u64> = 1..=1_000_000;
const RETRY_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// A smaller one would be a whole provider.
const IPV4_PREFIX: RangeInclusive<u64> = 8..=32;
const IPV6_PREFIX: RangeInclusive<u64> = 16..=128;
const BLOCK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);
const FIRST_MS: u64 = 10_000;
const LONGEST_MS: u64 = 3_600_000;
const ENTRIES: RangeInclusive<u64> = 64..=16_777_216;
const ENTRIES_DEFAULT: u64 = 65_536;
const NO_FAILURES: &str = "missing; expected for example \"20/60s\", or \"off\"";

impl Builder<'_, '_> {
    pub fn shield(&mut self, typed: &file::Shield, listeners: &[Listener]) -> Shield {
        let default = Shield::default();
        let bits = |range| move |v: &Value| value::number(v, range).map(|bits| bits as u8);
        let prefixes = Prefixes {
            ipv4: self.take("shield.ipv4_prefix", &typed.ipv4_prefix, default.prefixes.ipv4, bits(IPV4_PREFIX)),
            ipv6: self.take("shield.ipv6_prefix", &typed.ipv6_prefix, default.prefixes.ipv6, bits(IPV6_PREFIX)),
        };
        let blocks = typed.block.as_ref().and_then(|section| self.block(section, prefixes, listeners));
        let number = |range| move |v: &Value| value::number(v, range);
        let retry_after = |v: &Value| value::duration(v, RETRY_AFTER, "");
        Shield {
            work: self.take("shield.work", &typed.work, u64::from(default.work), number(WORK)) as u32,
            queue: self.take("shield.queue", &typed.queue, default.queue as u64, number(QUEUE)) as usize,
            wait_ms: self.take("shield.wait", &typed.wait, default.wait_ms, value::timeout),
            retry_after_ms: self.take("shield.retry_after", &typed.retry_after, default.retry_after_ms, retry_after),
            prefixes,
            cookies: self.list("shield.cookies", &typed.cookies, cookie_name),
            blocks,
        }
    }

    fn block(&mut self, section: &Section<Block>, prefixes: Prefixes, listeners: &[Listener]) -> Option<Blocks> {
        let typed = section.get_ref();
        if typed.failures.is_none() {
            self.problems.add(section.span(), "shield.block.failures", NO_FAILURES);
        }
        let failures = |v: &Value| rate(v, Measure::Messages);
        let failures = self.read("shield.block.failures", &typed.failures, failures).flatten();
        let time = |v: &Value| value::duration(v, BLOCK, "");
        let longest_ms = self.take("shield.block.longest", &typed.longest, LONGEST_MS, time);
        let first_ms = self.take("shield.block.first", &typed.first, FIRST_MS.min(longest_ms), time);
        if let (true, Some(at)) = (first_ms > longest_ms, &typed.first) {
            let (first, longest) = (duration_text(first_ms), duration_text(longest_ms));
            let why = format!("{first} exceeds longest ({longest}); lower it, or raise longest");
            self.problems.add(at.span(), "shield.block.first", &why);
        }
        let entries = |v: &Value| value::number(v, ENTRIES);
        let entries = self.take("shield.block.entries", &typed.entries, ENTRIES_DEFAULT, entries) as usize;
        let exempt = self.list("shield.block.exempt", &typed.exempt, value::network);
        // A proxy whose clients fail is not at fault, and all others come through it.
        let proxies = listeners.iter().flat_map(|listener| listener.trusted_proxies.iter().copied());
        let exempt: Networks<()> = exempt.into_iter().chain(proxies).collect::<Vec<IpNet>>().into_iter().collect();
        Some(Blocks::new(BlockRules { failures: failures?, first_ms, longest_ms, entries, prefixes, exempt }))
    }
}

/// What `check` says of it: the lines behind `shield`.
pub fn describe(shield: &Shield) -> [String; 2] {
    let Shield { work, queue, wait_ms, retry_after_ms, prefixes: Prefixes { ipv4, ipv6 }, cookies, blocks } = shield;
    let (wait, least, most) =
        (duration_text(*wait_ms), duration_text(*retry_after_ms), duration_text(2 * retry_after_ms));
    let named = if cookies.is_empty() { String::new() } else { format!(", cookies {}", cookies.join(", ")) };
    let block = blocks.as_ref().map_or("no address is blocked".to_owned(), |blocks| {
        let BlockRules { failures: Rate { units, period_ms }, first_ms, longest_ms, exempt, .. } = &blocks.rules;
        let (period, first, longest) =
            (duration_text(*period_ms), duration_text(*first_ms), duration_text(*longest_ms));
        let but = if exempt.is_empty() { String::new() } else { format!(", {} networks never", exempt.len()) };
        format!("{units}/{period} failures block an address for {first}, up to {longest}{but}")
    });
    [
        format!(
            "handshake work {work} in a pass, by address (IPv4 /{ipv4}, IPv6 /{ipv6}), first TLS tickets, sticky \
             cookies{named}"
        ),
        format!("{queue} wait for {wait}, others get 503 with Retry-After {least} to {most}; {block}"),
    ]
}

/// The memory that it takes in the worst case.
pub fn memory(shield: &Shield, workers: usize, handshakes: usize) -> Vec<(usize, String)> {
    let half_open = handshakes.saturating_mul(HALF_OPEN_PLACE_BYTES);
    let places = shield.queue.saturating_mul(HANDSHAKE_PLACE_BYTES).saturating_add(half_open);
    let lanes = workers.saturating_mul(HANDSHAKE_LANES_BYTES);
    let mut rows = vec![(
        places.saturating_add(lanes),
        format!("{} handshakes in the queues of workers, and all others by address", shield.queue),
    )];
    if let Some(blocks) = &shield.blocks {
        let entries = blocks.rules.entries;
        let what = format!("{entries} addresses that failed, {PLACE_BYTES} B each");
        rows.push((entries.saturating_mul(PLACE_BYTES), what));
    }
    rows
}
