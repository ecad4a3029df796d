//! How the script of plain HTTP is drawn: mostly what goes well, with what goes wrong in between.

use super::changes::Change;
use super::message::{Body, Framing, content};
use super::{
    ASKS, Answer, Ask, CLIENTS, Client, Fault, How, Kind, Last, Leave, Place, Plan, REFUSED, Then, UNASKED, When,
};
use crate::kernel::Micros;
use crate::rng::Rng;
use crate::schedule::Connect;

/// Pauses between requests, and before responses.
const RESTS: [Micros; 10] = [0, 0, 0, 0, 0, 300, 3_000, 200_000, 2_000_000, 20_000_000];
const DELAYS: [Micros; 8] = [0, 0, 0, 0, 100, 300, 5_000, 300_000];
/// Attempts to connect, where some fail.
const CONNECTS: [Connect; 6] =
    [Connect::Works, Connect::Works, Connect::Refused, Connect::Refused, Connect::Fails, Connect::Lost];
/// When control does something.
const CHANGES: [Micros; 6] = [2_000, 10_000, 50_000, 300_000, 2_500_000, 21_000_000];
/// When a server does something with a connection that it has answered on.
const AFTERS: [Micros; 7] = [0, 0, 100, 500, 2_000, 500_000, 19_000_000];

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x0091_a190_0000);
        let mut plan = Plan {
            clients: Vec::new(),
            endpoints: rng.pick(&[1, 1, 1, 2]),
            kept: rng.pick(&[0, 1, 2, 32, 32, 32]),
            idle_ms: rng.pick(&[1_000, 20_000, 60_000]),
            age_ms: rng.pick(&[50, 3_600_000, 3_600_000]),
            max_body: rng.pick(&[2_000, 1 << 20, 1 << 20]),
            slow: rng.one_in(2),
            retries: rng.one_in(4),
            connects: Vec::new(),
            changes: Vec::new(),
        };
        if rng.one_in(8) {
            plan.connects = (0..rng.size(1, 4)).map(|_| rng.pick(&CONNECTS)).collect();
        }
        if rng.one_in(6) {
            let change = rng.pick(&[Change::Reload, Change::Down, Change::Drain]);
            plan.endpoints = if change == Change::Down { 2 } else { plan.endpoints };
            plan.changes.push((rng.pick(&CHANGES) + rng.below(2_000), change));
        }
        let (mut start_ms, count) = (0, rng.size(1, CLIENTS));
        let tiny = rng.one_in(12);
        for _ in 0..count {
            plan.clients.push(draw_client(&mut rng, start_ms, tiny));
            start_ms += rng.pick(&[0, 0, 1, 7, 40, 700]);
        }
        plan
    }
}

fn draw_client(rng: &mut Rng, start_ms: u64, tiny: bool) -> Client {
    let count = rng.pick(&[1, 1, 2, 2, 3, ASKS]);
    let http10 = rng.one_in(8);
    let mut asks: Vec<Ask> = (0..count).map(|_| draw_ask(rng, http10, tiny)).collect();
    // The first request is due in ten seconds.
    asks.iter_mut().take(1).for_each(|ask| ask.rest = ask.rest.min(2_000_000));
    if let Some(last) = asks.last_mut() {
        match rng.below(10) {
            0 if !http10 => (last.kind, last.method, last.body) = (Kind::Upgrade, "GET", Body::default()),
            1 => (last.kind, last.method) = (Kind::Refused(rng.size(0, REFUSED.len() - 1)), "POST"),
            2 | 3 => last.connection = Some("close"),
            _ => {}
        }
        if last.kind == Kind::Upgrade {
            (last.expects, last.answers) = (false, Default::default());
        }
    }
    let leaves = rng.one_in(6).then(|| draw_leave(rng, &asks));
    Client {
        start_ms,
        asks,
        ahead: rng.pick(&[1, 1, 1, 2, ASKS]),
        leaves,
        last: rng.pick(&[Last::Fin, Last::Fin, Last::Rst, Last::Waits]),
        tiny,
        stubborn: rng.one_in(2),
        key: rng.size(0, 7),
    }
}

fn draw_leave(rng: &mut Rng, asks: &[Ask]) -> Leave {
    let ask = rng.size(0, asks.len() - 1);
    let whole = asks[ask].bytes(0, ask).0.len();
    let place = match rng.below(3) {
        0 => Place::Sent(rng.size(0, whole)),
        1 => Place::Waiting(rng.pick(&[0, 500, 5_000, 300_000])),
        _ => Place::Got(rng.size(0, 300)),
    };
    Leave { ask, place, how: rng.pick(&[How::Fin, How::Rst, How::Stall]) }
}

fn draw_len(rng: &mut Rng, tiny: bool) -> usize {
    match rng.below(40) {
        0..10 => 0,
        10..30 => rng.size(1, 60),
        _ if tiny => rng.size(1, 60),
        30..36 => rng.size(100, 3_000),
        36..39 => rng.size(3_000, 20_000),
        _ => rng.size(60_000, 200_000),
    }
}

fn draw_body(rng: &mut Rng, framing: Framing, tiny: bool) -> Body {
    let len = draw_len(rng, tiny);
    let cuts = (0..3).map(|_| rng.pick(&[1, 7, 16, 300, 5_000, 70_000])).collect();
    let (odd, trailer) = (rng.one_in(4), rng.one_in(4));
    // Many small chunks prove no more than a few.
    let cuts = if len > 2_000 { vec![rng.pick(&[500, 5_000, 70_000])] } else { cuts };
    let content = if framing == Framing::None { Vec::new() } else { content(rng, len) };
    Body { framing, content, cuts, odd, trailer: trailer && framing == Framing::Chunked, broken: None }
}

/// One of its chunks has no size.
fn break_chunk(rng: &mut Rng, body: &mut Body) {
    let len = body.content.len();
    (body.broken, body.cuts) = (Some(rng.size(0, len.min(2) - 1)), vec![len.div_ceil(2)]);
}

fn draw_ask(rng: &mut Rng, http10: bool, tiny: bool) -> Ask {
    let methods = ["GET", "GET", "GET", "GET", "HEAD", "POST", "POST", "POST", "PUT", "DELETE", "OPTIONS", "ADD"];
    let method = rng.pick(&methods);
    let framings = [Framing::None, Framing::Length, Framing::Length, Framing::Chunked, Framing::Chunked];
    let framing = match method {
        "POST" | "PUT" => rng.pick(&framings),
        "GET" | "DELETE" if rng.one_in(8) => rng.pick(&framings),
        _ => Framing::None,
    };
    let framing = if http10 && framing == Framing::Chunked { Framing::Length } else { framing };
    let mut body = draw_body(rng, framing, tiny);
    if framing == Framing::Chunked && !body.content.is_empty() && rng.one_in(12) {
        break_chunk(rng, &mut body);
    }
    let expects = !body.content.is_empty() && !http10 && rng.one_in(5);
    let connection = if http10 && !rng.one_in(5) { Some("keep-alive") } else { None };
    let rest = rng.pick(&RESTS);
    let mut ask = Ask { method, http10, connection, body, expects, rest, ..Ask::default() };
    ask.answers = [0; 2].map(|_| draw_answer(rng, &ask, tiny));
    ask
}

fn draw_answer(rng: &mut Rng, ask: &Ask, tiny: bool) -> Answer {
    let status = rng.pick(&[200, 200, 200, 200, 200, 201, 204, 304, 404, 500, 503]);
    let http10 = rng.one_in(16);
    let framings = [Framing::Length, Framing::Length, Framing::Length, Framing::Chunked, Framing::Chunked];
    let framing = match status {
        204 => Framing::None,
        304 => rng.pick(&[Framing::None, Framing::Length]),
        _ if rng.one_in(10) => Framing::UntilEnd,
        _ if http10 => Framing::Length,
        _ => rng.pick(&framings),
    };
    let body = draw_body(rng, framing, tiny);
    let interim = match rng.below(8) {
        _ if ask.expects && !rng.one_in(4) => vec![100],
        0 => vec![103],
        1 if rng.one_in(3) => vec![100, 103],
        _ => Vec::new(),
    };
    let closes = rng.one_in(8);
    let early = !ask.body.content.is_empty() && rng.one_in(6);
    let when = if early { When::Body(rng.size(0, ask.body.content.len())) } else { When::End };
    let mut answer =
        Answer { status, interim, body, http10, closes, when, delay: rng.pick(&DELAYS), ..Answer::default() };
    if rng.one_in(8) {
        answer.fault = Some(draw_fault(rng, &mut answer.body));
    }
    answer.then = match rng.below(10) {
        0 | 1 => Then::Closes { rst: rng.one_in(2), after: rng.pick(&AFTERS) },
        2 => Then::ClosesOnNext { rst: rng.one_in(2) },
        3 if rng.one_in(2) => Then::Talks { after: rng.pick(&AFTERS) },
        _ => Then::Waits,
    };
    answer
}

fn draw_fault(rng: &mut Rng, body: &mut Body) -> Fault {
    match rng.below(10) {
        0..4 => {
            let how = rng.pick(&[How::Fin, How::Fin, How::Rst, How::Rst, How::Stall]);
            // The end of the connection is the end of such a body.
            let how = if how == How::Fin && body.framing == Framing::UntilEnd { How::Rst } else { how };
            Fault::Cut(rng.size(0, 99), how)
        }
        4 => Fault::Ambiguous,
        5 => Fault::Garbage,
        6 if body.framing == Framing::Chunked && !body.content.is_empty() => {
            break_chunk(rng, body);
            Fault::Broken
        }
        6 | 7 => Fault::Dies { rst: rng.one_in(2) },
        _ if body.framing == Framing::UntilEnd => Fault::Dies { rst: rng.one_in(2) },
        _ => Fault::More(rng.pick(&[UNASKED, "\r\n", "more"])),
    }
}
