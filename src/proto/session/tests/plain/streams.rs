//! Responses without an end, when the process stops or their endpoint goes down.

use super::*;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const CUT: [&str; 3] = ["connect", "fin", "hangup"];
const RESET: [&str; 3] = ["connect", "abort upstream", "abort client"];

/// A client that has this of the response to its request.
fn answering(request: &[u8], response: &str) -> Shell {
    let mut shell = Shell::new();
    shell.bytes(Side::Downstream, request);
    shell.bytes(Side::Upstream, response.as_bytes());
    shell
}

/// The body that the client has.
fn body(shell: &Shell) -> String {
    shell.text(Side::Downstream).split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn ends(shell: &Shell) -> (&'static str, Cause) {
    let end = shell.session.verdict().unwrap();
    (end.party.name(), end.cause)
}

#[test]
fn an_event_stream_is_cut_behind_a_whole_chunk() {
    let events = "9\r\ndata: 1\n\n\r\n";
    let more = "a;x\r\ndata: 22\n\n\r\n5\r\ndata:\r\n0\r\n\r\n";
    for event in [|| Event::Drain, || Event::EndpointDown] {
        // At every point of the second chunk, which ends it.
        for cut in 0..more.len() {
            let mut shell = answering(GET, &format!("{HEAD}{events}"));
            let (first, second) = more.as_bytes().split_at(cut);
            shell.bytes(Side::Upstream, first);
            shell.event(event());
            shell.bytes(Side::Upstream, second);
            let whole = match cut {
                0 => events.to_owned(),
                1..=17 => format!("{events}a\r\ndata: 22\n\n\r\n"),
                18..=27 => format!("{events}a\r\ndata: 22\n\n\r\n5\r\ndata:\r\n"),
                // The last chunk has begun: it is let through.
                _ => format!("{events}a\r\ndata: 22\n\n\r\n5\r\ndata:\r\n0\r\n\r\n"),
            };
            assert_eq!(body(&shell), whole, "cut at {cut}");
            if cut <= 27 {
                assert_eq!((shell.log, shell.status.len()), (CUT.to_vec(), 0), "cut at {cut}");
            }
        }
    }
}

#[test]
fn a_chunk_that_does_not_end_has_the_close_timeout_and_then_a_reset() {
    let mut shell = answering(GET, &format!("{HEAD}9\r\ndata"));
    shell.event(Event::Drain);
    shell.now += 1_000;
    shell.bytes(Side::Upstream, b": ");
    assert_eq!(shell.wait(), Timer::Close);
    assert_eq!((shell.now, ends(&shell)), (5_000, ("proxy", Cause::Drain)));
    assert_eq!((shell.log, shell.is_over), (RESET.to_vec(), true));
}

#[test]
fn what_only_the_connection_delimits_ends_with_a_reset() {
    let until_eof = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let http10: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
    for (request, response) in [(GET, until_eof.to_owned()), (http10, format!("{HEAD}9\r\ndata: 1\n\n\r\n"))] {
        let mut shell = answering(request, &response);
        assert_eq!(body(&shell), "data: 1\n\n");
        shell.event(Event::EndpointDown);
        assert_eq!((ends(&shell), shell.log), (("proxy", Cause::EndpointDown), RESET.to_vec()));
    }
}

#[test]
fn a_response_that_has_an_end_in_sight_goes_on() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    for (response, lasts_ms, streams) in
        [(long, 0, false), (long, 3_600_000, false), (chunked, 29_999, false), (chunked, 30_000, true)]
    {
        for event in [|| Event::Drain, || Event::EndpointDown] {
            let mut shell = answering(GET, response);
            shell.now += lasts_ms;
            assert_eq!(shell.session.is_streaming(shell.now), streams);
            shell.event(event());
            assert_eq!(shell.log, if streams { CUT.to_vec() } else { vec!["connect"] }, "{response} {lasts_ms}");
        }
    }
    // And neither is a poll without a response.
    let mut shell = answering(GET, "");
    shell.now += 60_000;
    shell.event(Event::EndpointDown);
    shell.event(Event::Drain);
    shell.bytes(Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(shell.text(Side::Downstream).ends_with("\r\nConnection: close\r\n\r\nok"));
    assert_eq!(shell.log, ["connect", "release", "fin", "hangup"]);
}
