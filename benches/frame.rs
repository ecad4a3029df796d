//! Walking frame headers: what the framer costs a read. Named for workloads: payload size, and how
//! many frames one read holds. The time is that of a whole read; divide by the frames for one.

mod common;

use framegate::proto::frame::{Header, Parsed};
use std::hint::black_box;

fn main() {
    for payload in [16, 32, 125, 126, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        for batch in [1, 4, 16] {
            let read = common::masked_frame(payload).repeat(batch);
            assert_eq!(walk(&read), batch);
            common::bench(&format!("frame walk, {payload} B x {batch}"), 20_000, || {
                black_box(walk(black_box(&read)));
            });
        }
    }
}

/// How many whole frames there are.
fn walk(mut bytes: &[u8]) -> usize {
    let mut frames = 0;
    while let Ok(Parsed::Complete(header, len)) = Header::parse(bytes) {
        let Some(rest) = bytes.get(len + header.payload_len as usize..) else { break };
        bytes = rest;
        frames += 1;
    }
    frames
}
