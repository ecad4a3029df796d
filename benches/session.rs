//! A whole session without sockets: what the state machine adds to a message, and what a session costs from its
//! first byte to its verdict.

mod common;

use common::{REQUEST, SWITCHING};
use framegate::proto::Side;
use framegate::proto::relay::{Counts, FrameLimits, Mode};
use framegate::proto::session::{Action, Admission, Event, RelayInput, Session};
use std::hint::black_box;

fn main() {
    let frame = common::masked_frame(64);
    let mut session = opened();
    let mut counts = Counts::default();
    common::bench("session, one 64 B message", 100_000, || {
        let given = RelayInput { now: 1, rules: FrameLimits::default(), counts: &mut counts };
        black_box(session.on_bytes(Side::Downstream, black_box(&frame), given));
        assert!(session.poll_action(1).is_none());
    });
    common::bench("session, opened and closed", 2_000, || {
        let mut session = opened();
        session.on_event(Event::Reset(Side::Downstream), 2);
        while let Some(action) = session.poll_action(2) {
            black_box(action);
        }
    });
}

fn opened() -> Session {
    let mut session = Session::new(16 * 1024, false, 0);
    give(&mut session, Side::Downstream, REQUEST);
    give(&mut session, Side::Upstream, SWITCHING);
    assert!(session.is_open());
    session
}

fn give(session: &mut Session, from: Side, bytes: &[u8]) {
    let given = RelayInput { now: 1, rules: FrameLimits::default(), counts: &mut Counts::default() };
    session.on_bytes(from, bytes, given);
    while let Some(action) = session.poll_action(1) {
        let event = match action {
            Action::Decide => {
                let admission =
                    Admission { request_id: "id".into(), mode: Mode::Framed, upstream_loss_code: None, splice: false };
                Event::Admitted(Box::new(admission))
            }
            Action::Connect => Event::Connected(Vec::new()),
            _ => continue,
        };
        session.on_event(event, 1);
    }
}
