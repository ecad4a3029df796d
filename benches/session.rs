//! A whole session without sockets: what the state machine adds to a message, and what a session
//! costs from its first byte to its verdict.

mod common;

use common::{REQUEST, SWITCHING};
use framegate::proto::end::Party;
use framegate::proto::http1::FieldEdits;
use framegate::proto::interface::{Action, Admission, Event, TransportEnd, Upgrade};
use framegate::proto::relay::{Counts, RelayInput, SessionLimits};
use framegate::proto::session::Session;
use framegate::proto::settings::Settings;
use framegate::proto::{Side, Sides};
use std::hint::black_box;
use std::sync::Arc;

fn main() {
    let settings = Arc::new(Settings::default());
    let frame = common::masked_frame(64);
    let mut session = established(&settings);
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    common::bench("session, one 64 B message", 100_000, || {
        let input = RelayInput { now: 1, counts: &mut counts, authored: &mut authored };
        black_box(session.on_bytes(Side::Downstream, black_box(&frame), input));
        assert!(session.poll_action(1).is_none());
    });
    common::bench("session, opened and closed", 2_000, || {
        let mut session = established(&settings);
        session.on_event(Event::Ended(Side::Downstream, TransportEnd::Reset), 2);
        while let Some(action) = session.poll_action(2) {
            black_box(action);
        }
    });
}

fn established(settings: &Arc<Settings>) -> Session {
    let mut session = Session::new(Arc::clone(settings), 0);
    give(&mut session, settings, Side::Downstream, REQUEST);
    give(&mut session, settings, Side::Upstream, SWITCHING);
    assert!(session.is_established());
    session
}

fn give(session: &mut Session, settings: &Arc<Settings>, from: Side, bytes: &[u8]) {
    let (mut counts, mut authored) = (Sides::<Counts>::default(), Vec::new());
    session.on_bytes(from, bytes, RelayInput { now: 1, counts: &mut counts, authored: &mut authored });
    while let Some(action) = session.poll_action(1) {
        let event = match action {
            Action::Decide => {
                let (request_id, settings, limits) = ("id".into(), Arc::clone(settings), SessionLimits::default());
                Event::Admitted(Admission { request_id, settings, shadowed: false, limits, plain: None })
            }
            Action::Connect => {
                let response = FieldEdits::new();
                Event::Connected(Box::new(Upgrade {
                    request: Vec::new(),
                    response,
                    may_retry: false,
                    reused: false,
                    until: None,
                    by: Party::Upstream,
                }))
            }
            _ => continue,
        };
        session.on_event(event, 1);
    }
}
