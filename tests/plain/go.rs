//! Go's net/http on both sides, and as the server for ranges and expectations of curl.

use super::common::*;
use super::peers::{found, run};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The program, built once; `None` without Go.
fn program() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("go");
        std::fs::create_dir_all(&folder).unwrap();
        let (source, program) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plain/peer.go"), folder.join("peer"));
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(source).env("GOCACHE", folder.join("cache"));
        let output = found("go", go.env("GO111MODULE", "off").output())?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(program)
    };
    BUILT.get_or_init(build).as_ref()
}

/// The server. Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A proxy before the server, with these keys of its route.
fn start(route: &str) -> Option<(Server, Proxy)> {
    let mut child = Command::new(program()?).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line).unwrap();
    let port: u16 = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 2\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [log]\naccess = \"stdout\"\n[[upstream]]\nname = \"app\"\nendpoints = [\"http://127.0.0.1:{port}\"]\n\
         [[route]]\nprotocols = [\"websocket\", \"http\"]\nupstream = \"app\"\n{route}\n"
    ));
    Some((server, proxy))
}

#[test]
fn go_is_told_what_go_says() {
    let Some((_server, mut proxy)) = start("") else { return };
    let url = format!("http://{}", proxy.addr);
    let out = run(program().unwrap().to_str().unwrap(), &["ask", &url], "").unwrap();
    let asked: usize = out.trim().strip_prefix("ok ").unwrap().parse().unwrap();
    let ends = proxy.stop();
    let of = |cause: &str| ends.iter().filter(|line| line.contains(&format!(" cause={cause} "))).count();
    // One that broke off, and one whose client has left.
    assert_eq!((of("answered"), ends.len()), (asked, asked + 2), "{ends:#?}");
}

#[test]
fn curl_asks_for_ranges_and_expects_to_continue() {
    let Some((_server, proxy)) = start("limits = { max_body = \"10MiB\" }") else { return };
    let url = |path: &str| format!("http://{}{path}", proxy.addr);
    let size = |args: &[&str], path: &str| {
        let said = "%{http_code} %{size_download} %{num_connects}";
        let url = url(path);
        let all = [&["--http1.1", "-sS", "-o", "/dev/null", "-w", said], args, &[url.as_str()]].concat();
        run("curl", &all, "")
    };
    let Some(whole) = size(&[], "/file") else { return };
    assert_eq!(whole, "200 1000000 1");
    let rows: [(&[&str], &str); 6] = [
        (&["-r", "0-99"], "206 100 1"),
        (&["-r", "999990-"], "206 10 1"),
        (&["-r", "-5"], "206 5 1"),
        (&["-C", "900000"], "206 100000 1"),
        (&["-r", "1000000-"], "416 33 1"),
        (&["-z", "1 Jan 2021"], "304 0 1"),
    ];
    for (args, expected) in rows {
        assert_eq!(size(args, "/file").as_deref(), Some(expected), "{args:?}");
        // HTTP/1.0 knows ranges, too.
        assert_eq!(size(&[&["-0"], args].concat(), "/file").as_deref(), Some(expected), "{args:?}");
    }
    assert_eq!(size(&["-I"], "/file").as_deref(), Some("200 0 1"));
    // The server says 100, or that it does not want the body.
    let body = "x".repeat(2_000_000);
    let put = |path: &str, more: &[&str]| {
        let url = url(path);
        let args = ["--http1.1", "-sS", "-v", "--expect100-timeout", "30", "-H", "Expect: 100-continue"];
        let said = ["-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "--stderr", "-"];
        run("curl", &[&args[..], &said, more, &[&url]].concat(), &body).unwrap()
    };
    for more in [["-T", "-"], ["--data-binary", "@-"]] {
        let out = put("/echo", &more);
        // curl counts its chunk headers, too.
        let last = out.lines().last().unwrap();
        assert!(out.contains("< HTTP/1.1 100 Continue") && last.starts_with("200 2000"), "{out}");
        let out = put("/refused", &more);
        assert!(!out.contains("HTTP/1.1 100 ") && out.ends_with("403 0"), "{out}");
    }
    // HTTP/1.0 is not told to go on, and does not wait for it.
    let out = run("curl", &["-0", "-sS", "--data-binary", "@-", "-w", " %{http_code}", &url("/echo")], &body[..100]);
    assert_eq!(out.unwrap(), format!("{} 200", &body[..100]));
}
