//! HAProxy in front of framegate and behind it, and nginx behind it.

use super::*;
use crate::rig::{Ask, Backend, Original, folder_with, free_port, installed};
use std::process::Command;

const HAPROXY: &str = "defaults\n  timeout client 30s\n  timeout server 30s\n  timeout connect 5s\n";

fn haproxy(text: &str, port: u16) -> Option<Original> {
    let program = installed("haproxy")?;
    let (folder, file) = folder_with("haproxy.cfg", &format!("{HAPROXY}{text}"));
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(file);
    Some(Original::start(command, port, folder))
}

#[test]
fn haproxy_in_front_names_its_clients() {
    let backend = Backend::start("app");
    for tls in [false, true] {
        let key = if tls { tls_key() } else { String::new() };
        for send in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
            let proxy = proxy(backend.addr, &format!("{BEHIND}\n{key}"), "", "");
            let port = free_port();
            let secure =
                if tls { format!("ssl verify required ca-file {}", PKI.ca().display()) } else { String::new() };
            let text = format!(
                "listen app\n  mode tcp\n  bind 127.0.0.1:{port}\n  unique-id-format %[uuid]\n  \
                 server one {} {send} {secure}\n",
                proxy.addr
            );
            let Some(_front) = haproxy(&text, port) else { return };
            let ask = Ask { from: [127, 0, 0, 9].into(), ..Ask::new("a.example", "/") };
            let session = ask.open(([127, 0, 0, 1], port).into());
            assert_eq!(session.field("x-forwarded-for"), Some("127.0.0.9"), "{send}, TLS {tls}");
            let client = session.stream.local_addr().unwrap().to_string();
            drop(session);
            proxy.log.wait(&client, |line| (field(line, "client") == Some(&client)).then_some(()));
        }
    }
}

/// Its checks are LOCAL, and neither answered nor logged.
#[test]
fn checks_of_haproxy_pass() {
    let backend = Backend::start("app");
    let proxy = proxy(backend.addr, BEHIND, "", "");
    let port = free_port();
    let text = format!(
        "listen app\n  mode tcp\n  bind 127.0.0.1:{port}\n  server one {} send-proxy-v2 check inter 50ms\n",
        proxy.addr
    );
    let Some(_front) = haproxy(&text, port) else { return };
    let name = "framegate_handshakes_total{outcome=\"no-request\"}";
    eventually("checks", || (proxy.metric(name) >= 5.0).then_some(()));
    let session = Ask::new("a.example", "/").open(([127, 0, 0, 1], port).into());
    assert_eq!(session.backend, "app");
    assert!(!proxy.log.all().iter().any(|line| line.contains("proxy-header")), "{:#?}", proxy.log.all());
}

#[test]
fn haproxy_behind_learns_of_the_client() {
    let backend = Backend::start("app");
    for version in ["v1", "v2"] {
        let port = free_port();
        let text = format!(
            "listen app\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
             http-request set-header X-Seen %[src]:%[src_port]-%[dst]:%[dst_port]\n  server one {}\n",
            backend.addr
        );
        let Some(_server) = haproxy(&text, port) else { return };
        let app = format!(
            "[[upstream]]\nname = \"app\"\nendpoints = [\"ws://127.0.0.1:{port}\"]\nproxy_protocol = \"{version}\"\n\
             health = {{ type = \"websocket\", interval = \"1s\" }}"
        );
        let proxy = proxy(backend.addr, "", "", &app);
        let session = Ask { from: [127, 0, 0, 9].into(), ..Ask::new("a.example", "/") }.open(proxy.addr);
        let client = session.stream.local_addr().unwrap();
        assert_eq!(session.field("x-seen"), Some(&*format!("{client}-{}", proxy.addr)), "{version}");
    }
}

#[test]
fn nginx_behind_learns_of_the_client() {
    let Some(nginx) = installed("nginx") else { return };
    let backend = Backend::start("app");
    for version in ["v1", "v2"] {
        let port = free_port();
        let (folder, file) = folder_with("nginx.conf", "");
        let at = folder.display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
             http {{\n access_log off;\n client_body_temp_path {at}/b;\n proxy_temp_path {at}/p;\n\
             fastcgi_temp_path {at}/f;\n uwsgi_temp_path {at}/u;\n scgi_temp_path {at}/s;\n\
             server {{ listen 127.0.0.1:{port} proxy_protocol; location / {{ proxy_pass http://{};\n\
             proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;\n\
             proxy_set_header X-Seen $proxy_protocol_addr:$proxy_protocol_port; }} }} }}\n",
            backend.addr
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&nginx);
        command.arg("-p").arg(&folder).arg("-c").arg(&file);
        let _server = Original::start(command, port, folder);
        let app = format!(
            "[[upstream]]\nname = \"app\"\nendpoints = [\"ws://127.0.0.1:{port}\"]\nproxy_protocol = \"{version}\"\n"
        );
        let proxy = proxy(backend.addr, "", "", &app);
        let session = Ask { from: [127, 0, 0, 9].into(), ..Ask::new("a.example", "/") }.open(proxy.addr);
        let client = session.stream.local_addr().unwrap().to_string();
        assert_eq!(session.field("x-seen"), Some(&*client), "{version}");
    }
}
