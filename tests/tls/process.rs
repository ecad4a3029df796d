//! TLS seen from the command line, the log and the metrics: check, expiry, redirects, flags, the
//! demo.

use super::*;

fn check(toml: &str) -> (String, i32) {
    let path = temp_path("toml");
    std::fs::write(&path, toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["check", "-c"]).arg(&path).output().unwrap();
    std::fs::remove_file(path).unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (said, output.status.code().unwrap())
}

#[test]
fn check_reads_keys_and_certificates() {
    let soon = PKI.sign("soon", &["a.test"], |params| {
        let now = std::time::SystemTime::now();
        params.not_after = (now + std::time::Duration::from_secs(5 * 24 * 3600 + 60)).into();
    });
    let (server, expired) = (PKI.server(), PKI.expired("check-expired", &["a.test"]));
    let (said, code) = check(&config("ws://127.0.0.1:1", &certificates(&[&server, &soon, &expired]), ""));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("certificate {}, 5 days left\n", soon.cert.display())), "{said}");
    assert!(said.contains(&format!("warning    certificate {} expires in 5 days\n", soon.cert.display())), "{said}");
    assert!(said.contains(&format!("warning    certificate {} has expired\n", expired.cert.display())), "{said}");
    assert!(said.contains("TLS 1.2"), "{said}");
    let memory =
        ["TLS connections with clients, 3 KiB and an incomplete record of 17 KiB each", "workers, 1 MiB each for TLS"];
    assert!(memory.iter().all(|row| said.contains(row)), "{said}");

    let mixed = Pair { cert: server.cert.clone(), key: soon.key.clone() };
    let none = Pair { cert: "/no/such.pem".into(), key: server.key.clone() };
    let swapped = Pair { cert: server.key.clone(), key: server.cert.clone() };
    for (pair, wrong) in [
        (&mixed, "is not the key of the certificate in"),
        (&none, "cannot read /no/such.pem: No such file"),
        (&swapped, "contains no certificate in PEM"),
    ] {
        let toml = config("ws://127.0.0.1:1", &certificates(&[pair]), "");
        let (said, code) = check(&toml);
        assert!(code == 2 && said.contains(wrong) && said.lines().count() == 1, "{said}");
        // `run` refuses it like `check`.
        let path = temp_path("toml");
        std::fs::write(&path, &toml).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).args(["run", "-c"]).arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(wrong), "{said}");
    }
    let (said, code) = check(&config(
        "wss://a.test",
        &format!("{}, client_auth = \"required\", client_ca = \"/no/ca\"", certificates(&[&server])),
        "",
    ));
    assert!(code == 2 && said.contains("/no/ca"), "{said}");
}

#[test]
fn expiring_certificate_is_logged_and_has_a_metric() {
    let (_listener, addr) = listen();
    let soon = PKI.sign("warned", &["localhost"], |params| {
        params.not_after = (std::time::SystemTime::now() + std::time::Duration::from_secs(3 * 24 * 3600 + 60)).into();
    });
    let proxy = start(addr, &certificates(&[&soon]));
    proxy.said.wait_for(&format!("certificate {} expires in 3 days", soon.cert.display()));
    assert_eq!(proxy.metric(&format!("framegate_certificate_days_left{{file=\"{}\"}}", soon.cert.display())), 3.0);
}

#[test]
fn plain_listener_redirects_to_https() {
    let (_listener, addr) = listen();
    for (redirect, port) in [("https", ""), ("https:8443", ":8443")] {
        let toml =
            before(addr, "").replacen("[[listener]]\n", &format!("[[listener]]\nredirect = \"{redirect}\"\n"), 1);
        let proxy = Proxy::start(&toml);
        for (host, name) in [("example.com", "example.com"), ("example.com:80", "example.com"), ("[::1]:80", "[::1]")] {
            let answer = http(proxy.addr, &format!("GET /a%20b?q=1 HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
            assert!(answer.contains(&format!("\r\nLocation: https://{name}{port}/a%20b?q=1\r\n")), "{answer}");
        }
        let answer = http(proxy.addr, &request("/", ""));
        assert!(answer.contains(&format!("\r\nLocation: https://example.com{port}/\r\n")), "{answer}");
        let bad = http(proxy.addr, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
        assert!(bad.starts_with("HTTP/1.1 400 "), "{bad}");
        assert_eq!(
            verdict(&proxy.log.wait_for("redirected")),
            "ended_by=downstream phase=request cause=redirected status=308"
        );
    }
}

#[test]
fn flags_configure_a_plain_and_a_tls_listener() {
    let (listener, addr) = listen();
    let server = PKI.server();
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.args([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--tls-listen",
        "127.0.0.2:0",
        "--upstream",
        &format!("ws://{addr}"),
    ]);
    command.arg("--cert").arg(&server.cert).arg("--key").arg(&server.key);
    let proxy = Proxy::spawn(&mut command, temp_path("none"));
    let addrs: Vec<SocketAddr> =
        proxy.said.all().iter().filter_map(|line| line.split_once("listening on ")?.1.parse().ok()).collect();
    assert_eq!(addrs.len(), 2);
    let same = Command::new(env!("CARGO_BIN_EXE_framegate"))
        .args(["run", "--listen", "127.0.0.1:1", "--tls-listen", "127.0.0.1:1", "--upstream", "ws://x"])
        .args(["--cert", "c", "--key", "k"])
        .output()
        .unwrap();
    assert_eq!(same.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&same.stderr).contains("--tls-listen: 127.0.0.1:1 is already used by --listen"));
    let (mut client, mut upstream, _) = open(dial(addrs[1], "localhost", &trusting()), &listener);
    echo(&mut client, &mut upstream, b"by flags");
    common::open(&proxy, &listener);
}

#[test]
fn demo_creates_its_certificate() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--tls", "--tls-listen", "127.0.0.2:0"]);
    let mut proxy = Proxy::spawn(&mut command, temp_path("none"));
    let said = proxy.said.wait_for("--cacert");
    let cert = said.split_whitespace().skip_while(|word| *word != "--cacert").nth(1).unwrap();
    let url = said.split_whitespace().find(|word| word.starts_with("https://")).unwrap();
    let answer = ran(Command::new("curl").args(["-s", "-i", "--http1.1", "--cacert", cert, url]));
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let folder = PathBuf::from(cert).parent().unwrap().to_owned();
    proxy.stop();
    assert!(!folder.exists(), "{} is left", folder.display());
}
