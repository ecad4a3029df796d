//! Masking in place, by payload size, from the start of a payload and from the middle of a key.

mod common;

use framegate::proto::mask::mask;
use std::hint::black_box;

fn main() {
    for payload in [16, 64, 125, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        for offset in [0, 3] {
            let mut bytes = vec![7; payload];
            common::bench(&format!("mask {payload} B, offset {offset}"), 20_000, || {
                mask(black_box(&mut bytes), black_box([0x37, 0xfa, 0x21, 0x3d]), black_box(offset));
            });
        }
    }
}
