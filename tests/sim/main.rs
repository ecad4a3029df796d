//! The worker on a simulated kernel: virtual time, one seed, every fault. A failing seed is printed
//! with the command that replays it.
//!
//! `SIM_SEEDS=1000000` runs that many schedules, `SIM_SEED=17` replays one with a trace (`SIM_CUTS`
//! if its faults and cuts were those of another seed, `SIM_TLS=down`, `up` or `both` if it had
//! TLS, `SIM_HEADERS=1` if it had PROXY headers, `SIM_SHADOWS=0` if it had no shadows,
//! `SIM_PLAIN=1` if it was one of plain HTTP). Use them with `cargo test --profile sim --test sim`.

mod asks;
mod auth;
mod beat;
mod buf;
mod bugs;
mod callee;
mod calls;
mod control;
mod coverage;
mod credentials;
mod deadlines;
mod dial;
mod edge_rules;
mod faults;
mod fleet;
mod frames;
mod header;
mod kernel;
mod limits;
mod members;
mod mirror;
mod oracle;
mod pace;
mod peers;
mod plain;
mod rng;
mod routing;
mod run;
mod schedule;
mod seal;
mod services;
mod subject;
mod toy;
mod wire;
mod world;

use bugs::Bug;
use coverage::PLAIN;
use framegate::proto::end::End;
use run::{Failure, many, one};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use subject::{Real, Subject, With};
use toy::Toy;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn check<S: Subject>(seed: u64) -> Result<(), Failure> {
    one::<S>(seed, seed, None).map(drop)
}

/// The default number of schedules: enough for every kind of fault.
const SEEDS: u64 = 20_000;

#[test]
fn all_schedules_end_as_specified() {
    if let Some(seed) = number("SIM_SEED") {
        return replay(seed);
    }
    let report = many(0, number("SIM_SEEDS").unwrap_or(SEEDS), check::<Real>);
    report.print();
    report.must_be_clean("");
    assert!(report.schedules < SEEDS || report.counts.iter().all(|n| *n > 0), "a kind of fault never struck");
    assert!(report.schedules < SEEDS || report.met[..PLAIN].iter().all(|n| *n > 0), "a kind of schedule never came");
}

/// The same over TLS: toward clients, toward upstreams, and both. One handshake costs more than a
/// plain schedule.
#[test]
fn all_schedules_end_as_specified_over_tls() {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS) / 10;
    many(0, seeds, check::<With<true, false>>).must_be_clean("SIM_TLS=down ");
    many(0, seeds, check::<With<false, true>>).must_be_clean("SIM_TLS=up ");
    many(0, seeds, check::<With<true, true>>).must_be_clean("SIM_TLS=both ");
}

/// The same with PROXY headers on both sides, alone and before TLS.
#[test]
fn all_schedules_end_as_specified_behind_headers() {
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    many(0, seeds / 4, check::<With<false, false, true>>).must_be_clean("SIM_HEADERS=1 ");
    many(0, seeds / 20, check::<With<true, true, true>>).must_be_clean("SIM_HEADERS=1 SIM_TLS=both ");
    many(0, seeds / 20, twice::<With<false, false, true>>).must_be_clean("SIM_HEADERS=1 ");
}

/// Plain HTTP, by itself and with TLS and PROXY headers.
#[test]
fn all_schedules_of_plain_http_end_as_specified() {
    if let Some(seed) = number("SIM_SEED") {
        return replay(seed);
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS) / 2;
    let report = many(0, seeds, check::<With<false, false, false, true>>);
    report.print();
    report.must_be_clean("SIM_PLAIN=1 ");
    assert!(seeds < SEEDS / 2 || report.met[PLAIN..].iter().all(|n| *n > 0), "a kind of plain HTTP never came");
    many(0, seeds / 20, check::<With<true, false, false, true>>).must_be_clean("SIM_PLAIN=1 SIM_TLS=down ");
    many(0, seeds / 20, check::<With<false, true, false, true>>).must_be_clean("SIM_PLAIN=1 SIM_TLS=up ");
    many(0, seeds / 20, check::<With<true, true, false, true>>).must_be_clean("SIM_PLAIN=1 SIM_TLS=both ");
    many(0, seeds / 10, check::<With<false, false, true, true>>).must_be_clean("SIM_PLAIN=1 SIM_HEADERS=1 ");
}

fn replay(seed: u64) {
    world::world(|w| {
        w.kernel.trace = true;
        w.no_shadows = std::env::var("SIM_SHADOWS").is_ok_and(|with| with == "0");
    });
    let cuts = number("SIM_CUTS").unwrap_or(seed);
    let headed = std::env::var_os("SIM_HEADERS").is_some();
    let plain = std::env::var_os("SIM_PLAIN").is_some();
    let result = match std::env::var("SIM_TLS").as_deref() {
        Ok("down") if plain => one::<With<true, false, false, true>>(seed, cuts, None),
        Ok("up") if plain => one::<With<false, true, false, true>>(seed, cuts, None),
        Ok("both") if plain => one::<With<true, true, false, true>>(seed, cuts, None),
        _ if plain && headed => one::<With<false, false, true, true>>(seed, cuts, None),
        _ if plain => one::<With<false, false, false, true>>(seed, cuts, None),
        Ok("both") if headed => one::<With<true, true, true>>(seed, cuts, None),
        _ if headed => one::<With<false, false, true>>(seed, cuts, None),
        Ok("down") => one::<With<true, false>>(seed, cuts, None),
        Ok("up") => one::<With<false, true>>(seed, cuts, None),
        Ok("both") => one::<With<true, true>>(seed, cuts, None),
        _ => one::<Real>(seed, cuts, None),
    };
    world::world(|w| w.kernel.trace = false);
    if let Err(failure) = result {
        panic!("seed {}: {}", failure.seed, failure.what);
    }
}

/// A planted bug must be found within this many seeds.
const BUG_SEEDS: u64 = 10_000;

fn finds<S: Subject>(bug: Bug) {
    let report = many(0, BUG_SEEDS, |seed| one::<S>(seed, seed, Some(bug)).map(drop));
    let Some(failure) = report.failures.iter().min_by_key(|f| f.seed) else {
        panic!("{bug:?} was not found in {BUG_SEEDS} seeds")
    };
    println!("{bug:?}: {} schedules, seed {}: {}", report.schedules, failure.seed, failure.what);
}

#[test]
fn planted_bugs_are_found() {
    Bug::OF_RELAYS.into_iter().chain(Bug::OF_WORKERS).for_each(finds::<Real>);
    finds::<With<false, false, true>>(Bug::TakenHeader);
    Bug::OF_PLAIN.into_iter().for_each(finds::<With<false, false, false, true>>);
}

/// One script under two schedules of cuts and faults, the second one without shadows: without a
/// race in the script the results are the same.
#[test]
fn verdict_is_independent_of_segmentation() {
    many(0, number("SIM_SEEDS").unwrap_or(SEEDS) / 10, twice::<Real>).must_be_clean("");
    many(0, number("SIM_SEEDS").unwrap_or(SEEDS) / 50, twice::<With<true, true>>).must_be_clean("SIM_TLS=both ");
}

fn twice<S: Subject>(seed: u64) -> Result<(), Failure> {
    const OTHER: u64 = 0x0500_0000_0000;
    let first = one::<S>(seed, seed ^ OTHER, None)?;
    let certain = world::world(|w| w.script.sessions.iter().map(|s| s.is_certain()).collect::<Vec<_>>());
    // The last failure of a request that was tried again is known before or after the next endpoint
    // is looked for.
    let retries = world::world(|w| w.script.sessions.iter().map(|s| s.retry.is_some()).collect::<Vec<_>>());
    world::world(|w| w.no_shadows = true);
    let second = one::<S>(seed, !seed ^ OTHER, None);
    world::world(|w| w.no_shadows = false);
    let without = |failure: Failure| Failure { what: format!("{} (with SIM_SHADOWS=0)", failure.what), ..failure };
    let second = second.map_err(without)?;
    for (i, certain) in certain.into_iter().enumerate() {
        let outcome = |end: Option<End>| end.map(|end| (end.party, end.cause));
        let same = first[i] == second[i] || retries[i] && outcome(first[i]) == outcome(second[i]);
        if certain && !same {
            let what = format!("session {i}: {:?} or {:?}, as the bytes were cut", first[i], second[i]);
            return Err(Failure { seed, cuts: seed ^ OTHER, what });
        }
    }
    Ok(())
}

/// A seed means the same schedule on every thread, whatever ran there before.
#[test]
fn a_seed_can_be_replayed() {
    replays::<Real>(SEEDS / 4);
    replays::<With<true, true>>(SEEDS / 40);
    replays::<With<false, false, false, true>>(SEEDS / 4);
    replays::<With<true, true, false, true>>(SEEDS / 40);
}

fn replays<S: Subject>(count: u64) {
    let digests: Vec<_> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let digest_of = |seed| {
        one::<S>(seed, seed, None)?;
        Ok(world::world(|w| w.kernel.digest))
    };
    let note = |seed| digest_of(seed).map(|digest| digests[seed as usize].store(digest, Relaxed));
    many(0, count, note).must_be_clean("");
    let compare = |n| {
        let seed = count - 1 - n;
        let same = digest_of(seed)? == digests[seed as usize].load(Relaxed);
        let what = "the worker's system calls are not the same again".to_owned();
        if same { Ok(()) } else { Err(Failure { seed, cuts: seed, what }) }
    };
    many(0, count, compare).must_be_clean("");
}

/// Kernel, peers and oracle, without the worker.
#[test]
fn toy_relay_passes_and_its_planted_bugs_are_found() {
    many(0, 2_000, |seed| one::<Toy>(seed, seed, None).map(drop)).must_be_clean("");
    Bug::OF_RELAYS.into_iter().for_each(finds::<Toy>);
}
