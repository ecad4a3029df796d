//! Single values: parses each from its TOML form, or explains what would be valid. The explanation
//! follows the key:
//! `timeouts.idle: "5 parsecs" is not a duration; expected for example "30s" or "5m"`.

use super::error::suggestion;
use crate::policy::networks::canonical;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Value;

/// A value, or the rest of the sentence.
pub type Parsed<T> = Result<T, String>;

/// The range of timeouts. The worker's timers tick every 100 ms.
pub const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30 * 24 * 3600);

/// The most sessions that any limit can allow.
pub const SESSIONS_MAX: usize = 100_000_000;

/// A value as written, for messages.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(_) => "a date".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// In quotes, on one line, shortened.
pub fn quoted(text: &str) -> String {
    let mut start: String = text.chars().take(80).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    format!("\"{}\"", start.escape_debug().to_string().replace("\\'", "'"))
}

pub fn text(value: &Value) -> Parsed<&str> {
    value.as_str().ok_or_else(|| format!("{} is not a string; put it in quotes", shown(value)))
}

pub fn flag(value: &Value) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| format!("{} is not a boolean; expected true or false, without quotes", shown(value)))
}

/// `None` for `"auto"`.
pub fn count_or_auto(value: &Value, max: usize) -> Parsed<Option<usize>> {
    let right = || format!("{} is not valid; expected \"auto\" or a number from 1 to {max}", shown(value));
    match value {
        Value::String(text) if text == "auto" => Ok(None),
        Value::Integer(number) => {
            let count = usize::try_from(*number).ok().filter(|count| (1..=max).contains(count));
            count.map(Some).ok_or_else(right)
        }
        _ => Err(right()),
    }
}

/// Milliseconds within [`TIMEOUT`].
pub fn timeout(value: &Value) -> Parsed<u64> {
    duration(value, TIMEOUT, "")
}

/// Milliseconds within [`TIMEOUT`], or 0.
pub fn timeout_or_off(value: &Value) -> Parsed<u64> {
    duration(value, TIMEOUT, "off")
}

/// Milliseconds. `zero` is the meaning of 0, or empty if 0 is not valid.
pub fn duration(value: &Value, range: RangeInclusive<Duration>, zero: &str) -> Parsed<u64> {
    let parsed = match value {
        Value::String(text) => humantime::parse_duration(text).ok(),
        Value::Integer(0) => Some(Duration::ZERO),
        Value::Integer(number) => {
            return Err(format!("{number} has no unit; expected for example \"{number}s\" or \"{number}ms\""));
        }
        _ => None,
    };
    let Some(parsed) = parsed else {
        return Err(format!("{} is not a duration; expected for example \"30s\" or \"5m\"", shown(value)));
    };
    if range.contains(&parsed) || (parsed.is_zero() && !zero.is_empty()) {
        return Ok(u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX));
    }
    let millis = |duration: &Duration| duration_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    let (min, max) = (millis(range.start()), millis(range.end()));
    let zero = if zero.is_empty() { String::new() } else { format!(", or 0 for {zero}") };
    Err(format!("{} is out of range; expected \"{min}\" to \"{max}\"{zero}", shown(value)))
}

/// Whole seconds up to nine hours, the maximum of the kernel; 0 is off.
pub fn keepalive(value: &Value) -> Parsed<u32> {
    let millis = duration(value, Duration::from_secs(1)..=Duration::from_secs(9 * 3600), "off")?;
    if !millis.is_multiple_of(1000) {
        return Err(format!("{} is not a number of whole seconds; expected for example \"60s\"", shown(value)));
    }
    Ok(u32::try_from(millis / 1000).unwrap_or(u32::MAX))
}

/// Bytes.
pub fn size(value: &Value, range: RangeInclusive<u64>) -> Parsed<u64> {
    sized(value, range, "")
}

/// Bytes, or 0 for the kernel's default.
pub fn size_or_default(value: &Value, range: RangeInclusive<u64>) -> Parsed<u64> {
    sized(value, range, ", or 0 for the kernel's default")
}

fn sized(value: &Value, range: RangeInclusive<u64>, zero: &str) -> Parsed<u64> {
    let parsed = match value {
        Value::String(text) => parse_size::Config::new().with_binary().parse_size(text).ok(),
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let Some(bytes) = parsed else {
        return Err(format!("{} is not a size; expected for example \"64 KiB\" or \"1 MiB\"", shown(value)));
    };
    if range.contains(&bytes) || (bytes == 0 && !zero.is_empty()) {
        return Ok(bytes);
    }
    let (min, max) = (size_text(*range.start()), size_text(*range.end()));
    Err(format!("{} is out of range; expected \"{min}\" to \"{max}\"{zero}", shown(value)))
}

/// A table in a list, with no other keys than these.
pub fn only_keys(table: &toml::Table, known: &[&str]) -> Parsed<()> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(format!("unknown key {}{}", quoted(unknown), suggestion(unknown, known))),
        None => Ok(()),
    }
}

/// A number of sessions, at least one.
pub fn sessions(value: &Value) -> Parsed<usize> {
    number(value, 1..=SESSIONS_MAX as u64).map(|sessions| usize::try_from(sessions).unwrap_or(usize::MAX))
}

/// A whole number.
pub fn number(value: &Value, range: RangeInclusive<u64>) -> Parsed<u64> {
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        format!("{} is not valid; expected a number from {} to {}", shown(value), range.start(), range.end())
    })
}

/// The same, or 0 for `zero`.
pub fn number_or_zero(value: &Value, range: RangeInclusive<u64>, zero: &str) -> Parsed<u64> {
    match value {
        Value::Integer(0) => Ok(0),
        _ => number(value, range).map_err(|error| format!("{error}, or 0 for {zero}")),
    }
}

/// One of several words.
pub fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Parsed<T> {
    let names: Vec<_> = words.iter().map(|(name, _)| *name).collect();
    let found = words.iter().find(|(name, _)| value.as_str() == Some(name));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let suggestion = suggestion(value.as_str().unwrap_or_default(), &names);
        format!("{} is not valid{suggestion}", shown(value))
    })
}

pub fn address(value: &Value) -> Parsed<SocketAddr> {
    socket_address(text(value)?)
}

pub fn socket_address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        let right = "expected address and port, for example \"0.0.0.0:8080\" or \"[::]:8080\"";
        format!("{} is not a listen address; {right}", quoted(text))
    })
}

/// A network, or a single address.
pub fn network(value: &Value) -> Parsed<ipnet::IpNet> {
    network_text(text(value)?)
}

/// The same; a network of IPv4-mapped addresses is one of IPv4.
pub fn network_text(text: &str) -> Parsed<ipnet::IpNet> {
    let parsed = text.parse::<ipnet::IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
    parsed.map(canonical).ok_or_else(|| {
        format!("{} is not a network; expected for example \"10.0.0.0/8\" or \"192.0.2.7\"", quoted(text))
    })
}

/// The content of a file that the configuration names.
pub fn file(path: &str, bytes_max: usize) -> Parsed<Vec<u8>> {
    let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", quoted(path));
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{} is not a regular file", quoted(path)));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() > bytes_max {
        false => Ok(bytes),
        true => Err(format!("{} has more than {bytes_max} bytes", quoted(path))),
    }
}

/// The name of a route or an upstream, restricted for use in logs and metrics.
pub fn name(value: &Value) -> Parsed<String> {
    let name = text(value)?;
    let fits = (1..=100).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Ok(name.to_owned());
    }
    Err(format!("{} is not a valid name; expected 1 to 100 letters, digits, \"-\", \".\" or \"_\"", quoted(name)))
}

/// `5m`, `1h 30m`, `250ms`.
pub fn duration_text(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// In the largest unit that divides it: `64 KiB`, `1500 B`. Valid in the file, too.
pub fn size_text(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn durations() {
        for (text, millis) in
            [("10ms", 10), ("30s", 30_000), ("5m", 300_000), ("1h 30m", 5_400_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(timeout(&typed(text)), Ok(millis), "{text}");
        }
        for (text, why) in [
            ("5 parsecs", "\"5 parsecs\" is not a duration; expected for example \"30s\" or \"5m\""),
            ("", "\"\" is not a duration; expected for example \"30s\" or \"5m\""),
            ("-1s", "\"-1s\" is not a duration; expected for example \"30s\" or \"5m\""),
            ("30", "\"30\" is not a duration; expected for example \"30s\" or \"5m\""),
            ("0s", "\"0s\" is out of range; expected \"10ms\" to \"30days\""),
            ("9ms", "\"9ms\" is out of range; expected \"10ms\" to \"30days\""),
            ("9999us", "\"9999us\" is out of range; expected \"10ms\" to \"30days\""),
            ("31d", "\"31d\" is out of range; expected \"10ms\" to \"30days\""),
            ("500000y", "\"500000y\" is out of range; expected \"10ms\" to \"30days\""),
        ] {
            assert_eq!(timeout(&typed(text)), Err(why.to_owned()));
        }
        assert_eq!(timeout(&Value::Integer(5)), Err("5 has no unit; expected for example \"5s\" or \"5ms\"".into()));
        assert!(timeout(&Value::Integer(0)).is_err());
        assert!(timeout(&Value::Boolean(true)).is_err_and(|e| e.starts_with("true is not a duration")));
        for zero in [typed("0"), typed("0s"), Value::Integer(0)] {
            assert_eq!(timeout_or_off(&zero), Ok(0));
        }
        assert!(timeout_or_off(&typed("1us")).is_err_and(|e| e.ends_with("or 0 for off")));
    }

    #[test]
    fn keepalive_is_in_whole_seconds() {
        assert_eq!(keepalive(&typed("1m")), Ok(60));
        assert_eq!(keepalive(&typed("9h")), Ok(32_400));
        assert_eq!(keepalive(&Value::Integer(0)), Ok(0));
        assert!(keepalive(&typed("1500ms")).is_err_and(|e| e.contains("whole seconds")));
        assert!(keepalive(&typed("10h")).is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("64KiB", 65_536), ("64kb", 65_536), ("1 MiB", 1 << 20), ("4096", 4096), ("4096 B", 4096)]
        {
            assert_eq!(size(&typed(text), 1..=u64::MAX), Ok(bytes), "{text}");
        }
        assert_eq!(size(&Value::Integer(1500), 1..=2000), Ok(1500));
        for bad in [typed("64 apples"), typed(""), typed("-5"), Value::Integer(-5), Value::Float(1.5), typed("20EiB")] {
            assert!(size(&bad, 1..=100).is_err_and(|e| e.contains("is not a size; expected for example")), "{bad:?}");
        }
        let outside = size(&typed("2MiB"), 1024..=1 << 20);
        assert_eq!(outside, Err("\"2MiB\" is out of range; expected \"1 KiB\" to \"1 MiB\"".into()));
        assert_eq!(size_or_default(&Value::Integer(0), 10..=20), Ok(0));
        assert!(size(&Value::Integer(0), 10..=20).is_err());
    }

    #[test]
    fn counts_words_and_flags() {
        assert_eq!(count_or_auto(&typed("auto"), 9), Ok(None));
        assert_eq!(count_or_auto(&Value::Integer(9), 9), Ok(Some(9)));
        for bad in [typed("9"), typed("Auto"), Value::Integer(0), Value::Integer(10), Value::Integer(-1)] {
            let why = format!("{} is not valid; expected \"auto\" or a number from 1 to 9", shown(&bad));
            assert_eq!(count_or_auto(&bad, 9), Err(why));
        }
        let words = [("framed", 1), ("opaque", 2)];
        assert_eq!(word(&typed("opaque"), &words), Ok(2));
        let near = word(&typed("Framde"), &words);
        assert_eq!(near, Err("\"Framde\" is not valid; did you mean \"framed\"?".into()));
        let far = word(&Value::Integer(3), &words);
        assert_eq!(far, Err("3 is not valid; expected \"framed\" or \"opaque\"".into()));
        assert_eq!(flag(&Value::Boolean(true)), Ok(true));
        assert!(flag(&typed("true")).is_err_and(|e| e.contains("without quotes")));
    }

    #[test]
    fn addresses_and_networks() {
        assert_eq!(address(&typed("[::1]:80")).map(|a| a.port()), Ok(80));
        for bad in ["8080", ":8080", "localhost:8080", "0.0.0.0", "::1:80", "0.0.0.0:65536"] {
            assert!(address(&typed(bad)).is_err_and(|e| e.contains("0.0.0.0:8080")), "{bad}");
        }
        let nets = [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ];
        for (text, net) in nets {
            assert_eq!(network(&typed(text)).map(|n| n.to_string()), Ok(net.into()));
        }
        for bad in ["10.0.0.0/33", "10.0.0", "all", "fd00::/8/8"] {
            assert!(network(&typed(bad)).is_err_and(|e| e.contains("is not a network")), "{bad}");
        }
    }

    #[test]
    fn shown_values_stay_on_one_line() {
        assert_eq!(shown(&typed("a\nb\u{1b}[0m'")), "\"a\\nb\\u{1b}[0m'\"");
        assert_eq!(shown(&typed(&"x".repeat(200))).len(), 85);
        assert_eq!(size_text(0), "0 B");
        assert_eq!(size_text(1536), "1536 B");
        assert_eq!(size_text(64 << 20), "64 MiB");
    }
}
