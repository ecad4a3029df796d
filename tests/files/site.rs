//! A directory with a small site, a proxy that serves it, and a client.

use super::common::*;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

/// A directory that is removed at the end.
pub struct Site(pub PathBuf);

impl Drop for Site {
    fn drop(&mut self) {
        // What is left in the directory of temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Site {
    /// With `index.html`, `app.js`, `docs/index.html` and `letters.txt`.
    pub fn new() -> Site {
        let site = Site(temp_path("site"));
        std::fs::create_dir(&site.0).unwrap();
        site.put("index.html", "<h1>Home</h1>\n");
        site.put("app.js", "let x;\n");
        site.put("docs/index.html", "<h1>Docs</h1>\n");
        site.put("letters.txt", "abcdefghijklmnopqrstuvwxyz");
        site
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A proxy that serves it at `/*`; `more` are keys of the route, and sections behind it.
    pub fn proxy(&self, more: &str) -> Proxy {
        Proxy::start(&self.config(more))
    }

    pub fn config(&self, more: &str) -> String {
        format!(
            "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
             [log]\naccess = \"stdout\"\n[[route]]\nname = \"site\"\nfiles = {:?}\n{more}\n",
            self.0
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let is_it = |line: &&str| line.split_once(": ").is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(is_it).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub fn request_of(method: &str, target: &str, more: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

/// The next response, whose length it says itself.
pub fn answer(client: &TcpStream, method: &str) -> Answer {
    let head = read_head(client);
    let status = head[9..12].parse().unwrap();
    let mut answer = Answer { status, head, body: Vec::new() };
    if method != "HEAD" && status != 304 {
        let length = answer.field("content-length").unwrap().parse().unwrap();
        answer.body = read_exact(client, length);
    }
    answer
}

/// Asks on a connection that lives on.
pub fn ask(mut client: &TcpStream, method: &str, target: &str, more: &str) -> Answer {
    client.write_all(request_of(method, target, more).as_bytes()).unwrap();
    answer(client, method)
}

/// Asks on a connection of its own.
pub fn get(addr: SocketAddr, target: &str, more: &str) -> Answer {
    ask(&connect(addr), "GET", target, more)
}
