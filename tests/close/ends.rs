//! Ends without a Close: FINs and resets of either side, and the loss of an upstream.

use super::common::*;
use super::{Session, assert_rest, fin};
use std::io::Write;

#[test]
fn client_fin_is_forwarded_and_the_upstream_may_still_send() {
    let mut s = Session::open("");
    let last = masked(0x82, b"that was all");
    s.client.write_all(&last).unwrap();
    fin(&s.client);
    assert_rest(&s.upstream, &last, End::Fin);
    for n in 0..10u8 {
        let answer = plain(0x82, &vec![n; 1000 * usize::from(n)]);
        s.upstream.write_all(&answer).unwrap();
        assert_eq!(read_exact(&s.client, answer.len()), answer);
    }
    s.wait_for_worker();
    assert_quiet(&s.client);
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=eof status=101");
}

#[test]
fn upstream_fin_is_forwarded_and_the_client_may_still_send() {
    let mut s = Session::open("");
    let last = plain(0x81, b"that was all");
    s.upstream.write_all(&last).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &last, End::Fin);
    for n in 0..10u8 {
        let more = masked(0x82, &vec![n; 1000 * usize::from(n)]);
        s.client.write_all(&more).unwrap();
        assert_eq!(read_exact(&s.upstream, more.len()), more);
    }
    s.wait_for_worker();
    assert_quiet(&s.upstream);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=upstream phase=open cause=eof status=101");
}

#[test]
fn close_is_forwarded_after_the_peer_sent_fin() {
    let mut s = Session::open("");
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    let close = masked(0x88, &close_payload(1001, "leaving"));
    s.client.write_all(&close).unwrap();
    assert_eq!(read_exact(&s.upstream, close.len()), close);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=close status=101 code_up=1001");
}

#[test]
fn fin_inside_a_frame_follows_the_bytes_before_it() {
    let frame = plain(0x82, &[7; 300]);
    for cut in [4, 5, 100, frame.len() - 1] {
        let mut s = Session::open("");
        s.upstream.write_all(&frame[..cut]).unwrap();
        fin(&s.upstream);
        assert_rest(&s.client, &frame[..cut], End::Fin);
        let more = masked(0x81, b"still here");
        s.client.write_all(&more).unwrap();
        fin(&s.client);
        assert_rest(&s.upstream, &more, End::Fin);
        s.ends("ended_by=upstream phase=open cause=eof status=101");
    }
    let frame = masked(0x82, &[7; 300]);
    let mut s = Session::open("");
    s.client.write_all(&frame[..100]).unwrap();
    fin(&s.client);
    assert_rest(&s.upstream, &frame[..100], End::Fin);
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    s.ends("ended_by=downstream phase=open cause=eof status=101");
}

#[test]
fn fin_inside_a_header_drops_the_partial_header() {
    let whole = plain(0x81, b"whole");
    let mut s = Session::open("");
    s.upstream.write_all(&[&whole[..], &plain(0x82, &[7; 300])[..3]].concat()).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &whole, End::Fin);
    fin(&s.client);
    assert_rest(&s.upstream, b"", End::Fin);
    s.ends("ended_by=upstream phase=open cause=eof status=101");
}

#[test]
fn simultaneous_fins_end_a_session() {
    let s = Session::open("");
    fin(&s.upstream);
    fin(&s.client);
    assert_rest(&s.client, b"", End::Fin);
    assert_rest(&s.upstream, b"", End::Fin);
    let by =
        s.proxy.log.wait("its end", |line| line.contains(" end ").then(|| field(line, "ended_by").unwrap().to_owned()));
    s.ends(&format!("ended_by={by} phase=open cause=eof status=101"));
}

#[test]
fn upstream_reset_resets_the_client_after_the_data_before_it() {
    let Session { mut proxy, client, mut upstream, _listener } = Session::open("");
    let last = plain(0x82, &[3; 5000]);
    upstream.write_all(&last).unwrap();
    reset(upstream);
    let (got, end) = read_all(&client);
    assert_eq!(end, End::Reset);
    assert!(got == last || *SECURED != PLAIN && last.starts_with(&got));
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=upstream phase=open cause=reset status=101");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn client_reset_resets_the_upstream_after_the_data_before_it() {
    let Session { mut proxy, mut client, upstream, _listener } = Session::open("");
    let last = masked(0x82, &[3; 5000]);
    client.write_all(&last).unwrap();
    reset(client);
    let (got, end) = read_all(&upstream);
    assert_eq!(end, End::Reset);
    // The reset of the TLS shim overtakes data that the shim has not sent yet.
    assert!(got == last || *SECURED != PLAIN && last.starts_with(&got));
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=downstream phase=open cause=reset status=101");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn client_loss_before_the_101_resets_the_upstream() {
    for how in ["reset", "eof"] {
        let (listener, addr) = listen();
        let mut proxy = Proxy::before(addr, "");
        let mut client = connect(proxy.addr);
        client.write_all(request("/", "").as_bytes()).unwrap();
        let upstream = accept(&listener);
        read_head(&upstream);
        if how == "reset" {
            reset(client)
        } else {
            drop(client)
        }
        assert_rest(&upstream, b"", End::Reset);
        let line = proxy.log.wait_for(" end ");
        assert!(verdict(&line).starts_with("ended_by=downstream phase=response cause="), "{line}");
        assert_eq!(proxy.stop().len(), 1);
    }
}

#[test]
fn upstream_loss_sends_a_close_if_the_route_says_so() {
    for (more, code) in [("", 1012), ("on_upstream_loss_code = 4001", 4001)] {
        let mut s = Session::open(&format!("on_upstream_loss = \"close\"\n{more}"));
        let last = plain(0x82, &[1; 200]);
        s.upstream.write_all(&last).unwrap();
        fin(&s.upstream);
        assert_eq!(read_exact(&s.client, last.len()), last);
        assert_eq!(read_close(&s.client), (code, "upstream lost".to_owned()));
        assert_rest(&s.client, b"", End::Fin);
        // The reply is consumed.
        s.client.write_all(&masked(0x88, &close_payload(code, ""))).unwrap();
        fin(&s.client);
        assert_rest(&s.upstream, b"", End::Fin);
        s.ends(&format!("ended_by=upstream phase=open cause=upstream-loss status=101 code_down={code}"));
    }
}

#[test]
fn upstream_reset_counts_as_upstream_loss() {
    let Session { mut proxy, client, mut upstream, _listener } = Session::open("on_upstream_loss = \"close\"");
    let last = plain(0x82, &[1; 200]);
    upstream.write_all(&last).unwrap();
    reset(upstream);
    assert_eq!(read_exact(&client, last.len()), last);
    assert_eq!(read_close(&client), (1012, "upstream lost".to_owned()));
    assert_rest(&client, b"", End::Fin);
    fin(&client);
    let line = proxy.log.wait_for(" end ");
    assert_eq!(verdict(&line), "ended_by=upstream phase=open cause=upstream-loss status=101 code_down=1012");
    assert_eq!(proxy.stop().len(), 2);
}

#[test]
fn upstream_loss_inside_a_frame_sends_no_close() {
    let mut s = Session::open("on_upstream_loss = \"close\"");
    let frame = plain(0x82, &[1; 200]);
    s.upstream.write_all(&frame[..50]).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, &frame[..50], End::Fin);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=upstream-loss status=101");
}

#[test]
fn upstream_that_sent_a_close_is_not_lost() {
    let mut s = Session::open("on_upstream_loss = \"close\"");
    let close = plain(0x88, &close_payload(1000, ""));
    s.upstream.write_all(&close).unwrap();
    assert_eq!(read_exact(&s.client, close.len()), close);
    s.client.write_all(&masked(0x88, b"")).unwrap();
    fin(&s.upstream);
    assert_rest(&s.client, b"", End::Fin);
    fin(&s.client);
    s.ends("ended_by=upstream phase=open cause=close status=101 code_up=1005 code_down=1000");
}
