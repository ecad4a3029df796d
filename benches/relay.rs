//! One direction of an open session: what judging costs a read. Named for workloads: payload size,
//! and how many frames one read holds. The time is that of a whole read; divide by the frames for
//! one.

mod common;

use framegate::proto::Side;
use framegate::proto::handshake::Extensions;
use framegate::proto::relay::Relayed;
use framegate::proto::relay::{Counts, Cursor, Unlimited};
use framegate::proto::settings::FrameLimits;
use std::hint::black_box;

fn main() {
    for payload in [16, 64, 125, 126, 1 << 10, 4 << 10, 16 << 10, 64 << 10] {
        for batch in [1, 4, 16] {
            let read = common::masked_frame(payload).repeat(batch);
            let (mut cursor, mut counts) = (Cursor::new(Side::Downstream, Extensions::None), Counts::default());
            let mut authored = Vec::new();
            common::bench(&format!("relay, {payload} B x {batch}"), 20_000, || {
                let (relayed, stop) =
                    cursor.walk(black_box(&read), FrameLimits::default(), &mut counts, &mut authored, &mut Unlimited);
                assert!(relayed == Relayed::forward(read.len()) && stop.is_none());
            });
        }
    }
    // The same frame in two reads, cut inside its header.
    let read = common::masked_frame(64);
    let (mut cursor, mut counts) = (Cursor::new(Side::Downstream, Extensions::None), Counts::default());
    let mut authored = Vec::new();
    common::bench("relay, 64 B cut in its header", 20_000, || {
        black_box(cursor.walk(
            black_box(&read[..3]),
            FrameLimits::default(),
            &mut counts,
            &mut authored,
            &mut Unlimited,
        ));
        black_box(cursor.walk(
            black_box(&read[3..]),
            FrameLimits::default(),
            &mut counts,
            &mut authored,
            &mut Unlimited,
        ));
        authored.clear();
    });
}
