//! Times small functions: no framework, so that the benches build with the package alone.

use std::time::{Duration, Instant};

const ROUNDS: usize = 15;

/// Runs `op` `iterations` times in each of 15 rounds and prints the fastest and the median round, per run.
/// `op` keeps its own results alive with [`std::hint::black_box`].
pub fn bench(name: &str, iterations: u32, mut op: impl FnMut()) {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..iterations {
                op();
            }
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let per_run = |round: Duration| round.as_secs_f64() * 1e9 / f64::from(iterations);
    println!("{name:<40} min {:>10.1} ns   median {:>10.1} ns", per_run(rounds[0]), per_run(rounds[ROUNDS / 2]));
}
