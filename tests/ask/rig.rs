//! A proxy, its upstream, and an authorization server that the test itself plays.

use super::common::*;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// What is known without waiting for a deadline is answered within this.
pub const AT_ONCE: Duration = Duration::from_secs(4);

pub struct Rig {
    pub proxy: Proxy,
    pub upstream: TcpListener,
    pub server: TcpListener,
    url: String,
}

/// The configuration of a route and an `[[auth]]` section called `sso`, whose server is at `{url}`.
fn config(upstream: &TcpListener, (route, section): (&str, &str), url: &str) -> String {
    let section = section.replace("{url}", url);
    let more = format!("{route}\n[[auth]]\nname = \"sso\"\n{section}\n[log]\naccess = \"stdout\"\n");
    before(upstream.local_addr().unwrap(), &more)
}

impl Rig {
    pub fn start(route: &str, section: &str) -> Rig {
        let ((upstream, _), (server, addr)) = (listen(), listen());
        let url = format!("http://{addr}");
        let proxy = Proxy::start(&config(&upstream, (route, section), &url));
        Rig { proxy, upstream, server, url }
    }

    /// Changes route and section, and waits until they are in force.
    pub fn reload(&self, route: &str, section: &str) {
        let reloads = || self.proxy.said.all().iter().filter(|line| line.contains("reloaded")).count();
        let before = reloads();
        std::fs::write(&self.proxy.config, config(&self.upstream, (route, section), &self.url)).unwrap();
        self.proxy.signal("HUP");
        eventually("a reload", || (reloads() > before).then_some(()));
    }

    /// A client that has sent its request.
    pub fn request(&self, path: &str, more: &str) -> TcpStream {
        let mut client = connect(self.proxy.addr);
        client.write_all(request(path, more).as_bytes()).unwrap();
        client
    }

    /// The server is asked: by this head.
    #[track_caller]
    pub fn asked(&self) -> (TcpStream, String) {
        let stream = accept(&self.server);
        let head = read_head(&stream);
        (stream, head)
    }

    /// The server is asked, and answers with this and a FIN.
    #[track_caller]
    pub fn answers(&self, response: &str) -> String {
        let (stream, head) = self.asked();
        answer(stream, response);
        head
    }

    /// The upstream gets the request of `client`; its head.
    #[track_caller]
    pub fn admits(&self, client: &TcpStream) -> String {
        let mut upstream = accept(&self.upstream);
        let head = read_head(&upstream);
        upstream.write_all(switching("").as_bytes()).unwrap();
        let answer = read_head(client);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        head
    }

    /// What `client` gets; no upstream is reached for it.
    #[track_caller]
    pub fn refuses(&self, client: &TcpStream, status: u16) -> String {
        let answer = String::from_utf8(read_all(client).0).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        self.upstream.set_nonblocking(true).unwrap();
        assert!(self.upstream.accept().is_err(), "an upstream was reached");
        self.upstream.set_nonblocking(false).unwrap();
        answer
    }

    /// The same, and it does not take a deadline.
    #[track_caller]
    pub fn refuses_at_once(&self, client: &TcpStream, status: u16, since: Instant) -> String {
        let answer = self.refuses(client, status);
        assert!(since.elapsed() < AT_ONCE, "{status} took {:?}", since.elapsed());
        answer
    }

    /// The server is not asked.
    #[track_caller]
    pub fn is_not_asked(&self) {
        self.server.set_nonblocking(true).unwrap();
        assert!(self.server.accept().is_err(), "the server was asked");
        self.server.set_nonblocking(false).unwrap();
    }

    /// The number of questions with this result.
    pub fn questions(&self, result: &str) -> f64 {
        self.proxy.metric(&format!("framegate_auth_questions_total{{auth=\"sso\",result=\"{result}\"}}"))
    }
}

pub fn answer(mut stream: TcpStream, response: &str) {
    // The proxy may have heard enough.
    if stream.write_all(response.as_bytes()).is_ok() {
        drop(stream.shutdown(Shutdown::Write));
    }
}

/// A response with this body; `head` begins with the status.
pub fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
