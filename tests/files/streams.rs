//! How files are sent: as fast as the client takes them, and nothing held but a piece; files that
//! change meanwhile, and clients that leave.

use super::common::*;
use super::site::*;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;

const MIB: usize = 1 << 20;

/// Bytes of which each differs from its neighbours, and from those a piece further.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Asks for a file and reads the head of the response alone.
fn begin(proxy: &Proxy, target: &str) -> TcpStream {
    let mut client = connect_small(proxy.addr);
    client.write_all(request_of("GET", target, "").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 200 "));
    client
}

/// The files below the site that the proxy has open.
fn open_files(proxy: &Proxy, site: &Site) -> Vec<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().filter_map(Result::ok);
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).filter(|path| path.starts_with(site.path())).collect()
}

/// Waits until the proxy sends no more, because the client reads nothing.
fn wait_until_stalled(proxy: &Proxy) {
    eventually("a stalled client", || (proxy.metric("framegate_backlog_bytes") > 0.0).then_some(()));
}

#[test]
fn slow_readers_of_large_files_cost_little() {
    let site = Site::new();
    let whole = content(50 * MIB);
    site.put("large.bin", &whole);
    let mut proxy = site.proxy("");
    assert_eq!(get(proxy.addr, "/large.bin", "").body.len(), whole.len());
    let before = proxy.memory_kib("VmRSS");
    let clients: Vec<_> = (0..100).map(|_| begin(&proxy, "/large.bin")).collect();
    wait_until_stalled(&proxy);
    eventually("all files are open", || (open_files(&proxy, &site).len() == 100).then_some(()));
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    // A piece of 64 KiB each, and what is read meanwhile.
    assert!(grown < 100 * 80 + 6 * 1024, "{grown} KiB for 100 clients");
    // A slow one gets all of it, in its order.
    let mut at = 0;
    let mut first = &clients[0];
    let mut part = vec![0; 100_000];
    while at < whole.len() {
        let n = first.read(&mut part).unwrap();
        assert!(n > 0 && part[..n] == whole[at..at + n], "at {at}");
        at += n;
    }
    assert_eq!(ask(first, "GET", "/letters.txt", "").body.len(), 26);
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 100 * 80 + 6 * 1024, "{grown} KiB behind it");
    drop(clients);
    eventually("all files are closed", || open_files(&proxy, &site).is_empty().then_some(()));
    let lines = proxy.stop();
    let whole = lines
        .iter()
        .filter(|line| line.contains(" cause=answered status=200 ") && line.contains("bytes_down=52428800"));
    assert_eq!(whole.count(), 2);
}

#[test]
fn many_clients_at_once_get_what_they_asked_for() {
    let site = Site::new();
    let files: Vec<_> = (0..8).map(|n| content(300_000 + n * 77_777)).collect();
    for (n, content) in files.iter().enumerate() {
        site.put(&format!("{n}.bin"), content);
    }
    let proxy = site.proxy("");
    let addr = proxy.addr;
    // More than may wait for the threads at once.
    thread::scope(|scope| {
        for client in 0..200 {
            let files = &files;
            scope.spawn(move || {
                let connection = connect(addr);
                for turn in 0..3 {
                    let n = (client + turn) % files.len();
                    let answer = ask(&connection, "GET", &format!("/{n}.bin"), "");
                    assert!(answer.status == 200 && answer.body == files[n], "client {client}, turn {turn}");
                }
            });
        }
    });
    eventually("all files are closed", || open_files(&proxy, &site).is_empty().then_some(()));
}

#[test]
fn a_file_that_shrinks_is_not_taken_for_complete() {
    let site = Site::new();
    let path = site.put("shrinks.bin", content(20 * MIB));
    let mut proxy = site.proxy("");
    let client = begin(&proxy, "/shrinks.bin");
    wait_until_stalled(&proxy);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(MIB as u64).unwrap();
    let (bytes, end) = read_all(&client);
    assert!(bytes.len() < 20 * MIB && end == End::Reset, "{} bytes, {end:?}", bytes.len());
    let lines = proxy.stop();
    let line = lines.iter().find(|line| line.contains("path=/shrinks.bin")).unwrap();
    assert!(verdict(line).starts_with("ended_by=proxy phase=response cause=file-cut status=200"), "{line}");
}

#[test]
fn a_file_that_grows_is_sent_as_it_was_declared() {
    let site = Site::new();
    let whole = content(5 * MIB);
    let path = site.put("grows.bin", &whole);
    let proxy = site.proxy("");
    let client = begin(&proxy, "/grows.bin");
    wait_until_stalled(&proxy);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&content(MIB)).unwrap();
    assert!(read_exact(&client, whole.len()) == whole);
    assert_eq!(ask(&client, "GET", "/letters.txt", "").body.len(), 26);
    assert_eq!(ask(&client, "HEAD", "/grows.bin", "").field("content-length"), Some("6291456"));
}

#[test]
fn a_response_is_of_the_file_that_it_began_with() {
    let site = Site::new();
    let whole = content(5 * MIB);
    let path = site.put("old.bin", &whole);
    let proxy = site.proxy("");
    let (replaced, removed) = (begin(&proxy, "/old.bin"), begin(&proxy, "/old.bin"));
    wait_until_stalled(&proxy);
    fs::rename(site.put("new.bin", vec![0; 6 * MIB]), &path).unwrap();
    assert!(read_exact(&replaced, whole.len()) == whole);
    assert_eq!(ask(&replaced, "HEAD", "/old.bin", "").field("content-length"), Some("6291456"));
    let away = site.path().with_extension("away");
    fs::rename(site.path(), &away).unwrap();
    fs::remove_dir_all(&away).unwrap();
    assert!(read_exact(&removed, whole.len()) == whole);
    assert_eq!(ask(&removed, "GET", "/old.bin", "").status, 404);
}

#[test]
fn a_client_that_leaves_takes_its_file_with_it() {
    let site = Site::new();
    site.put("large.bin", content(20 * MIB));
    let mut proxy = site.proxy("");
    let (left, gone) = (begin(&proxy, "/large.bin"), begin(&proxy, "/large.bin"));
    wait_until_stalled(&proxy);
    eventually("both files are open", || (open_files(&proxy, &site).len() == 2).then_some(()));
    reset(gone);
    drop(left);
    eventually("both files are closed", || open_files(&proxy, &site).is_empty().then_some(()));
    let lines = proxy.stop();
    let ends: Vec<_> = lines.iter().filter(|line| line.contains("path=/large.bin")).map(|line| verdict(line)).collect();
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| end.starts_with("ended_by=downstream phase=response cause=")), "{ends:?}");
}

#[test]
fn the_last_response_of_a_connection_is_whole() {
    let site = Site::new();
    let whole = content(5 * MIB);
    site.put("large.bin", &whole);
    let proxy = site.proxy("");
    let mut client = connect_small(proxy.addr);
    client.write_all(request_of("GET", "/large.bin", "Connection: close\r\n").as_bytes()).unwrap();
    assert!(read_head(&client).contains("\r\nConnection: close\r\n"));
    let (body, end) = read_all(&client);
    assert!(body == whole && end == End::Fin, "{} bytes, {end:?}", body.len());
    assert!(open_files(&proxy, &site).is_empty());
}

#[test]
fn a_client_that_takes_nothing_ends_with_the_write_stall() {
    let site = Site::new();
    site.put("large.bin", content(20 * MIB));
    let mut proxy = site.proxy("timeouts = { write_stall = \"500ms\" }");
    let client = begin(&proxy, "/large.bin");
    let line = proxy.log.wait_for("path=/large.bin");
    assert!(verdict(&line).starts_with("ended_by=proxy phase=response cause=write-stall status=200"), "{line}");
    assert_eq!(read_all(&client).1, End::Reset);
    assert!(open_files(&proxy, &site).is_empty());
    assert_eq!(proxy.stop().len(), 1);
}

#[test]
fn messages_go_on_while_files_are_read() {
    let site = Site::new();
    site.put("large.bin", content(20 * MIB));
    let (listener, addr) = listen();
    let proxy = site.proxy(&format!("[[route]]\npath = \"/ws\"\nupstream = \"ws://{addr}\""));
    let mut client = connect(proxy.addr);
    client.write_all(request("/ws", "").as_bytes()).unwrap();
    let mut server = accept(&listener);
    read_head(&server);
    server.write_all(switching("").as_bytes()).unwrap();
    read_head(&client);
    let addr = proxy.addr;
    let downloads: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || (0..3).map(|_| get(addr, "/large.bin", "").body.len()).sum::<usize>()))
        .collect();
    let mut rounds = 0;
    while rounds < 20 || !downloads.iter().all(|download| download.is_finished()) {
        client.write_all(&masked(0x81, b"ping")).unwrap();
        assert_eq!(read_frame(&server).1.len(), 4);
        server.write_all(&super::common::plain(0x81, b"pong")).unwrap();
        assert_eq!(read_frame(&client).1, b"pong");
        rounds += 1;
    }
    for download in downloads {
        assert_eq!(download.join().unwrap(), 60 * MIB);
    }
}

/// A part of a large file begins anywhere, also between two pieces.
#[test]
fn parts_of_large_files_are_cut_where_they_say() {
    let site = Site::new();
    let whole = content(MIB);
    site.put("large.bin", &whole);
    let proxy = site.proxy("");
    let client = connect(proxy.addr);
    let piece = 64 * 1024;
    for (from, to) in [
        (0, piece - 1),
        (0, piece),
        (piece - 1, piece),
        (piece, 2 * piece - 1),
        (piece + 1, 3 * piece),
        (1, MIB - 1),
        (MIB - 1, MIB - 1),
        (7 * piece - 3, 9 * piece + 3),
    ] {
        let answer = ask(&client, "GET", "/large.bin", &format!("Range: bytes={from}-{to}\r\n"));
        assert!(answer.status == 206 && answer.body == whole[from..=to], "{from}-{to}");
    }
    let sparse = File::create(site.path().join("sparse.bin")).unwrap();
    sparse.set_len(6 << 30).unwrap();
    let answer = ask(&client, "GET", "/sparse.bin", "Range: bytes=5000000000-5000000009\r\n");
    assert_eq!(answer.field("content-range"), Some("bytes 5000000000-5000000009/6442450944"));
    assert_eq!(answer.body, [0; 10]);
    assert_eq!(ask(&client, "HEAD", "/sparse.bin", "").field("content-length"), Some("6442450944"));
}
