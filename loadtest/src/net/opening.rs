//! The opening handshake of the client (RFC 6455 section 4.1): from a URL and flags to a target,
//! from the server's bytes to the outcome. Resolves the name, and where it has addresses of two
//! families tries which of them serves; otherwise it opens nothing.

mod answer;

pub use answer::{Answer, judge};

use crate::net::tls;
use crate::run::plan::Target;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use http::Uri;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Time to try the first address family of a name that has both.
const TRIAL: Duration = Duration::from_secs(2);

/// Options of the opening handshake beside the URL.
#[derive(Debug, Clone, clap::Args)]
pub struct OpeningArgs {
    /// A header field of the opening handshake; may be repeated
    #[arg(long, value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Subprotocols to offer, best first, comma-separated
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub subprotocol: Vec<String>,
    /// Bearer token, or @FILE that holds it
    #[arg(long, value_name = "TOKEN")]
    pub bearer: Option<String>,
    /// Origin, as a browser would send it
    #[arg(long, value_name = "URL")]
    pub origin: Option<String>,
    /// Host header field, if not that of the URL
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Timeout of TCP connect, TLS and opening handshake together
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,
    #[command(flatten)]
    pub tls: tls::TlsArgs,
}

impl Default for OpeningArgs {
    fn default() -> OpeningArgs {
        OpeningArgs {
            header: Vec::new(),
            subprotocol: Vec::new(),
            bearer: None,
            origin: None,
            host: None,
            connect_timeout: Duration::from_secs(10),
            tls: tls::TlsArgs::default(),
        }
    }
}

/// Checks all of it, resolves the name and builds the request; the error is one sentence.
///
/// A name with IPv4 and IPv6 addresses (`localhost`) gives the addresses of the first family that
/// accepts a connection: servers seldom listen on both, and every other connection would be
/// refused.
pub fn target(url: &str, args: &OpeningArgs) -> Result<Target, String> {
    let place = Place::parse(url)?;
    if args.connect_timeout.is_zero() {
        return Err("--connect-timeout must not be 0".into());
    }
    let head = head(&place, args)?;
    let tls = if place.secure { Some(args.tls.client(&place.name)?) } else { None };
    let addrs = one_family(resolve(&place.name, place.port)?, args.connect_timeout.min(TRIAL));
    let subprotocols = args.subprotocol.clone();
    Ok(Target { addrs, head, subprotocols, tls, connect_timeout: args.connect_timeout })
}

/// A fresh value of Sec-WebSocket-Key: 16 random bytes in base64.
pub fn key(random: &mut Rng) -> [u8; 24] {
    let mut key = [0; 24];
    // 16 bytes are always 24 characters.
    let _written = STANDARD.encode_slice(random.u128(..).to_le_bytes(), &mut key);
    key
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    secure: bool,
    /// Without the brackets of an IPv6 address.
    name: String,
    port: u16,
    /// As sent in the Host field.
    host: String,
    path: String,
}

impl Place {
    /// RFC 6455 section 3.
    fn parse(url: &str) -> Result<Place, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("{url:?} has no scheme; use ws://{}", url.trim_start_matches('/').escape_debug()));
        };
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "http" => return Err(format!("{url:?} is an HTTP URL; use ws://{}", rest.escape_debug())),
            "https" => return Err(format!("{url:?} is an HTTP URL; use wss://{}", rest.escape_debug())),
            _ => return Err(format!("{scheme:?} is not a WebSocket scheme; use ws:// or wss://")),
        };
        if url.contains('#') {
            return Err(format!("{url:?} has a fragment, which WebSocket URLs do not allow (encode # as %23)"));
        }
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "{url:?} has a space or a non-ASCII character; percent-encode it, and write a host name in xn-- form"
            ));
        }
        let uri: Uri = url.parse().map_err(|e| format!("{url:?} is not a URL: {e}"))?;
        let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
        if authority.as_str().contains('@') {
            return Err(format!("{url:?} has a user name or password; send them with --header 'Authorization: ...'"));
        }
        let host = authority.host();
        let after = authority.as_str().strip_prefix(host).unwrap_or("");
        let default = if secure { 443 } else { 80 };
        let port = match after.strip_prefix(':') {
            None if after.is_empty() => default,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().unwrap_or(0),
            _ => 0,
        };
        if port == 0 {
            return Err(format!("{url:?} has an invalid port; it must be from 1 to 65535"));
        }
        let name = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(literal) => {
                let address: Result<std::net::Ipv6Addr, _> = literal.parse();
                address.map_err(|_| format!("{literal:?} is not an IPv6 address"))?;
                literal.to_owned()
            }
            None => host.to_owned(),
        };
        if name.is_empty() {
            return Err(format!("{url:?} has no host"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        let host = if port == default { host.to_owned() } else { format!("{host}:{port}") };
        Ok(Place { secure, name, port, host, path: format!("{slash}{path}") })
    }
}

/// The request up to the value of its key, which comes last.
fn head(place: &Place, args: &OpeningArgs) -> Result<[Vec<u8>; 2], String> {
    let host = args.host.as_deref().unwrap_or(&place.host);
    if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#\\".contains(&byte)) {
        return Err(format!("--host {host:?} is not a host with an optional port"));
    }
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        place.path
    );
    let mut add = |name: &str, value: &str| head.extend([name, ": ", value, "\r\n"]);
    if !args.subprotocol.is_empty() {
        add("Sec-WebSocket-Protocol", &offer(&args.subprotocol)?);
    }
    if let Some(origin) = &args.origin {
        let sound = !origin.is_empty() && origin.bytes().all(|byte| byte.is_ascii_graphic());
        add("Origin", sound.then_some(origin).ok_or_else(|| format!("--origin {origin:?} is not a URL"))?);
    }
    if let Some(text) = &args.bearer {
        add("Authorization", &format!("Bearer {}", token(text)?));
    }
    for line in &args.header {
        let (name, value) = field(line)?;
        let twice = match name.to_ascii_lowercase().as_str() {
            "origin" => args.origin.is_some(),
            "authorization" => args.bearer.is_some(),
            _ => false,
        };
        if twice {
            return Err(format!("--header {line:?} repeats another flag"));
        }
        add(name, value);
    }
    head.push_str("Sec-WebSocket-Key: ");
    Ok([head.into_bytes(), b"\r\n\r\n".to_vec()])
}

/// "The elements that comprise this value MUST be non-empty strings [of token characters] and MUST
/// all be unique" (RFC 6455 section 4.1).
fn offer(names: &[String]) -> Result<String, String> {
    for (at, name) in names.iter().enumerate() {
        if !is_token(name) {
            return Err(format!("--subprotocol {name:?} is not a token of letters, digits and !#$%&'*+-.^_`|~"));
        }
        if names.iter().take(at).any(|earlier| earlier == name) {
            return Err(format!("--subprotocol offers {name:?} twice"));
        }
    }
    Ok(names.join(", "))
}

/// Never shown in an error: it is a secret.
fn token(text: &str) -> Result<String, String> {
    let token = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map_err(|e| format!("--bearer: cannot read {file:?}: {e}"))?,
        None => text.to_owned(),
    };
    let token = token.trim_end_matches(['\r', '\n']);
    let sound = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    sound.then(|| token.to_owned()).ok_or_else(|| "--bearer: the token must be visible ASCII without spaces".into())
}

fn field(line: &str) -> Result<(&str, &str), String> {
    let error = |why: &str| format!("--header {line:?} {why}");
    let (name, value) = line.split_once(':').ok_or_else(|| error("has no colon; write 'Name: value'"))?;
    let value = value.trim_matches([' ', '\t']);
    if !is_token(name) {
        return Err(error("has no valid field name; write 'Name: value'"));
    }
    // A line end in a value would begin a field, or a request, of its own.
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(error("has a control character in its value"));
    }
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "host" => Err(error("sets Host; use --host NAME")),
        "sec-websocket-protocol" => Err(error("offers a subprotocol; use --subprotocol NAME")),
        "sec-websocket-extensions" => Err(error("offers an extension; none is supported")),
        "upgrade" | "connection" | "content-length" | "transfer-encoding" => {
            Err(error("is set by the handshake itself"))
        }
        _ if lower.starts_with("sec-websocket-") => Err(error("is set by the handshake itself")),
        _ => Ok((name, value)),
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Each address once, in the system's order.
fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let found = (name, port).to_socket_addrs().map_err(|e| format!("cannot resolve {name:?}: {e}"))?;
    let mut addrs: Vec<SocketAddr> = Vec::new();
    for addr in found {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    if addrs.is_empty() { Err(format!("the name {name:?} has no address")) } else { Ok(addrs) }
}

fn one_family(addrs: Vec<SocketAddr>, patience: Duration) -> Vec<SocketAddr> {
    if addrs.iter().all(SocketAddr::is_ipv4) || addrs.iter().all(SocketAddr::is_ipv6) {
        return addrs;
    }
    let serving = addrs.iter().find(|addr| TcpStream::connect_timeout(addr, patience).is_ok());
    match serving.map(SocketAddr::is_ipv4) {
        Some(v4) => addrs.into_iter().filter(|addr| addr.is_ipv4() == v4).collect(),
        None => addrs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::net::TcpListener;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        opening: OpeningArgs,
    }

    fn args(words: &[&str]) -> OpeningArgs {
        Cli::try_parse_from([&["test"], words].concat()).unwrap().opening
    }

    fn place(url: &str) -> Place {
        Place::parse(url).unwrap()
    }

    #[test]
    fn urls_are_parsed() {
        for (url, name, port, host, path) in [
            ("ws://localhost", "localhost", 80, "localhost", "/"),
            ("wss://localhost", "localhost", 443, "localhost", "/"),
            ("WS://a.example:81/", "a.example", 81, "a.example:81", "/"),
            ("ws://a.example:80/x", "a.example", 80, "a.example", "/x"),
            ("ws://a.example:443/x", "a.example", 443, "a.example:443", "/x"),
            ("ws://127.0.0.1:9000/a/b?c=d&e=%20", "127.0.0.1", 9000, "127.0.0.1:9000", "/a/b?c=d&e=%20"),
            ("ws://a.example?q", "a.example", 80, "a.example", "/?q"),
            ("ws://[::1]:9000/x", "::1", 9000, "[::1]:9000", "/x"),
            ("wss://[::1]", "::1", 443, "[::1]", "/"),
            ("ws://a/b@c", "a", 80, "a", "/b@c"),
        ] {
            let found = place(url);
            let secure = url.starts_with("wss");
            let expected = Place { secure, name: name.into(), port, host: host.into(), path: path.into() };
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_explained() {
        for (url, says) in [
            ("", "has no scheme"),
            ("localhost:9000", "use ws://localhost:9000"),
            ("//localhost", "use ws://localhost"),
            ("http://a/b", "use ws://a/b"),
            ("https://a/b", "use wss://a/b"),
            ("ftp://a", "\"ftp\" is not a WebSocket scheme"),
            ("://a", "is not a WebSocket scheme"),
            ("ws://", "is not a URL"),
            ("ws:///x", "is not a URL"),
            ("ws://:80", "has no host"),
            ("ws://a:0", "invalid port"),
            ("ws://a:", "invalid port"),
            ("ws://a:65536", "invalid port"),
            ("ws://a:99999999999", "invalid port"),
            ("ws://a:b", "invalid port"),
            ("ws://user:secret@a/", "user name or password"),
            ("ws://user@a/", "user name or password"),
            ("ws://a/#b", "fragment"),
            ("ws://a/b c", "percent-encode"),
            ("ws://a/b\r\nX: y", "percent-encode"),
            ("ws://m\u{fc}nchen.example/", "percent-encode"),
            ("ws://[::1", "is not a URL"),
            ("ws://[]", "not an IPv6 address"),
            ("ws://[::g]:80", "not an IPv6 address"),
            ("ws://[127.0.0.1]:80", "not an IPv6 address"),
            ("ws://[::1]x:80", "invalid port"),
        ] {
            let error = Place::parse(url).unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains(['\r', '\n']), "{error}");
        }
    }

    #[test]
    fn names_are_resolved() {
        let found = target("ws://127.0.0.1:9000/x", &args(&[])).unwrap();
        assert_eq!(found.addrs, ["127.0.0.1:9000".parse().unwrap()]);
        assert_eq!(found.connect_timeout, Duration::from_secs(10));
        assert!(found.tls.is_none());
        let error = target("ws://no-such-name.invalid/", &args(&[])).unwrap_err();
        assert!(error.contains("cannot resolve \"no-such-name.invalid\""), "{error}");
        let error = target("ws://127.0.0.1/", &args(&["--connect-timeout", "0s"])).unwrap_err();
        assert!(error.contains("--connect-timeout"), "{error}");
    }

    #[test]
    fn the_family_that_serves_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let four = listener.local_addr().unwrap();
        let six = SocketAddr::new("::1".parse().unwrap(), four.port());
        let second = SocketAddr::new("127.0.0.2".parse().unwrap(), four.port());
        assert_eq!(one_family(vec![six, four, second], TRIAL), [four, second]);
        assert_eq!(one_family(vec![four, second], TRIAL), [four, second]);
        drop(listener);
        assert_eq!(one_family(vec![six, four], TRIAL), [six, four]);
    }

    #[test]
    fn the_head_is_what_the_flags_say() {
        let words = [
            "--header",
            "Cookie: a=b; c",
            "--header",
            "X-Empty:",
            "--subprotocol",
            "chat,superchat",
            "--bearer",
            "abc.def",
            "--origin",
            "https://a.example",
            "--host",
            "b.example:1",
        ];
        let [before, after] = head(&place("ws://127.0.0.1:9/x?y"), &args(&words)).unwrap();
        assert_eq!(
            String::from_utf8(before).unwrap(),
            "GET /x?y HTTP/1.1\r\nHost: b.example:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, superchat\r\nOrigin: https://a.example\r\n\
             Authorization: Bearer abc.def\r\nCookie: a=b; c\r\nX-Empty: \r\nSec-WebSocket-Key: "
        );
        assert_eq!(after, b"\r\n\r\n");
    }

    #[test]
    fn a_token_may_stand_in_a_file() {
        let path = std::env::temp_dir().join(format!("framegate-loadtest-token-{}", std::process::id()));
        std::fs::write(&path, "from.a.file\n").unwrap();
        let from_file = token(&format!("@{}", path.display()));
        std::fs::write(&path, "two\nlines\n").unwrap();
        let two_lines = token(&format!("@{}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(from_file.unwrap(), "from.a.file");
        assert!(two_lines.unwrap_err().contains("without spaces"));
        assert!(token("@/no/such/file").unwrap_err().contains("cannot read"));
    }

    #[test]
    fn nothing_is_smuggled_through_a_flag() {
        for (words, says) in [
            (&["--header", "A: b\r\nC: d"][..], "control character"),
            (&["--header", "A: b\nC: d"], "control character"),
            (&["--header", "A: b\0"], "control character"),
            (&["--header", "A\r\nB: c"], "no valid field name"),
            (&["--header", "A B: c"], "no valid field name"),
            (&["--header", ": c"], "no valid field name"),
            (&["--header", "A"], "no colon"),
            (&["--header", "host: c"], "--host NAME"),
            (&["--header", "Sec-WebSocket-Protocol: c"], "--subprotocol NAME"),
            (&["--header", "Sec-WebSocket-Extensions: permessage-deflate"], "none is supported"),
            (&["--header", "Sec-WebSocket-Key: x"], "handshake itself"),
            (&["--header", "sec-websocket-version: 8"], "handshake itself"),
            (&["--header", "Upgrade: h2c"], "handshake itself"),
            (&["--header", "connection: close"], "handshake itself"),
            (&["--header", "Content-Length: 5"], "handshake itself"),
            (&["--header", "Origin: a", "--origin", "b"], "repeats another"),
            (&["--header", "authorization: a", "--bearer", "b"], "repeats another"),
            (&["--subprotocol", "a\r\nB: c"], "is not a token"),
            (&["--subprotocol", "a,,b"], "is not a token"),
            (&["--subprotocol", "a b"], "is not a token"),
            (&["--subprotocol", "a,b,a"], "twice"),
            (&["--bearer", "a\r\nB: c"], "without spaces"),
            (&["--bearer", ""], "without spaces"),
            (&["--origin", "a\r\nB: c"], "--origin"),
            (&["--origin", ""], "--origin"),
            (&["--host", "a\r\nB: c"], "--host"),
            (&["--host", ""], "--host"),
            (&["--host", "a/b"], "--host"),
        ] {
            let error = head(&place("ws://a"), &args(words)).unwrap_err();
            assert!(error.contains(says), "{words:?}: {error}");
            assert!(!error.contains(['\r', '\n']), "{error}");
        }
    }

    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
        let mut random = Rng::with_seed(1);
        let (first, second) = (key(&mut random), key(&mut random));
        assert_eq!(STANDARD.decode(first).unwrap().len(), 16);
        assert_ne!(first, second);
    }
}
