//! Times small functions, or counts their instructions: no framework, so that the benches build
//! with the package alone. What is counted is the very machine code that is timed.
//!
//! As it is a bench prints times. With `--counted` it only prepares: `benches/instructions.py` runs
//! it so, under callgrind, which counts inside of [`repeat`] and nowhere else.

#![allow(dead_code)] // each bench uses its own part

use framegate::policy::Facts;
use framegate::proto::http1::Request;
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
/// Operations before and while instructions are counted. Counting is exact, so a few are enough;
/// what comes once in several operations (a vector that grows, a ring that wraps) shows in the
/// average.
const WARM: u32 = 200;
const COUNTED: u32 = 1_000;

/// What is known of a request of an ordinary client, over TLS.
pub fn facts_of<'a>(request: &'a Request<'a>) -> Facts<'a> {
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let request_id = "0123456789abcdef0123456789abcdef";
    Facts { request_id, secure: true, unix_ms: 1_800_000_000_000, ..Facts::new(request, client) }
}

/// Runs `op` `iterations` times in each of 15 rounds and prints the fastest and the median round,
/// per run. `op` keeps its own results alive with [`std::hint::black_box`].
pub fn bench(name: &str, iterations: u32, mut op: impl FnMut()) {
    if std::env::args().any(|arg| arg == "--counted") {
        return count(name, &mut op);
    }
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            repeat(&mut op, iterations);
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let per_run = |round: Duration| round.as_secs_f64() * 1e9 / f64::from(iterations);
    println!("{name:<48} min {:>10.1} ns   median {:>10.1} ns", per_run(rounds[0]), per_run(rounds[ROUNDS / 2]));
}

/// Two calls of [`repeat`], each of which callgrind gives the sum of: the second one counts. The
/// line says what it is the sum of: name, operations, allocations.
fn count(name: &str, op: &mut impl FnMut()) {
    repeat(op, WARM);
    let before = ALLOCATIONS.load(Relaxed);
    repeat(op, COUNTED);
    println!("{name}\t{COUNTED}\t{}", ALLOCATIONS.load(Relaxed) - before);
}

/// Known to callgrind by its name.
#[inline(never)]
fn repeat(op: &mut impl FnMut(), times: u32) {
    for _ in 0..times {
        op();
    }
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with a count.
struct Counting;

// SAFETY: everything is left to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As a client sends it; the payload is not looked at.
pub fn masked_frame(payload: usize) -> Vec<u8> {
    frame(payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// As a server sends it.
pub fn plain_frame(payload: usize) -> Vec<u8> {
    frame(payload, None)
}

fn frame(payload: usize, mask: Option<[u8; 4]>) -> Vec<u8> {
    use framegate::proto::frame::{Header, opcode};
    let mut bytes = Vec::new();
    Header { fin: true, rsv: 0, opcode: opcode::BINARY, mask, payload_len: payload as u64 }.write(&mut bytes);
    bytes.resize(bytes.len() + payload, 7);
    bytes
}

/// What opens a session, from each side.
pub const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
