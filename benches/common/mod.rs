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

/// As a client sends it; nobody looks at the payload.
#[allow(dead_code)] // not every bench sends frames
pub fn masked_frame(payload: usize) -> Vec<u8> {
    use framegate::proto::frame::{Header, opcode};
    let mut bytes = Vec::new();
    let mask = Some([0x37, 0xfa, 0x21, 0x3d]);
    Header { fin: true, rsv: 0, opcode: opcode::BINARY, mask, payload_len: payload as u64 }.write(&mut bytes);
    bytes.resize(bytes.len() + payload, 7);
    bytes
}
