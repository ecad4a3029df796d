//! Where else the bytes of a message with new credentials could go, and who else could judge it.

use super::common::pki::{PKI, provider};
use super::common::shim::{PLAIN, SECURED, secure};
use super::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tungstenite::{ClientRequestBuilder, Message};

/// A stream, and what has been read from it.
struct Recorded(TcpStream, Arc<Mutex<Vec<u8>>>);

impl Read for Recorded {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buf)?;
        self.1.lock().unwrap().extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

impl Write for Recorded {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_client_of_another_library_renews_its_token() {
    let warning = "warn = \"30s\", warning = '{\"expires_in\":{seconds}}'";
    let form = "refresh = '{\"type\":\"auth\",\"token\":\"*\"}'";
    let (proxy, listener) = start(&format!("{warning}, {form}{TOLD}"), "");
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&recorded);
    // An echo that ends with its client.
    let server = std::thread::spawn(move || {
        let mut server = tungstenite::accept(Recorded(accept(&listener), record)).unwrap();
        while let Ok(message) = server.read() {
            if message.is_text() {
                server.send(message).unwrap();
            }
        }
    });
    let url = format!("ws://{}/", proxy.addr).parse().unwrap();
    let first = token("ada", in_seconds(20));
    let request = ClientRequestBuilder::new(url).with_header("Authorization", format!("Bearer {first}"));
    let (mut client, _) = tungstenite::client(request, connect(proxy.addr)).unwrap();
    let warned = client.read().unwrap().into_text().unwrap();
    assert!(warned.starts_with("{\"expires_in\":"), "{warned}");
    let second = token("ada", in_seconds(300));
    for text in ["one", &format!("{{\"type\":\"auth\",\"token\":\"{second}\"}}"), "two"] {
        client.send(Message::text(text)).unwrap();
    }
    let mut heard: Vec<_> = (0..3).map(|_| client.read().unwrap().into_text().unwrap().to_string()).collect();
    heard.sort();
    assert_eq!(heard, ["one", "two", "welcome"]);
    client.close(None).unwrap();
    while client.read().is_ok() {}
    server.join().unwrap();
    let seen = recorded.lock().unwrap();
    assert!(String::from_utf8_lossy(&seen).contains(&first), "the request has the first one");
    // Unmasked, frame by frame, there are two messages and a Close.
    let at = seen.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let (mut rest, mut frames) = (&seen[at..], Vec::new());
    while let [first, len, more @ ..] = rest {
        let (key, payload) = more.split_at(4);
        let len = usize::from(len & 0x7f);
        assert!(len < 126, "a token is longer");
        frames.push((*first, payload[..len].iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect::<Vec<_>>()));
        rest = &payload[len..];
    }
    assert_eq!(frames[..2], [(0x81, b"one".to_vec()), (0x81, b"two".to_vec())]);
    assert_eq!((frames.len(), frames[2].0), (3, 0x88));
}

#[test]
fn a_shadow_gets_what_the_upstream_gets() {
    let (shadow, addr) = listen();
    let keys = format!("shadow = {{ upstream = \"ws://{addr}\", percent = 100 }}");
    let (proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), &keys);
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
    let mut shadow = accept(&shadow);
    read_head(&shadow);
    shadow.write_all(switching("").as_bytes()).unwrap();
    // In one read with what is before and behind it.
    let secret = format!("AUTH {}", token("ada", in_seconds(90)));
    let sent = [masked(0x81, b"one"), masked(0x81, secret.as_bytes()), masked(0x81, b"two")].concat();
    client.write_all(&sent).unwrap();
    for server in [&upstream, &shadow] {
        hears(server, "one");
        hears(server, "two");
    }
    hears(&client, "welcome");
    // Byte by byte.
    for byte in &sent {
        client.write_all(&[*byte]).unwrap();
    }
    for server in [&upstream, &shadow] {
        hears(server, "one");
        hears(server, "two");
    }
    echo(&mut client, &mut upstream);
    hears(&shadow, "hello");
    for server in [&upstream, &shadow] {
        assert_quiet(server);
    }
}

#[test]
fn long_messages_around_it_are_spliced() {
    let (proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), "splice = \"on\"");
    let (mut client, upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
    let secret = format!("AUTH {}", token("ada", in_seconds(90)));
    let long = vec![b'A'; 300_000];
    let sent =
        [masked(0x81, &long), masked(0x81, secret.as_bytes()), masked(0x82, &long), masked(0x81, b"end")].concat();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    assert_eq!(read_frame(&upstream), (0x81, long.clone(), true));
    assert_eq!(read_frame(&upstream), (0x82, long, true));
    hears(&upstream, "end");
    hears(&writer.join().unwrap(), "welcome");
}

#[test]
fn it_may_come_before_the_101() {
    let (proxy, listener) = start(&format!("refresh = \"AUTH *\"{TOLD}"), "");
    let mut client = connect(proxy.addr);
    let secret = format!("AUTH {}", token("ada", in_seconds(90)));
    let head = request("/", &bearer(&token("ada", in_seconds(60))));
    client.write_all(&[head.as_bytes(), &masked(0x81, secret.as_bytes()), &masked(0x81, b"hello")].concat()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    assert!(read_head(&client).starts_with("HTTP/1.1 101 "));
    hears(&upstream, "hello");
    hears(&client, "welcome");
    counted(&proxy, "accepted", 1.0);
}

#[test]
fn keys_that_a_reload_has_removed_do_not_count() {
    let secret = temp_path("key");
    std::fs::write(&secret, SECRET).unwrap();
    let (listener, addr) = listen();
    let file = |keys: &str| {
        let auth = format!("[[auth]]\nname = \"users\"\ntype = \"jwt\"\nkeys = [{keys}]\n");
        before(
            addr,
            &format!("name = \"chat\"\nauth = \"users\"\ncredentials = {{ refresh = \"AUTH *\"{TOLD} }}\n{auth}"),
        )
    };
    let both = format!("{{ secret_file = {secret:?}, kid = \"old\" }}");
    let proxy = Proxy::start(&file(&both));
    let (mut client, mut upstream) = open_with(&proxy, &listener, &bearer(&token("ada", in_seconds(60))));
    let other = temp_path("key");
    std::fs::write(&other, "another secret of more than 32 bytes").unwrap();
    std::fs::write(&proxy.config, secure(&file(&format!("{{ secret_file = {other:?} }}")))).unwrap();
    proxy.signal("HUP");
    proxy.said.wait("a reload", |line| line.contains("reloaded").then_some(()));
    send(&mut client, &format!("AUTH {}", token("ada", in_seconds(90))));
    hears(&client, "no");
    echo(&mut client, &mut upstream);
}

#[test]
fn a_client_certificate_counts_as_before() {
    if *SECURED != PLAIN {
        // It has TLS of its own.
        return;
    }
    let secret = temp_path("key");
    std::fs::write(&secret, SECRET).unwrap();
    let (listener, addr) = listen();
    let (server, ca, device) = (PKI.server(), PKI.ca(), PKI.client("device-7"));
    let toml = format!(
        "[workers]\ncount = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         tls = {{ certificates = [{}], client_auth = \"optional\", client_ca = {ca:?} }}\n\
         [[route]]\nupstream = \"ws://{addr}\"\nauth = {{ all = [\"device\", \"users\"] }}\n\
         credentials = {{ refresh = \"AUTH *\"{TOLD} }}\n\
         [[auth]]\nname = \"device\"\ntype = \"client_certificate\"\n\
         [[auth]]\nname = \"users\"\ntype = \"jwt\"\nkeys = [{{ secret_file = {secret:?} }}]\n",
        server.toml()
    );
    let config = temp_path("toml");
    std::fs::write(&config, toml).unwrap();
    let binary = env!("CARGO_BIN_EXE_framegate");
    let proxy = Proxy::spawn(std::process::Command::new(binary).arg("run").arg("-c").arg(&config), config.clone());
    let (chain, key) = device.der();
    let tls = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(PKI.roots()).with_client_auth_cert(chain, key).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = StreamOwned::new(ClientConnection::new(Arc::new(tls), name).unwrap(), connect(proxy.addr));
    client.write_all(request("/", &bearer(&token("ada", in_seconds(60)))).as_bytes()).unwrap();
    let mut upstream = accept(&listener);
    read_head(&upstream);
    upstream.write_all(switching("").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let secret = format!("AUTH {}", token("ada", in_seconds(90)));
    client.write_all(&masked(0x81, secret.as_bytes())).unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).unwrap();
    assert_eq!(frame, *b"\x81\x07welcome");
    counted(&proxy, "accepted", 1.0);
}

/// What a client of another language prints that renews its token; `None`, and why, where it is not
/// installed.
fn renewed(program: &str, url: &str) -> Option<Vec<String>> {
    let beside_tmp = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    let env = std::env::var_os("PEERS_ENV").map_or_else(beside_tmp, PathBuf::from);
    let (interpreter, file, installed) = match program {
        "websockets" => (env.join("python/bin/python"), "refresh.py", env.join("python/bin/python").exists()),
        _ => ("node".into(), "refresh.mjs", env.join("node/node_modules/ws").exists()),
    };
    if !installed {
        assert!(std::env::var_os("CI").is_none(), "with CI set no peer may be missing: {program}");
        eprintln!("SKIPPED: {program} is missing; run tests/peers/setup.sh");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file);
    let output = Command::new(interpreter).arg(script).args([url, SECRET]).env("NODE_DIR", env.join("node")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn clients_of_other_languages_renew_their_tokens() {
    for program in ["websockets", "ws"] {
        let warning = "warn = \"30s\", warning = '{\"expires_in\":{seconds}}'";
        let form = "refresh = '{\"type\":\"auth\",\"token\":\"*\"}'";
        let (proxy, listener) = start(&format!("{warning}, {form}{TOLD}"), "");
        let heard = std::thread::scope(|scope| {
            let client = scope.spawn(|| renewed(program, &format!("ws://{}/", proxy.addr)));
            let server = eventually("a session, or no client", || {
                listener.set_nonblocking(true).unwrap();
                match listener.accept() {
                    Ok((stream, _)) => Some(Some(stream)),
                    Err(_) => client.is_finished().then_some(None),
                }
            });
            if let Some(stream) = server {
                stream.set_nonblocking(false).unwrap();
                let mut server = tungstenite::accept(patient(stream)).unwrap();
                // A compressed message would be an error here.
                while let Ok(message) = server.read() {
                    if message.is_text() {
                        server.send(message).unwrap();
                    }
                }
            }
            client.join().unwrap()
        });
        let Some(heard) = heard else { continue };
        assert_eq!(heard.len(), 4, "{program}: {heard:?}");
        assert!(heard[0].starts_with("{\"expires_in\":"), "{heard:?}");
        let echoed = |at: usize| heard[at].replace(' ', "");
        assert_eq!(
            (echoed(1), echoed(3)),
            ("{\"say\":\"one\"}".into(), "{\"type\":\"auth\",\"token\":\"two\"}".into())
        );
        assert_eq!(heard[2], "welcome", "{program}");
        counted(&proxy, "accepted", 1.0);
    }
}
