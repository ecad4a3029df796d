//! Conditions of routes: `match`. An element names one input and one comparison.
//! `{ header = "x-beta", is = "1" }`; an input without a name has its comparison as its value:
//! `{ method = "GET" }`, `{ subprotocol = { prefix = "v2." } }`.

use super::build::Builder;
use super::error::suggestion;
use super::file::{self, Section, Typed};
use super::value::{self, Parsed, quoted, shown, text};
use crate::policy::matching::{Condition, Input, Predicate, Test};
use crate::policy::pattern::Pattern;
use toml::Value;

const CONDITIONS_MAX: usize = 32;
const VALUE_MAX: usize = 4096;
const COMPARISONS: &str = "add is, prefix, regex or present";
const INPUTS: &str = "header, query, cookie, method, subprotocol, client, cert_subject or cert_sha256";

impl Builder<'_, '_> {
    pub fn conditions(&mut self, typed: &file::Route) -> Vec<Condition> {
        if let Some(over) = typed.conditions.get(CONDITIONS_MAX) {
            let why = format!("more than {CONDITIONS_MAX} conditions; merge some with a regular expression");
            self.problems.add(over.span(), "route.match", &why);
        }
        typed.conditions.iter().filter_map(|section| self.condition(section)).collect()
    }

    fn condition(&mut self, section: &Section<file::Condition>) -> Option<Condition> {
        let one = section.get_ref();
        let not = self.take("route.match.not", &one.not, false, value::flag);
        let inputs = inputs(one);
        let (key, typed) = match inputs.as_slice() {
            [input] => *input,
            [] => {
                let why = format!("missing what to compare; expected {INPUTS}");
                self.problems.add(section.span(), "route.match", &why);
                return None;
            }
            [(first, _), (second, typed), ..] => {
                let why = format!("{first} stands in the same condition; write two conditions");
                self.problems.add(typed.as_ref()?.span(), &format!("route.match.{second}"), &why);
                return None;
            }
        };
        let full_key = format!("route.match.{key}");
        let named = match key {
            "header" => self.read(&full_key, typed, header),
            "query" => self.read(&full_key, typed, query),
            "cookie" => self.read(&full_key, typed, cookie),
            _ => return self.unnamed(one, (key, typed), not),
        };
        let (test, negated) = self.named_test(section, (&full_key, typed))?;
        Some(Condition { predicate: Predicate::Value(named?, test), negated: negated != not })
    }

    /// The comparison of an input that has a name, beside it.
    fn named_test(
        &mut self,
        section: &Section<file::Condition>,
        (input, typed): (&str, &Typed),
    ) -> Option<(Test, bool)> {
        match comparisons(section.get_ref()).as_slice() {
            [(key, typed)] => self.read(&format!("route.match.{key}"), typed, |v| test(key, v, Ok)),
            [] => {
                self.problems.add(typed.as_ref()?.span(), input, &format!("without a comparison; {COMPARISONS}"));
                None
            }
            [(first, _), (second, typed), ..] => {
                let why = format!("{first} stands in the same condition; write two conditions");
                self.problems.add(typed.as_ref()?.span(), &format!("route.match.{second}"), &why);
                None
            }
        }
    }

    /// An input without a name: its value is the comparison.
    fn unnamed(&mut self, one: &file::Condition, (key, typed): (&str, &Typed), not: bool) -> Option<Condition> {
        if let Some((comparison, at)) = comparisons(one).first() {
            let why = format!("does not go with {key}; write {key} = {{ {comparison} = ... }}");
            let why = if key == "client" { "does not go with client; remove it".to_owned() } else { why };
            self.problems.add(at.as_ref()?.span(), &format!("route.match.{comparison}"), &why);
            return None;
        }
        let full_key = format!("route.match.{key}");
        if key == "client" {
            let networks = self.read(&full_key, typed, networks)?;
            return Some(Condition { predicate: Predicate::Client(networks), negated: not });
        }
        let (input, check): (Input, Check) = match key {
            "method" => (Input::Method, method),
            "subprotocol" => (Input::Subprotocol, subprotocol),
            "cert_subject" => (Input::CertSubject, Ok),
            _ => (Input::CertSha256, fingerprint),
        };
        let (test, negated) = self.read(&full_key, typed, |v| value_or_table(v, check))?;
        Some(Condition { predicate: Predicate::Value(input, test), negated: negated != not })
    }
}

/// Checks and normalises a value that is compared for equality.
type Check = fn(String) -> Parsed<String>;

fn inputs(one: &file::Condition) -> Vec<(&'static str, &Typed)> {
    let all = [
        ("header", &one.header),
        ("query", &one.query),
        ("cookie", &one.cookie),
        ("method", &one.method),
        ("subprotocol", &one.subprotocol),
        ("client", &one.client),
        ("cert_subject", &one.cert_subject),
        ("cert_sha256", &one.cert_sha256),
    ];
    all.into_iter().filter(|(_, typed)| typed.is_some()).collect()
}

fn comparisons(one: &file::Condition) -> Vec<(&'static str, &Typed)> {
    let all = [("is", &one.is), ("prefix", &one.prefix), ("regex", &one.regex), ("present", &one.present)];
    all.into_iter().filter(|(_, typed)| typed.is_some()).collect()
}

/// A test, and whether it is negated.
fn test(key: &str, value: &Value, check: Check) -> Parsed<(Test, bool)> {
    if key == "present" {
        return value::flag(value).map(|present| (Test::Present, !present));
    }
    let text = text(value)?;
    if text.len() > VALUE_MAX {
        return Err(format!("{} is too long; at most {VALUE_MAX} bytes", quoted(text)));
    }
    if key == "regex" {
        return Pattern::whole(text)
            .map(|regex| (Test::Regex(regex), false))
            .map_err(|e| format!("{} {e}", quoted(text)));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{} has a control character, which no request can have there", quoted(text)));
    }
    match key {
        "prefix" if text.is_empty() => Err("\"\" begins every value; use present = true".to_owned()),
        "prefix" => Ok((Test::Prefix(text.to_owned()), false)),
        _ => check(text.to_owned()).map(|text| (Test::Is(text), false)),
    }
}

/// `"text"` is equality, `{ prefix = "text" }` names the comparison.
fn value_or_table(value: &Value, check: Check) -> Parsed<(Test, bool)> {
    let Some(table) = value.as_table() else {
        let right = "expected a string, or a table such as { prefix = \"...\" }";
        return match value {
            Value::String(_) => test("is", value, check),
            _ => Err(format!("{} is not valid; {right}", shown(value))),
        };
    };
    let mut keys = table.iter();
    let (Some((key, value)), None) = (keys.next(), keys.next()) else {
        return Err("expected one comparison: is, prefix, regex or present".to_owned());
    };
    let known = ["is", "prefix", "regex", "present"];
    if !known.contains(&key.as_str()) {
        return Err(format!("unknown comparison {}{}", quoted(key), suggestion(key, &known)));
    }
    test(key, value, check).map_err(|e| format!("{key}: {e}"))
}

fn header(value: &Value) -> Parsed<Input> {
    let name = token(text(value)?, "the name of a header")?;
    Ok(Input::Header(name.to_ascii_lowercase()))
}

fn query(value: &Value) -> Parsed<Input> {
    let name = text(value)?;
    if name.is_empty() || name.len() > VALUE_MAX {
        return Err(format!("{} is not the name of a query parameter", quoted(name)));
    }
    Ok(Input::Query(name.to_owned()))
}

fn cookie(value: &Value) -> Parsed<Input> {
    token(text(value)?, "the name of a cookie").map(Input::Cookie)
}

fn method(text: String) -> Parsed<String> {
    let method = token(&text, "a method")?;
    match method.to_ascii_uppercase() {
        upper if upper != method => {
            Err(format!("{} is not in upper case, as methods are sent; expected \"{upper}\"", quoted(&text)))
        }
        _ => Ok(method),
    }
}

fn subprotocol(text: String) -> Parsed<String> {
    token(&text, "a subprotocol")
}

/// A token of RFC 9110 section 5.6.2.
fn token(text: &str, what: &str) -> Parsed<String> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=256).contains(&text.len()) && text.bytes().all(is_token) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} is not {what}; expected 1 to 256 letters, digits, \"-\", \"_\" or other token characters",
        quoted(text)
    ))
}

/// 64 hexadecimal digits, also with colons between the bytes.
fn fingerprint(text: String) -> Parsed<String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(digits.to_ascii_lowercase());
    }
    Err(format!("{} is not a SHA-256 fingerprint; expected 64 hexadecimal digits", quoted(&text)))
}

/// One network or a list of them, without those that others contain.
fn networks(value: &Value) -> Parsed<Vec<ipnet::IpNet>> {
    let networks = match value.as_array().map(Vec::as_slice) {
        None => vec![value::network(value)?],
        Some([]) => return Err("is empty; expected for example [\"10.0.0.0/8\"]".to_owned()),
        Some(list) => list.iter().map(value::network).collect::<Parsed<Vec<_>>>()?,
    };
    let mut networks = ipnet::IpNet::aggregate(&networks);
    networks.sort_unstable();
    Ok(networks)
}
