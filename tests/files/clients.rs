//! Clients that others wrote: curl, Python's http.client and requests.

use super::common::Proxy;
use super::common::pki::PKI;
use super::site::*;
use std::fs;
use std::process::Command;

/// `None`: the tool is not there, which is an error where CI is set.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(tool).args(args).output() else {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        eprintln!("{tool} is missing: nothing was tested with it");
        return None;
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?}: {out}{err}");
    Some(out.into_owned())
}

#[test]
fn curl_resumes_compares_and_does_not_ask_twice() {
    let site = Site::new();
    let whole: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    site.put("large.bin", &whole);
    let proxy = site.proxy("");
    let url = |path: &str| format!("http://{}{path}", proxy.addr);
    let folder = Site::new();
    let local = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let Some(out) = run("curl", &["-sS", "--http1.1", "-r", "3-5", &url("/letters.txt")]) else { return };
    assert_eq!(out, "def");
    assert_eq!(run("curl", &["-sS", "-r", "-3", &url("/letters.txt")]).unwrap(), "xyz");
    // A download that has been cut goes on.
    let cut = local("cut.bin");
    fs::write(&cut, &whole[..1_234_567]).unwrap();
    let said = "%{http_code} %{size_download}";
    let out = run("curl", &["-sS", "-C", "-", "-o", &cut, "-w", said, &url("/large.bin")]).unwrap();
    assert_eq!(out, format!("206 {}", whole.len() - 1_234_567));
    assert!(fs::read(&cut).unwrap() == whole);
    // By the time of the local copy,
    let copy = local("copy.txt");
    let get = |more: &[&str]| {
        let url = url("/letters.txt");
        let args = [&["-sS", "-o", &*copy, "-w", said], more, &[url.as_str()]].concat();
        run("curl", &args).unwrap()
    };
    assert_eq!(get(&["-R"]), "200 26");
    assert_eq!(get(&["-z", &copy]), "304 0");
    assert_eq!(get(&["-z", "Thu, 01 Jan 1970 00:00:00 GMT"]), "200 26");
    assert_eq!(get(&["-z", "-Thu, 01 Jan 1970 00:00:00 GMT"]), "412 21");
    // and by its tag.
    let etag = local("etag");
    assert_eq!(get(&["--etag-save", &etag]), "200 26");
    assert_eq!(get(&["--etag-compare", &etag]), "304 0");
    site.put("letters.txt", "changed");
    assert_eq!(get(&["--etag-compare", &etag]), "200 7");
    // One connection for all, with the redirect of a directory on the way.
    let both = ["-sSL", "-w", " %{http_code} %{num_connects}\n", &url("/app.js"), &url("/docs"), &url("/nothing")];
    let out = run("curl", &both).unwrap();
    assert_eq!(out, "let x;\n 200 1\n<h1>Docs</h1>\n 200 0\nNot Found.\n 404 0\n");
    let out = run("curl", &["-sS", "-I", &url("/large.bin")]).unwrap();
    assert!(out.starts_with("HTTP/1.1 200 OK\r\n") && out.contains("Content-Length: 3000000\r\n"), "{out}");
    for path in ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml"] {
        let out = run("curl", &["-sS", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", &url(path)]).unwrap();
        assert_eq!(out, "400", "{path}");
    }
    let out = run("curl", &["-sS", "-d", "x", "-o", "/dev/null", "-w", "%{http_code}", &url("/")]).unwrap();
    assert_eq!(out, "405");
}

#[test]
fn files_come_over_tls_as_well() {
    let site = Site::new();
    let whole: Vec<u8> = (0..8_000_000u32).map(|at| (at % 251) as u8).collect();
    site.put("large.bin", &whole);
    let tls = format!("tls = {{ certificates = [{}] }}", PKI.server().toml());
    let plain = "[[listener]]\nlisten = \"127.0.0.1:0\"\n";
    let proxy = Proxy::start(&site.config("").replace(plain, &format!("{plain}{tls}\n")));
    let url = |path: &str| format!("https://localhost:{}{path}", proxy.addr.port());
    let ca = PKI.ca();
    let get = |more: &[&str]| run("curl", &[&["-sS", "-4", "--cacert", ca.to_str().unwrap()], more].concat());
    let local = site.path().join("got.bin");
    let (local, large) = (local.to_str().unwrap(), url("/large.bin"));
    // Slower than it is read.
    let Some(out) = get(&["--limit-rate", "6M", "-o", local, "-w", "%{http_code} %{size_download}", &large]) else {
        return;
    };
    assert_eq!(out, "200 8000000");
    assert!(fs::read(local).unwrap() == whole);
    assert_eq!(get(&["-r", "3-5", &url("/letters.txt")]).unwrap(), "def");
    let all = [url("/app.js"), url("/nothing"), url("/docs/")];
    let out = get(&["-w", "%{num_connects}\n", &all[0], &all[1], &all[2]]).unwrap();
    assert_eq!(out, "let x;\n1\nNot Found.\n0\n<h1>Docs</h1>\n0\n");
}

const PYTHON: &str = r#"
import http.client, sys
host, port = sys.argv[1].split(":")
connection = http.client.HTTPConnection(host, int(port), timeout=20)
def get(path, method="GET", **headers):
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response, response.read()
response, body = get("/letters.txt")
assert (response.status, body) == (200, b"abcdefghijklmnopqrstuvwxyz"), (response.status, body)
etag, sock = response.getheader("ETag"), connection.sock
response, body = get("/letters.txt", If_None_Match=etag)
assert (response.status, body) == (304, b"")
response, body = get("/letters.txt", Range="bytes=1-2", If_Range=etag)
assert (response.status, body, response.getheader("Content-Range")) == (206, b"bc", "bytes 1-2/26")
response, body = get("/letters.txt", "HEAD")
assert (response.status, body, response.getheader("Content-Length")) == (200, b"", "26")
response, body = get("/nothing")
assert response.status == 404
response, body = get("/large.bin")
assert len(body) == 3_000_000 and body == bytes(at % 251 for at in range(len(body)))
assert connection.sock is sock, "one connection for all"
try:
    import requests
except ImportError:
    print("without requests")
    sys.exit()
with requests.Session() as session:
    url = f"http://{sys.argv[1]}"
    page = session.get(url + "/docs")
    assert (page.url, page.text, len(page.history)) == (url + "/docs/", "<h1>Docs</h1>\n", 1)
    assert page.encoding == "utf-8"
    with session.get(url + "/large.bin", stream=True) as large:
        assert sum(len(part) for part in large.iter_content(10_000)) == 3_000_000
    part = session.get(url + "/large.bin", headers={"Range": "bytes=2999999-"})
    assert (part.status_code, len(part.content)) == (206, 1)
    assert session.post(url + "/", data="x").status_code == 405
print("with requests")
"#;

#[test]
fn python_reads_files_on_one_connection() {
    let site = Site::new();
    site.put("large.bin", (0..3_000_000u32).map(|at| (at % 251) as u8).collect::<Vec<_>>());
    let proxy = site.proxy("");
    let Some(out) = run("python3", &["-c", PYTHON, &proxy.addr.to_string()]) else { return };
    assert!(out.starts_with("with"), "{out}");
}
