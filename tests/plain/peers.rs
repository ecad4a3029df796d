//! Clients and servers that others wrote: curl, Node's http with keep-alive agents, Python's
//! http.client. Go and wrk have files of their own.

use super::common::*;
use super::recorder::Recorder;
use std::io::Write;
use std::process::{Command, Stdio};

/// `None`: the tool is not there, which is an error where CI is set.
pub fn found<T>(tool: &str, started: std::io::Result<T>) -> Option<T> {
    if started.is_err() {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        eprintln!("{tool} is missing: nothing was tested with it");
    }
    started.ok()
}

/// What the tool says to its standard output; `None` where it is not there.
pub fn run(tool: &str, args: &[&str], input: &str) -> Option<String> {
    let child =
        Command::new(tool).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = found(tool, child)?;
    // It may not want all of it.
    let _written = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{tool} {args:?}: {out}{err}");
    Some(out.into_owned())
}

#[test]
fn curl_gets_puts_and_goes_on() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("limits = { max_body = \"10MiB\" }");
    let url = |path: &str| format!("http://{}{path}", proxy.addr);
    let body = "x".repeat(3_000_000);
    let said = "%{http_code} %{num_connects}\\n";
    let put = |more: &[&str]| {
        let url = url("/put");
        let args = [&["--http1.1", "-sS", "-o", "/dev/null", "-w", said, "-T", "-"], more, &[url.as_str()]].concat();
        run("curl", &args, &body)
    };
    let Some(out) = put(&["--expect100-timeout", "0.2"]) else { return };
    assert_eq!(out, "200 1\n");
    assert_eq!(put(&["-H", "Transfer-Encoding: chunked"]).unwrap(), "200 1\n");
    assert!(upstream.seen().iter().all(|seen| seen.body == body.as_bytes()));
    // One connection for all of them.
    let out = run("curl", &["-sS", "-w", " %{num_connects}\n", &url("/a"), &url("/b"), &url("/c")], "").unwrap();
    assert_eq!(out, "GET /a HTTP/1.1 1\nGET /b HTTP/1.1 0\nGET /c HTTP/1.1 0\n");
    let out = run("curl", &["-sS", "-0", &url("/ten")], "").unwrap();
    assert_eq!(out, "GET /ten HTTP/1.1");
    let out = run("curl", &["-sS", "-I", "-r", "0-3", &url("/head")], "").unwrap();
    assert!(out.starts_with("HTTP/1.1 200 OK\r\n") && out.contains("Content-Length: 19\r\n"), "{out}");
    assert!(upstream.seen().last().unwrap().head.contains("Range: bytes=0-3\r\n"));
}

const NODE: &str = r#"
import http from 'node:http';
const [port, upstream] = process.argv.slice(2).map(Number);
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts);
    if (request.url === '/trailers') {
      response.writeHead(200, { Trailer: 'X-Sum' });
      response.write(body);
      response.addTrailers({ 'X-Sum': String(body.length) });
      return response.end();
    }
    if (request.url === '/hints') response.writeEarlyHints({ link: '</a.css>; rel=preload' });
    response.setHeader('X-Method', request.method);
    response.end(body);
  });
});
await new Promise((done) => server.listen(upstream, '127.0.0.1', done));
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
let sockets = new Set(), hints = 0;
const ask = (method, path, body, headers = {}) => new Promise((done, failed) => {
  const request = http.request({ port, host: '127.0.0.1', agent, method, path, headers }, (response) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => done({ status: response.statusCode, headers: response.headers, trailers: response.trailers, body: Buffer.concat(parts) }));
  });
  request.on('socket', (socket) => sockets.add(socket));
  request.on('information', () => hints += 1);
  request.on('error', failed);
  if (body) request.write(body);
  request.end();
});
const check = (what, ok) => { if (!ok) { console.error('wrong: ' + what); process.exit(1); } };
const jobs = [];
for (let n = 0; n < 400; n++) {
  const body = Buffer.alloc((n * 977) % 70000, n & 255);
  const method = ['POST', 'PUT', 'PATCH', 'DELETE'][n % 4];
  const headers = n % 3 ? { 'Content-Length': body.length } : { 'Transfer-Encoding': 'chunked' };
  jobs.push(ask(method, '/echo/' + n, body, headers).then((answer) => {
    check('body of ' + n, answer.status === 200 && answer.body.equals(body) && answer.headers['x-method'] === method);
  }));
}
await Promise.all(jobs);
const trailers = await ask('POST', '/trailers', Buffer.alloc(5000, 'x'), { TE: 'trailers', 'Transfer-Encoding': 'chunked' });
check('trailers', trailers.trailers['x-sum'] === '5000' && trailers.body.length === 5000);
const early = await ask('GET', '/hints');
check('hints', early.status === 200 && hints === 1);
check('sockets', sockets.size <= 4);
console.log('ok ' + sockets.size);
process.exit(0);
"#;

#[test]
fn node_as_client_and_server_keeps_its_connections() {
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = port(&free);
    drop(free);
    let proxy = Proxy::start(&format!(
        "[workers]\ncount = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"ws://127.0.0.1:{upstream}\"\n"
    ));
    let script = temp_path("mjs");
    std::fs::write(&script, NODE).unwrap();
    let args = [script.to_str().unwrap(), &proxy.addr.port().to_string(), &upstream.to_string()];
    if let Some(out) = run("node", &args, "") {
        assert_eq!(out, "ok 4\n");
    }
    std::fs::remove_file(&script).unwrap();
}

const PYTHON: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=20)
sock = None
for n in range(200):
    method = ('GET', 'POST', 'PUT', 'HEAD', 'OPTIONS')[n % 5]
    body = (b'y' * (n * 131)) if method in ('POST', 'PUT') else None
    if n % 10 == 1:
        connection.request(method, '/%d' % n, iter([body[:50], body[50:], b'']), encode_chunked=True)
    else:
        connection.request(method, '/%d' % n, body)
    response = connection.getresponse()
    text = response.read().decode()
    assert response.status == 200, response.status
    assert text == ('' if method == 'HEAD' else '%s /%d HTTP/1.1' % (method, n)), text
    sock = sock or connection.sock
    assert connection.sock is sock, 'the connection was not kept'
print('ok')
"#;

#[test]
fn python_keeps_its_connection() {
    let upstream = Recorder::start();
    let proxy = upstream.proxy("");
    if let Some(out) = run("python3", &["-c", PYTHON, &proxy.addr.port().to_string()], "") {
        assert_eq!(out, "ok\n");
        assert_eq!((upstream.opened(), upstream.seen().len()), (1, 200));
    }
}
