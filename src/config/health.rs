//! Health checks: `[upstream.health]`.

use super::build::Builder;
use super::file::{self, Section};
use super::pattern;
use super::value::{self, Parsed, duration_text, quoted, shown, text};
use crate::policy::check::{CheckKind, CheckRequest, HealthCheck, Statuses};
use crate::policy::endpoint::{Address, Member};
use crate::policy::health::Thresholds;
use std::ops::RangeInclusive;
use toml::Value;

/// Results in a row that change the state of an endpoint.
const IN_A_ROW_MAX: u32 = 1_000;
const STATUSES: RangeInclusive<u16> = 200..=599;
/// Header fields of a check.
const HEADERS_MAX: usize = 50;
/// Bytes of one value of a header field.
const VALUE_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Http,
    WebSocket,
}

impl Builder<'_, '_> {
    pub fn health(&mut self, section: Option<&Section<file::HealthCheck>>, members: &[Member]) -> Option<HealthCheck> {
        let section = section?;
        let typed = section.get_ref();
        let kinds = [("tcp", Kind::Tcp), ("http", Kind::Http), ("websocket", Kind::WebSocket)];
        if typed.kind.is_none() {
            let why = "missing; expected \"tcp\", \"http\" or \"websocket\"";
            self.problems.add(section.span(), "upstream.health.type", why);
        }
        let kind = self.read("upstream.health.type", &typed.kind, |v| value::word(v, &kinds));
        let request = self.check_request(typed);
        let status = self.take("upstream.health.status", &typed.status, Statuses::default(), statuses);
        let ping = self.take("upstream.health.ping", &typed.ping, false, value::flag);
        let kind = kind?;
        self.refuse_other_keys(typed, kind);
        let (interval_ms, timeout_ms) = self.check_times(typed);
        let Thresholds { rise, fall } = HealthCheck::THRESHOLDS;
        let initial = [("up", true), ("down", false)];
        Some(HealthCheck {
            kind: match kind {
                Kind::Tcp => CheckKind::Tcp,
                Kind::Http => CheckKind::Http(request, status),
                Kind::WebSocket => CheckKind::WebSocket { request, ping },
            },
            interval_ms,
            timeout_ms,
            jitter_permille: self.take("upstream.health.jitter", &typed.jitter, HealthCheck::JITTER_PERMILLE, jitter),
            thresholds: Thresholds {
                rise: self.take("upstream.health.rise", &typed.rise, rise, in_a_row),
                fall: self.take("upstream.health.fall", &typed.fall, fall, in_a_row),
            },
            initially_up: self.take("upstream.health.initial", &typed.initial, true, |v| value::word(v, &initial)),
            port: self.check_port(typed, members),
        })
    }

    /// Interval and timeout.
    fn check_times(&mut self, typed: &file::HealthCheck) -> (u64, u64) {
        let key = "upstream.health.timeout";
        let interval = self.take("upstream.health.interval", &typed.interval, HealthCheck::INTERVAL_MS, value::timeout);
        let usual = HealthCheck::TIMEOUT_MS.min((interval / 2).max(1));
        let timeout = self.take(key, &typed.timeout, usual, value::timeout);
        if let (true, Some(at)) = (timeout >= interval, &typed.timeout) {
            let (has, most) = (duration_text(timeout), duration_text(interval));
            let why = format!("{has} is not below the interval ({most}); lower it, or raise upstream.health.interval");
            self.problems.add(at.span(), key, &why);
        }
        (interval, timeout)
    }

    fn check_request(&mut self, typed: &file::HealthCheck) -> CheckRequest {
        let methods = [("GET", false), ("HEAD", true)];
        CheckRequest {
            head_only: self.take("upstream.health.method", &typed.method, false, |v| value::word(v, &methods)),
            path: self.read("upstream.health.path", &typed.path, |v| target(text(v)?)),
            host: self.read("upstream.health.host", &typed.host, |v| pattern::host_header(text(v)?)),
            headers: self.check_headers(typed),
        }
    }

    fn check_headers(&mut self, typed: &file::HealthCheck) -> Vec<(String, String)> {
        let Some(headers) = &typed.headers else { return Vec::new() };
        let key = "upstream.health.headers";
        if headers.get_ref().len() > HEADERS_MAX {
            let why = format!("{} fields; expected at most {HEADERS_MAX}", headers.get_ref().len());
            self.problems.add(headers.span(), key, &why);
        }
        let mut fields = Vec::new();
        for (name, value) in headers.get_ref() {
            match header(name, value.get_ref()) {
                Ok(value) => fields.push((name.clone(), value)),
                Err(e) => self.problems.add(value.span(), &format!("{key}.{name}"), &e),
            }
        }
        fields
    }

    fn check_port(&mut self, typed: &file::HealthCheck, members: &[Member]) -> Option<u16> {
        let key = "upstream.health.port";
        let port = self.read(key, &typed.port, |v| {
            let port = v.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
            port.ok_or_else(|| format!("{} is not a port; expected a number from 1 to 65535", shown(v)))
        });
        let mut endpoints = members.iter().map(|member| &member.endpoint);
        let unix = endpoints.find(|endpoint| matches!(endpoint.address, Address::Unix(_)));
        if let (Some(at), Some(unix)) = (&typed.port, unix) {
            let why = format!("{} has no port; remove this key, or put it into another upstream", quoted(&unix.url));
            self.problems.add(at.span(), key, &why);
        }
        port
    }

    /// Reports keys that mean nothing for this type of check.
    fn refuse_other_keys(&mut self, typed: &file::HealthCheck, kind: Kind) {
        let (http, websocket) = (kind == Kind::Http, kind == Kind::WebSocket);
        let both = "type = \"http\" and \"websocket\"";
        let rows = [
            ("method", &typed.method, http, "type = \"http\""),
            ("path", &typed.path, http || websocket, both),
            ("host", &typed.host, http || websocket, both),
            ("status", &typed.status, http, "type = \"http\"; \"websocket\" expects 101"),
        ];
        let mut refuse = |at, name: &str, kinds: &str| {
            self.problems.add(at, &format!("upstream.health.{name}"), &format!("applies only to {kinds}"));
        };
        for (name, typed, applies, kinds) in rows {
            if let (Some(typed), false) = (typed, applies) {
                refuse(typed.span(), name, kinds);
            }
        }
        if let (Some(headers), Kind::Tcp) = (&typed.headers, kind) {
            refuse(headers.span(), "headers", both);
        }
        if let (Some(ping), false) =
            (typed.ping.as_ref().filter(|ping| ping.get_ref().as_bool() == Some(true)), websocket)
        {
            refuse(ping.span(), "ping", "type = \"websocket\"");
        }
    }
}

fn in_a_row(value: &Value) -> Parsed<u32> {
    let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
    number
        .filter(|number| (1..=IN_A_ROW_MAX).contains(number))
        .ok_or_else(|| format!("{} is not valid; expected a number from 1 to {IN_A_ROW_MAX}", shown(value)))
}

/// In thousandths.
fn jitter(value: &Value) -> Parsed<u16> {
    let share = match value {
        Value::Float(share) => Some(*share),
        Value::Integer(0) => Some(0.0),
        _ => None,
    };
    share
        .filter(|share| (0.0..=0.5).contains(share))
        .map(|share| (share * 1_000.0).round() as u16)
        .ok_or_else(|| format!("{} is not a share of the interval; expected 0 to 0.5, for example 0.2", shown(value)))
}

/// `200`, `"200-399"`, or a list of these.
fn statuses(value: &Value) -> Parsed<Statuses> {
    let list = match value {
        Value::Array(list) if list.is_empty() => return Err(format!("an empty list matches no status; {STATUS}")),
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    list.iter().map(status_range).collect::<Parsed<Vec<_>>>().map(Statuses)
}

const STATUS: &str = "expected for example 200, \"200-399\" or [200, \"300-399\"], from 200 to 599";

fn status_range(value: &Value) -> Parsed<RangeInclusive<u16>> {
    let number = |text: &str| match text.len() {
        3 if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let range = match value {
        Value::Integer(status) => u16::try_from(*status).ok().map(|status| status..=status),
        Value::String(text) => {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            number(from).zip(number(to)).map(|(from, to)| from..=to)
        }
        _ => None,
    };
    range
        .filter(|range| STATUSES.contains(range.start()) && STATUSES.contains(range.end()) && !range.is_empty())
        .ok_or_else(|| format!("{} is not a status; {STATUS}", shown(value)))
}

/// The target of a request in origin-form.
fn target(text: &str) -> Parsed<String> {
    let wrong = |why: &str| Err(format!("{} {why}", quoted(text)));
    if !text.starts_with('/') {
        return wrong("does not begin with a slash; expected for example \"/healthz\"");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>\\".contains(&b)) {
        return wrong("has a character not allowed in a path or query; percent-encode it");
    }
    Ok(text.to_owned())
}

/// The value of a field that a check may have.
fn header(name: &str, value: &Value) -> Parsed<String> {
    const OURS: [&str; 12] = [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "te",
        "trailer",
        "transfer-encoding",
    ];
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if is("host") {
        return Err("not set here; use upstream.health.host".to_owned());
    }
    if is("upgrade") || OURS.into_iter().any(is) {
        return Err("not allowed here; the check writes such fields itself".to_owned());
    }
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("not a valid field name; expected letters, digits and \"-\"".to_owned());
    }
    let text = text(value)?;
    let valid = text.len() <= VALUE_MAX && text.chars().all(|c| !c.is_control()) && text.trim() == text;
    match valid {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{} is not a valid value; expected at most {VALUE_MAX} bytes without control characters and without \
             spaces at either end",
            quoted(text)
        )),
    }
}
