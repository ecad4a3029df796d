//! TLS with other implementations: OpenSSL, curl, Node, Python, nginx, Chromium.

use super::upstream::before_wss;
use super::*;

/// The output of OpenSSL's client about a handshake.
fn s_client(addr: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &addr.to_string(), "-servername", "localhost", "-CAfile"]).arg(PKI.ca());
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn openssl_and_curl_connect_and_weak_parameters_are_refused() {
    let (listener, addr) = listen();
    let ocsp = temp_path("ocsp");
    std::fs::write(&ocsp, b"not looked into here").unwrap();
    let server = PKI.server();
    let stapled = format!("certificates = [{{ cert = {:?}, key = {:?}, ocsp = {ocsp:?} }}]", server.cert, server.key);
    let proxy = start(addr, &stapled);
    for (args, expected) in [
        (&["-tls1_3"][..], "TLSv1.3"),
        (&["-tls1_2"], "TLSv1.2"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], "ECDHE-ECDSA-CHACHA20-POLY1305"),
        (&["-status"], "OCSP response:"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&["-tls1_3", "-groups", "P-384"], "ECDH, secp384r1, 384 bits"),
        (&["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], "alert"),
        (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert handshake failure"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], "alert handshake failure"),
    ] {
        let said = s_client(proxy.addr, args);
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(
            expected.contains("alert")
                || said.contains("Verify return code: 0 (ok)")
                || said.contains("Verification: OK"),
            "{said}"
        );
    }
    // Neither renegotiation nor compression.
    let said = s_client(proxy.addr, &["-tls1_2"]);
    assert!(said.contains("Secure Renegotiation IS supported") && said.contains("Compression: NONE"), "{said}");
    proxy.log.wait_for("ended_by=downstream phase=tls cause=tls-no-common-parameters");
    let answer = std::thread::scope(|scope| {
        let url = format!("https://localhost:{}/", proxy.addr.port());
        let curl = scope.spawn(move || {
            ran(Command::new("curl").args(["-s", "-i", "--http1.1", "-m", "20", "--cacert"]).arg(PKI.ca()).args([
                "-H",
                "Connection: Upgrade",
                "-H",
                "Upgrade: websocket",
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                &format!("Sec-WebSocket-Key: {}", common::KEY),
                &url,
            ]))
        });
        let mut upstream = accept(&listener);
        read_head(&upstream);
        upstream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret").unwrap();
        curl.join().unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.ends_with("secret"), "{answer}");
}

/// The folder where tests/peers/setup.sh installs Node's `ws` and Python's `websockets`.
fn peers() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into(), PathBuf::from);
    let peers = std::env::var_os("PEERS_ENV").map_or_else(|| target.join("peers"), PathBuf::from);
    let found = peers.join("node/node_modules").exists() && peers.join("python/bin/python").exists();
    assert!(found || std::env::var_os("CI").is_none(), "CI has the peers: tests/peers/setup.sh");
    if !found {
        eprintln!("skipped: no peers here, see tests/peers/setup.sh");
    }
    found.then_some(peers)
}

const NODE_SERVER: &str = "const fs = require('fs'), https = require('https'), {WebSocketServer} = require('ws');
const s = https.createServer({cert: fs.readFileSync(process.argv[1]), key: fs.readFileSync(process.argv[2])});
new WebSocketServer({server: s, maxPayload: 0}).on('connection', c => c.on('message', (m, binary) => c.send(m, {binary})));
s.listen(0, '127.0.0.1', () => console.log(s.address().port));";

const NODE_CLIENT: &str = "const fs = require('fs'), {WebSocket} = require('ws');
const c = new WebSocket(process.argv[1], {ca: fs.readFileSync(process.argv[2])});
const sizes = [0, 1, 1000, 65536, 1000003]; let got = 0;
const next = () => c.send(Buffer.alloc(sizes[got], got));
c.on('open', next);
c.on('error', e => { console.log('error', e.message); process.exit(1); });
c.on('message', m => { if (!m.equals(Buffer.alloc(sizes[got], got))) throw new Error('changed'); ++got < sizes.length ? next() : c.close(1000); });
c.on('close', code => console.log(got, code));";

const PYTHON_CLIENT: &str = "
import asyncio, ssl, sys, websockets
async def main():
    context = ssl.create_default_context(cafile=sys.argv[2])
    async with websockets.connect(sys.argv[1], ssl=context, max_size=None) as ws:
        for size in [0, 1, 1000, 65536, 1000003]:
            await ws.send(b'x' * size)
            assert await ws.recv() == b'x' * size
    print(ws.transport is not None, ws.close_code)
asyncio.run(main())";

#[test]
fn node_and_python_talk_over_tls_on_both_sides() {
    let Some(peers) = peers() else { return };
    let server = PKI.server();
    let mut node = Command::new("node")
        .args(["-e", NODE_SERVER])
        .arg(&server.cert)
        .arg(&server.key)
        .env("NODE_PATH", peers.join("node/node_modules"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port = common::Lines::of(node.stdout.take().unwrap()).wait("a port", |line| line.parse::<u16>().ok());
    let ca = PKI.ca();
    let proxy = Proxy::start(&format!(
        "[[upstream]]\nname = \"app\"\nendpoints = [\"wss://localhost:{port}\"]\ntls = {{ ca = {ca:?} }}\n{}",
        config("app", &certificates(&[&server]), "")
    ));
    let url = format!("wss://localhost:{}/", proxy.addr.port());
    let said = ran(Command::new("node")
        .args(["-e", NODE_CLIENT, &url])
        .arg(&ca)
        .env("NODE_PATH", peers.join("node/node_modules")));
    assert_eq!(said.trim(), "5 1000");
    let said = ran(Command::new(peers.join("python/bin/python")).args(["-c", PYTHON_CLIENT, &url]).arg(&ca));
    assert_eq!(said.trim(), "True 1000");
    eventually("both ended", || {
        (proxy.metric("framegate_sessions_ended_total{cause=\"close\",ended_by=\"downstream\"}") == 2.0).then_some(())
    });
    node.kill().unwrap();
    node.wait().unwrap();
}

const NGINX: &str = "daemon off; master_process off; pid FOLDER/nginx.pid; error_log stderr; events {}
http {
  access_log off; client_body_temp_path FOLDER; proxy_temp_path FOLDER; fastcgi_temp_path FOLDER; uwsgi_temp_path FOLDER;
  scgi_temp_path FOLDER;
  server {
    listen 127.0.0.1:PORT ssl; ssl_certificate CERT; ssl_certificate_key KEY; ssl_buffer_size 4k;
    location / {
      proxy_pass http://BACKEND; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection Upgrade;
    }
  }
}";

#[test]
fn nginx_serves_as_tls_upstream() {
    if Command::new("nginx").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has nginx");
        return eprintln!("skipped: no nginx here");
    }
    let (listener, backend) = listen();
    let (pair, folder) = (PKI.server(), common::temp_path("nginx"));
    std::fs::create_dir(&folder).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let conf = NGINX.replace("FOLDER", folder.to_str().unwrap()).replace("PORT", &port.to_string());
    let conf = conf.replace("BACKEND", &backend.to_string()).replace("CERT", pair.cert.to_str().unwrap());
    std::fs::write(folder.join("conf"), conf.replace("KEY", pair.key.to_str().unwrap())).unwrap();
    let mut nginx = Command::new("nginx").arg("-c").arg(folder.join("conf")).arg("-p").arg(&folder).spawn().unwrap();
    eventually("nginx", || TcpStream::connect(("127.0.0.1", port)).ok());
    let proxy = before_wss(&format!("127.0.0.1:{port}"), &format!("ca = {:?}", PKI.ca()), "");
    let client = connect(proxy.addr);
    let accepted = std::thread::spawn(move || tungstenite::accept(accept(&listener)).unwrap());
    let (mut client, _) = tungstenite::client(format!("ws://{}/", proxy.addr), client).unwrap();
    let mut upstream = accepted.join().unwrap();
    for len in [0, 1, 4_096, 70_000, 1_000_000] {
        let message = tungstenite::Message::binary(vec![len as u8; len]);
        client.send(message.clone()).unwrap();
        let there = upstream.read().unwrap();
        assert!(there == message, "{len} bytes there");
        upstream.send(there).unwrap();
        assert!(client.read().unwrap() == message, "{len} bytes back");
    }
    client.close(None).unwrap();
    assert!(upstream.read().unwrap().is_close());
    assert!(upstream.read().is_err());
    drop(upstream);
    assert!(client.read().unwrap().is_close());
    drop(client);
    let end = proxy.log.wait_for(" end ");
    assert!(end.contains("cause=close"), "{end}");
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

/// The last message of the page reports what it received.
const PAGE: &str = "data:text/html,<script>const s = new WebSocket('URL'); s.binaryType = 'arraybuffer';\
    s.onopen = () => s.send('from the page');\
    s.onmessage = m => s.send(m.data.byteLength + ' ' + new Uint8Array(m.data).every(b => b === 7));</script>";

#[test]
fn chromium_talks_over_tls() {
    let named = std::env::var("CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(str::to_owned);
    let runs = |c: &String| Command::new(c).arg("--version").output().is_ok_and(|o| o.status.success());
    let Some(chromium) = named.into_iter().chain(known).find(runs) else {
        assert!(std::env::var_os("CI").is_none(), "CI has Chromium");
        return eprintln!("skipped: no Chromium here");
    };
    let (listener, addr) = listen();
    let proxy = start(addr, "");
    let spki = Command::new("sh")
        .args([
            "-c",
            "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary",
        ])
        .arg(PKI.server().cert)
        .output()
        .unwrap();
    let spki = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, spki.stdout);
    let profile = common::temp_path("chromium");
    let mut child = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--disable-extensions", "--disable-background-networking", "--no-proxy-server"])
        .arg("--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--ignore-certificate-errors-spki-list={spki}"))
        .args(["--remote-debugging-port=0", &PAGE.replace("URL", &format!("wss://localhost:{}/", proxy.addr.port()))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut upstream = tungstenite::accept(accept(&listener)).unwrap();
    assert_eq!(upstream.read().unwrap().into_text().unwrap().as_str(), "from the page");
    upstream.send(tungstenite::Message::binary(vec![7; 100_000])).unwrap();
    assert_eq!(upstream.read().unwrap().into_text().unwrap().as_str(), "100000 true");
    child.kill().unwrap();
    child.wait().unwrap();
    // Chromium may still write files while it exits.
    let _left = std::fs::remove_dir_all(profile);
    counts(&proxy, "framegate_tls_handshakes_total{side=\"downstream\",outcome=\"failed\"}", 0.0);
}
