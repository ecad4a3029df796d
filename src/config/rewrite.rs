//! What a route changes in the requests and responses that it passes on: `strip_prefix`,
//! `add_prefix`, `rewrite`, `request_headers` and `response_headers`.

use super::build::Builder;
use super::error::suggestion;
use super::file::{self, Section, Typed};
use super::pattern;
use super::value::{Parsed, quoted, shown, text};
use crate::policy::headers::{Direction, HeaderRules, occurs_once, protection};
use crate::policy::matching::PathPattern;
use crate::policy::path::normal_path;
use crate::policy::pattern::Pattern;
use crate::policy::rewrite::{PathRewrite, PathRule, Replacement};
use crate::policy::template::{Fault, Names, Template, is_word};
use std::collections::HashSet;
use std::ops::Range;
use toml::{Spanned, Value};

impl Builder<'_, '_> {
    pub fn path_rewrite(&mut self, typed: &file::Route, path: &PathPattern, captures: &[&str]) -> PathRewrite {
        let strip = |v: &Value| pattern::strip_prefix(text(v)?, path);
        let stripped = self.read("route.strip_prefix", &typed.strip_prefix, strip);
        let add_prefix = |v: &Value| pattern::add_prefix(text(v)?);
        let rule = match &typed.rewrite {
            Some(section) => self.path_rule(section, &typed.strip_prefix, captures),
            None => stripped.map_or(PathRule::Keep, PathRule::Strip),
        };
        PathRewrite { rule, add_prefix: self.take("route.add_prefix", &typed.add_prefix, String::new(), add_prefix) }
    }

    /// `rewrite = { pattern = "...", replace = "..." }` or `rewrite = { path = "..." }`.
    fn path_rule(&mut self, section: &Section<file::Rewrite>, strip: &Typed, captures: &[&str]) -> PathRule {
        let typed = section.get_ref();
        if strip.is_some() {
            let why = "excludes strip_prefix; remove one of them, and let the pattern match the prefix";
            self.problems.add(section.span(), "route.rewrite", why);
        }
        match (&typed.pattern, &typed.replace, &typed.path) {
            (Some(_), Some(_), None) => {
                // Its groups are not known if it is no pattern: then there is one error.
                let read = self.read("route.rewrite.pattern", &typed.pattern, |v| path_pattern(text(v)?));
                let Some(pattern) = read else { return PathRule::Keep };
                let names = Names { captures, groups: &pattern.groups() };
                let replace = |v: &Value| path_template(text(v)?, &names);
                let template = self.read("route.rewrite.replace", &typed.replace, replace);
                template.map_or(PathRule::Keep, |template| PathRule::Replace(Replacement { pattern, template }))
            }
            (None, None, Some(_)) => {
                let names = Names { captures, groups: &[] };
                let parse = |v: &Value| whole_path(text(v)?, &names);
                self.read("route.rewrite.path", &typed.path, parse).map_or(PathRule::Keep, PathRule::Path)
            }
            _ => {
                let why = "expected pattern and replace, or path alone, for example \
                           rewrite = { pattern = \"^/ws/(?<rest>.*)\", replace = \"/{rest}\" }";
                self.problems.add(section.span(), "route.rewrite", why);
                PathRule::Keep
            }
        }
    }

    pub fn header_rules(
        &mut self,
        key: &str,
        typed: &file::Headers,
        direction: Direction,
        captures: &[&str],
    ) -> HeaderRules {
        let names = Names { captures, groups: &[] };
        let list = format!("{key}.remove");
        let remove = self.list(&list, &typed.remove, |v| header_name(text(v)?, direction));
        let set = self.header_values(&format!("{key}.set"), &typed.set, direction, &names);
        let add = self.header_values(&format!("{key}.add"), &typed.add, direction, &names);
        if direction == Direction::Request {
            for (name, at, _) in in_order(&typed.add).filter(|(name, ..)| occurs_once(name)) {
                let why = format!("occurs once in a request; use set, for example \"{{header.{name}}}; more\"");
                self.problems.add(at, &format!("{key}.add.{name}"), &why);
            }
        }
        HeaderRules { remove, set, add }
    }

    /// Names and templates in the order of the file; a list of values is several fields.
    pub fn header_values(
        &mut self,
        key: &str,
        typed: &file::HeaderValues,
        direction: Direction,
        names: &Names<'_>,
    ) -> Vec<(String, Template)> {
        let mut rules = Vec::new();
        let mut seen = HashSet::new();
        for (name, at, value) in in_order(typed) {
            let key = format!("{key}.{name}");
            if let Err(why) = header_name(name, direction) {
                self.problems.add(at.clone(), &key, &why);
            }
            if !seen.insert(name.to_ascii_lowercase()) {
                let why = "the same header as another one here (case does not matter); use add with a list of values";
                self.problems.add(at, &key, why);
            }
            let elements = match value.get_ref() {
                Value::Array(values) if key.contains(".add.") => values.as_slice(),
                value => std::slice::from_ref(value),
            };
            for element in elements {
                match header_value(element, names) {
                    Ok(template) => rules.push((name.to_owned(), template)),
                    Err(why) => self.problems.add(value.span(), &key, &why),
                }
            }
        }
        rules
    }
}

/// The headers of a table in the order of the file: name, its place, value.
fn in_order(typed: &file::HeaderValues) -> impl Iterator<Item = (&str, Range<usize>, &Spanned<Value>)> {
    let mut entries: Vec<_> = typed.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries.into_iter().map(|(name, value)| (name.get_ref().as_str(), name.span(), value))
}

fn header_name(name: &str, direction: Direction) -> Parsed<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^`|~".contains(&byte);
    if name.contains('_') {
        return Err(format!("{} has a \"_\", which many servers take for \"-\"; use \"-\"", quoted(name)));
    }
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_token) {
        return Err(format!("{} is not a header name; expected for example \"X-Tenant\"", quoted(name)));
    }
    match protection(name, direction) {
        Some(why) => Err(format!("{} {why}", quoted(name))),
        None => Ok(name.to_owned()),
    }
}

pub fn header_value(value: &Value, names: &Names<'_>) -> Parsed<Template> {
    let written = text(value)?;
    if written.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("{} has a control character, which no header can hold; remove it", shown(value)));
    }
    if written.trim().is_empty() {
        return Err(format!("{} is empty, and an empty header is not sent; use remove", shown(value)));
    }
    template(written, names)
}

pub fn template(written: &str, names: &Names<'_>) -> Parsed<Template> {
    Template::parse(written, names).map_err(|fault| match fault {
        Fault::Unclosed => format!("{} has a \"{{\" without \"}}\"; write \"{{{{\" for a brace", quoted(written)),
        Fault::Unopened => format!("{} has a \"}}\" without \"{{\"; write \"}}}}\" for a brace", quoted(written)),
        Fault::Unknown(name) => {
            let all = names.all();
            let known: Vec<_> = all.iter().map(String::as_str).collect();
            format!("there is no variable {}{}", quoted(&format!("{{{name}}}")), suggestion(&name, &known))
        }
    })
}

/// A pattern for the normalised path.
fn path_pattern(text: &str) -> Parsed<Pattern> {
    let pattern = Pattern::new(text).map_err(|why| format!("{} {why}", quoted(text)))?;
    match pattern.groups().into_iter().flatten().find(|name| is_word(name)) {
        Some(name) => Err(format!("has a group {}, which is the name of a variable; rename it", quoted(&name))),
        None => Ok(pattern),
    }
}

fn path_template(written: &str, names: &Names<'_>) -> Parsed<Template> {
    let wrong = |why: &str| Err(format!("{} {why}", quoted(written)));
    let template = template(written, names)?;
    for text in template.texts() {
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\".contains(&b)) {
            return wrong("has a character not allowed in a path; percent-encode it, and omit the query");
        }
        let escapes = text.split('%').skip(1);
        if escapes.map(|rest| rest.get(..2)).any(|digits| !digits.is_some_and(is_hex) || digits == Some("00")) {
            return wrong("has a \"%\" without two hex digits, or an encoded NUL; encode it as \"%25\"");
        }
    }
    Ok(template)
}

fn is_hex(digits: &str) -> bool {
    digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn whole_path(written: &str, names: &Names<'_>) -> Parsed<Template> {
    if !written.starts_with('/') {
        return Err(format!("{} does not begin with a slash; expected for example \"/chat\"", quoted(written)));
    }
    let template = path_template(written, names)?;
    let texts: String = template.texts().collect::<Vec<_>>().join("x");
    if normal_path(&texts).matches('/').count() != texts.matches('/').count() {
        return Err(format!("{} has a dot segment; write the resolved path", quoted(written)));
    }
    Ok(template)
}
