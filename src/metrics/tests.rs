//! The table, the tally and the text together.

use super::cells::Cells;
use super::table::{CELLS, METRICS};
use super::text::Kind::Counter;
use super::*;
use crate::proto::Side;
use crate::proto::end::{Cause, End, Party, Phase};
use crate::proto::frame::opcode;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Every cell has a different value, which reveals a wrong order.
fn distinct(seed: u64) -> Tally {
    let mut tally = Tally::default();
    let mut next = seed;
    tally.each_cell_mut(&mut |value| {
        next += 1;
        *value = next;
    });
    tally
}

fn ended(phase: Phase, party: Party, cause: Cause) -> End {
    End { party, phase, cause }
}

#[test]
fn every_integer_of_a_tally_is_visited_once() {
    let mut seen = 0;
    distinct(0).each_cell(&mut |_| seen += 1);
    assert_eq!(seen, CELLS);
    let mut values = BTreeSet::new();
    distinct(0).each_cell(&mut |value| assert!(values.insert(value)));
}

#[test]
fn a_published_tally_reads_back_from_a_cache_line_of_its_own() {
    let shard = Shard::default();
    assert_eq!(shard.read(), Tally::default());
    distinct(7).publish(&shard);
    assert_eq!(shard.read(), distinct(7));
    assert_eq!(align_of::<Shard>(), 128);
    assert_eq!(size_of::<Shard>() % 128, 0);
}

fn sum(cells: &impl Cells) -> u64 {
    let mut sum = 0;
    cells.each_cell(&mut |value| sum += value);
    sum
}

fn balanced(tally: &Tally) {
    let refused = sum(&tally.refused);
    let ended = sum(&tally.ended);
    assert_eq!(tally.accepted, tally.handshakes_ok + refused + tally.handshakes);
    assert_eq!(tally.handshakes_ok, ended + tally.sessions);
}

#[test]
fn every_connection_is_counted_at_each_step() {
    let mut tally = Tally::default();
    for _ in 0..5 {
        tally.accepted();
    }
    for _ in 0..3 {
        tally.opened();
    }
    tally.ended(ended(Phase::Request, Party::Downstream, Cause::NoRoute));
    tally.ended(ended(Phase::Open, Party::Upstream, Cause::Close));
    assert_eq!((tally.sessions, tally.handshakes), (2, 1));
    assert_eq!(tally.refused[Cause::NoRoute], 1);
    assert_eq!(tally.ended[Cause::Close], [0, 1, 0]);
    balanced(&tally);

    tally.backlog_bytes = 77;
    tally.sessions_lost();
    assert_eq!((tally.sessions, tally.handshakes, tally.backlog_bytes), (0, 0, 0));
    assert_eq!(tally.ended[Cause::WorkerPanic], [0, 0, 2]);
    assert_eq!(tally.refused[Cause::WorkerPanic], 1);
    balanced(&tally);
}

#[test]
fn the_table_is_well_formed() {
    let mut names = BTreeSet::new();
    for metric in METRICS {
        let name = metric.name;
        assert!(names.insert(name), "{name} twice");
        assert!(name.starts_with("framegate_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == Counter, "{name}");
        assert!(metric.help.ends_with('.') && !metric.help.contains(['\\', '\n']), "{name}");
        assert!(metric.labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{name}");
    }
}

/// A strict reader of what we use of format 0.0.4: HELP, TYPE, samples of that family, no repeats.
fn read_text(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty());
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_string();
            assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()));
            assert!(families.insert(name.to_string()), "{name} twice");
            assert!(lines.peek().is_some_and(|next| next.starts_with(name)), "{name} is empty");
            family = name.to_string();
            continue;
        }
        let (series, number) = line.rsplit_once(' ').unwrap();
        let rest = series.strip_prefix(&family).unwrap_or_else(|| panic!("{line} outside of its family"));
        let rest = ["_bucket", "_sum", "_count"].iter().find_map(|part| rest.strip_prefix(part)).unwrap_or(rest);
        read_labels(rest);
        let number: f64 = number.parse().unwrap();
        assert!(samples.insert(series.to_string(), number).is_none(), "{series} twice");
    }
    samples
}

fn read_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut rest = text.strip_prefix('{').unwrap();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{text}");
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => assert!(matches!(chars.next().unwrap().1, '\\' | '"' | 'n'), "{text}"),
                (i, '"') => break i,
                _ => {}
            }
        };
        rest = &value[end + 1..];
        if rest == "}" {
            return;
        }
        rest = rest.strip_prefix(',').unwrap();
    }
}

#[test]
fn the_text_sums_over_workers_and_reads_back() {
    let shards: Vec<Arc<Shard>> = (0..2).map(|_| Arc::new(Shard::default())).collect();
    let mut tally =
        Tally { accepted: 4, busy_us: 1_500_000, loop_iterations: 9, sessions: 3, log_lost: 5, ..Tally::default() };
    tally.relay[Side::Downstream].frames[opcode::TEXT as usize] = 11;
    tally.relay[Side::Upstream].frames[0xb] = 1;
    tally.relay[Side::Upstream].bytes = 1000;
    tally.refused[Cause::NoRoute] = 2;
    tally.refused[Cause::Reset] = 1;
    tally.ended[Cause::Close] = [6, 0, 0];
    tally.tls[Side::Upstream] = [0, 0, 3];
    tally.loop_busy(1_700);
    tally.loop_busy(50_000);
    tally.publish(&shards[0]);
    Tally { accepted: 1, sessions: 2, ..tally }.publish(&shards[1]);
    let process = Process {
        version: "1.2\"3\\\n",
        started_unix_ms: 1_700_000_000_123,
        reloads_ok: 2,
        log_lost: 1,
        draining: true,
        certificates: vec![("a\"b.pem".to_owned(), -3)],
        upstreams: vec![
            UpstreamHealth {
                upstream: "checked".to_owned(),
                endpoints: vec![("up", 3), ("down", 1)],
                checks: Some([7, 5, 2]),
                changes: Some([0, 1]),
            },
            UpstreamHealth {
                upstream: "not".to_owned(),
                endpoints: vec![("up", 2), ("down", 0)],
                ..UpstreamHealth::default()
            },
        ],
        checks_in_progress: 4,
        ..Process::default()
    };
    let text = render(&shards, process);
    let samples = read_text(&text);
    let of = |series: &str| samples.get(series).copied();
    assert_eq!(of("framegate_build_info{version=\"1.2\\\"3\\\\\\n\"}"), Some(1.0));
    assert_eq!(of("process_start_time_seconds"), Some(1_700_000_000.123));
    assert_eq!(of("framegate_workers"), Some(2.0));
    for (state, checked, not) in [("up", 3.0, 2.0), ("down", 1.0, 0.0)] {
        let endpoints = |name| of(&format!("framegate_endpoints{{upstream=\"{name}\",state=\"{state}\"}}"));
        assert_eq!((endpoints("checked"), endpoints("not")), (Some(checked), Some(not)));
    }
    for (result, count) in [("passed", 7.0), ("failed", 5.0), ("skipped", 2.0)] {
        let checks = format!("framegate_health_checks_total{{upstream=\"checked\",result=\"{result}\"}}");
        assert_eq!(of(&checks), Some(count));
    }
    assert_eq!(of("framegate_health_changes_total{upstream=\"checked\",to=\"down\"}"), Some(1.0));
    assert_eq!(of("framegate_health_changes_total{upstream=\"not\",to=\"down\"}"), None);
    assert_eq!(of("framegate_health_checks_in_progress"), Some(4.0));
    assert_eq!(of("framegate_certificate_days_left{file=\"a\\\"b.pem\"}"), Some(-3.0));
    assert_eq!(of("framegate_tls_handshakes_total{side=\"upstream\",outcome=\"failed\"}"), Some(6.0));
    assert_eq!(of("framegate_loop_busy_seconds_bucket{le=\"0.002000\"}"), Some(2.0));
    assert_eq!(of("framegate_loop_busy_seconds_bucket{le=\"+Inf\"}"), Some(4.0));
    assert_eq!(of("framegate_loop_busy_seconds_sum"), Some(0.1034));
    assert_eq!(of("framegate_draining"), Some(1.0));
    assert_eq!(of("framegate_reloads_total{result=\"ok\"}"), Some(2.0));
    assert_eq!(of("framegate_connections_accepted_total"), Some(5.0));
    assert_eq!(of("framegate_sessions{worker=\"0\"}"), Some(3.0));
    assert_eq!(of("framegate_sessions{worker=\"1\"}"), Some(2.0));
    assert_eq!(of("framegate_worker_busy_seconds_total{worker=\"1\"}"), Some(1.5));
    assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"text\"}"), Some(22.0));
    assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"pong\"}"), Some(0.0));
    assert_eq!(of("framegate_frames_total{from=\"upstream\",opcode=\"0xb\"}"), Some(2.0));
    assert_eq!(of("framegate_frames_total{from=\"downstream\",opcode=\"0xb\"}"), None);
    assert_eq!(of("framegate_bytes_total{from=\"upstream\"}"), Some(2000.0));
    assert_eq!(of("framegate_handshakes_total{outcome=\"no-route\"}"), Some(4.0));
    assert_eq!(of("framegate_handshakes_total{outcome=\"reset\"}"), Some(2.0));
    assert_eq!(of("framegate_handshakes_total{outcome=\"no-request\"}"), Some(0.0));
    assert_eq!(of("framegate_handshakes_total{outcome=\"mask-bit\"}"), None);
    assert_eq!(of("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}"), Some(12.0));
    assert_eq!(of("framegate_sessions_ended_total{cause=\"worker-panic\",ended_by=\"proxy\"}"), Some(0.0));
    assert_eq!(of("framegate_sessions_ended_total{cause=\"no-route\",ended_by=\"proxy\"}"), None);
    assert_eq!(of("framegate_log_lines_lost_total"), Some(11.0));
}

#[test]
fn every_counter_of_a_tally_is_in_the_text() {
    let empty = Arc::new(Shard::default());
    let process = Process { version: "0", ..Process::default() };
    let before = read_text(&render(std::slice::from_ref(&empty), process.clone()));
    for cell in 0..CELLS {
        let shard = Arc::new(Shard::default());
        shard.cells[cell].store(3_000_000, Ordering::Relaxed);
        let after = read_text(&render(&[shard], process.clone()));
        // An observation counts in all larger buckets as well.
        let single = |series: &&String| !series.contains("_bucket{");
        let changed = after.iter().filter(|(series, value)| before.get(*series).unwrap_or(&0.0) != *value);
        let changed = changed.map(|(series, _)| series).filter(single).count();
        assert_eq!(changed, 1, "cell {cell}");
    }
}
