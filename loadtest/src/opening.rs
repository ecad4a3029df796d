//! stub
use crate::plan::Target;
pub enum Answer {
    Partial,
    Open { head_len: usize },
    Refused { status: u16, reason: String },
    Bad(String),
}
pub fn key(random: &mut fastrand::Rng) -> [u8; 24] {
    use base64::Engine;
    let b = random.u128(..).to_le_bytes();
    let mut k = [0; 24];
    let _ = base64::engine::general_purpose::STANDARD.encode_slice(b, &mut k);
    k
}
pub fn judge(bytes: &[u8], _key: &[u8; 24], _t: &Target) -> Answer {
    match bytes.windows(4).position(|w| w == b"\r\n\r\n") {
        Some(n) if bytes.starts_with(b"HTTP/1.1 101") => Answer::Open { head_len: n + 4 },
        Some(_) => Answer::Refused { status: 0, reason: "?".into() },
        None => Answer::Partial,
    }
}
#[derive(Debug, Clone, Default, clap::Args)]
pub struct OpeningArgs {}
pub fn target(url: &str, _a: &OpeningArgs) -> Result<Target, String> {
    use std::net::ToSocketAddrs;
    let rest = url.strip_prefix("ws://").ok_or("write ws://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let addrs = host.to_socket_addrs().map_err(|e| e.to_string())?.collect();
    let head = [format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ").into_bytes(), b"\r\n\r\n".to_vec()];
    Ok(Target {
        url: url.into(),
        addrs,
        head,
        subprotocols: vec![],
        tls: None,
        connect_timeout: std::time::Duration::from_secs(10),
    })
}
