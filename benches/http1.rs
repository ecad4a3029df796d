//! What a handshake costs in the core: `cargo bench --bench http1`.

mod common;

use common::bench;
use framegate::proto::handshake::{
    Forwarding, accept_of, judge_request, judge_response, write_request, write_switching,
};
use framegate::proto::http1::{FieldEdits, HeadScan, parse_request, parse_response};
use std::hint::black_box;

const REQUEST: &str = include!("common/browser_request.rs");
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

fn main() {
    let head = REQUEST.as_bytes();
    let request = parse_request(head).expect("a good request");
    let response = parse_response(ANSWER.as_bytes()).expect("a good answer");
    let switching = judge_response(&request, &response).expect("a good handshake");
    let edits = FieldEdits::new();
    let add = Forwarding {
        cert: None,
        path: request.path,
        query: None,
        host: None,
        peer: [203, 0, 113, 7].into(),
        client: [203, 0, 113, 7].into(),
        trusted: false,
        secure: false,
        headers: Default::default(),
        request_id: "0123456789abcdef0123456789abcdef",
        trace_seed: [7; 24],
        edits: &edits,
        plain: None,
    };
    bench("scan, 611 B request", 20_000, || {
        black_box(HeadScan::default().advance(black_box(head))).ok();
    });
    bench("parse_request, 611 B", 20_000, || {
        black_box(parse_request(black_box(head))).ok();
    });
    bench("scan + parse_request, 611 B", 20_000, || {
        let end = HeadScan::default().advance(black_box(head));
        let end = end.ok().flatten().unwrap_or_default();
        black_box(parse_request(&head[..end])).ok();
    });
    bench("judge_request", 20_000, || {
        black_box(judge_request(black_box(&request))).ok();
    });
    bench("write_request", 20_000, || {
        black_box(write_request(black_box(&request), &add));
    });
    bench("accept_of", 20_000, || {
        black_box(accept_of(black_box(b"dGhlIHNhbXBsZSBub25jZQ==")));
    });
    bench("judge_response", 20_000, || {
        black_box(judge_response(black_box(&request), &response)).ok();
    });
    bench("write_switching", 20_000, || {
        black_box(write_switching(black_box(&response), &switching.accept, &edits));
    });
}
