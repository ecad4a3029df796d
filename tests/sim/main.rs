//! The worker on a simulated kernel: virtual time, one seed, every fault. A failing seed is printed with the
//! command that replays it.
//!
//! `SIM_SEEDS=1000000` runs so many schedules, `SIM_SEED=17` replays one with a trace. Both belong with
//! `cargo test --profile sim --test sim`.

mod bugs;
mod calls;
mod faults;
mod frames;
mod kernel;
mod oracle;
mod peers;
mod rng;
mod run;
mod schedule;
mod subject;
mod toy;
mod world;

use bugs::Bug;
use run::{Failure, many, one};
use subject::{Real, Subject};
use toy::Toy;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn check(seed: u64) -> Result<(), Failure> {
    one::<Real>(seed, seed, None).map(drop)
}

#[test]
fn every_schedule_ends_as_it_should() {
    if let Some(seed) = number("SIM_SEED") {
        world::world(|w| w.kernel.trace = true);
        let result = check(seed);
        world::world(|w| w.kernel.trace = false);
        if let Err(failure) = result {
            panic!("seed {}: {}", failure.seed, failure.what);
        }
        return;
    }
    let report = many(0, number("SIM_SEEDS").unwrap_or(20_000), check);
    report.print();
    for failure in &report.failures {
        println!("seed {}: {}", failure.seed, failure.what);
    }
    assert!(report.failures.is_empty());
}

/// A planted bug is found within so many seeds.
const BUG_SEEDS: u64 = 10_000;

fn finds<S: Subject>(bug: Bug) {
    let report = many(0, BUG_SEEDS, |seed| one::<S>(seed, seed, Some(bug)).map(drop));
    let Some(failure) = report.failures.first() else { panic!("{bug:?} was not found in {BUG_SEEDS} seeds") };
    println!("{bug:?}: {} schedules, seed {}: {}", report.schedules, failure.seed, failure.what);
}

#[test]
fn planted_bugs_are_found() {
    Bug::ALL.into_iter().filter(|bug| *bug != Bug::InsideFrame).for_each(finds::<Real>);
}

/// Kernel, peers and oracle themselves, without the worker.
#[test]
fn a_bare_relay_passes_and_its_planted_bugs_are_found() {
    let report = many(0, 2_000, |seed| one::<Toy>(seed, seed, None).map(drop));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    Bug::ALL.into_iter().filter(|bug| *bug != Bug::InsideFrame).for_each(finds::<Toy>);
}
