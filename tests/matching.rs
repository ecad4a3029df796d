//! Which route a request gets: tables, properties, what `check` and errors say, and real sockets.

#[path = "matching/captures.rs"]
mod captures;
#[path = "matching/conditions.rs"]
mod conditions;
#[path = "matching/errors.rs"]
mod errors;
#[path = "common/facts.rs"]
mod facts;
#[path = "matching/findings.rs"]
mod findings;
#[path = "matching/order.rs"]
mod order;
#[path = "matching/paths.rs"]
mod paths;
#[path = "matching/properties.rs"]
mod properties;
#[path = "matching/sockets.rs"]
mod sockets;

mod common;

use facts::Asking;
use framegate::config;
use framegate::policy::matching::{Captures, Routes};

/// Routes, by name and the keys of their section, and what requests get. A request is
/// `METHOD host/target`, then after ` | ` header fields, `@client` or `cert=SUBJECT,SHA256`; GET
/// may be left out. A route is expected by name, followed by its captures; `-` is none.
struct Table {
    routes: &'static [(&'static str, &'static str)],
    rows: &'static [(&'static str, &'static str)],
}

/// The routes of sections with these keys.
#[track_caller]
fn routes<'a>(sections: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Routes {
    config::parse(&file(sections), "framegate.toml").unwrap_or_else(|e| panic!("{e}")).routes
}

fn file<'a>(sections: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> String {
    let mut text = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n".to_owned();
    for (name, keys) in sections {
        text += &format!("[[route]]\nname = \"{name}\"\nupstream = \"ws://10.0.0.1:9000\"\n{keys}\n");
    }
    text
}

/// A request as written in a table.
#[track_caller]
fn asking(text: &str) -> Asking {
    let mut parts = text.split(" | ");
    let line = parts.next().unwrap();
    let (method, url) = line.split_once(' ').unwrap_or(("GET", line));
    let (host, target) = url.split_at(url.find('/').unwrap_or_else(|| panic!("no path: {text}")));
    let (mut fields, mut client, mut cert) = (String::new(), None, None);
    for part in parts {
        if let Some(address) = part.strip_prefix('@') {
            client = Some(address.parse().unwrap_or_else(|e| panic!("{e}: {text}")));
        } else if let Some(shown) = part.strip_prefix("cert=") {
            cert = shown.rsplit_once(',').map(|(subject, sha256)| (subject.to_owned(), sha256.to_owned()));
        } else {
            fields += &format!("{part}\r\n");
        }
    }
    let asking = Asking::new(method, host, target, &fields);
    Asking { client: client.unwrap_or(asking.client), cert, ..asking }
}

fn shown(name: &str, captures: &Captures) -> String {
    captures.iter().fold(name.to_owned(), |text, (name, value)| format!("{text} {name}={value}"))
}

/// What a request gets, by the index and by looking at one route after the other.
#[track_caller]
fn answer(routes: &Routes, request: &Asking) -> String {
    request.with(|facts| {
        let found = routes.find(facts);
        let by_index = found.as_ref().map(|found| found.entry.route.name.clone());
        let one_by_one = routes.entries().iter().find(|entry| entry.mismatch(facts).is_none());
        assert_eq!(by_index, one_by_one.map(|entry| entry.route.name.clone()), "{request:?}");
        found.map_or("-".to_owned(), |found| shown(&found.entry.route.name, &found.captures))
    })
}

/// Checks the rows of `tables` with their routes in order, reversed and rotated; how many rows.
#[track_caller]
fn check(tables: &[Table]) -> usize {
    for table in tables {
        let mut sections = table.routes.to_vec();
        for turn in 0..4 {
            let routes = routes(&sections);
            for (request, expected) in table.rows {
                assert_eq!(answer(&routes, &asking(request)), *expected, "{request} with {sections:#?}");
            }
            if turn % 2 == 0 { sections.reverse() } else { sections.rotate_left(table.routes.len() / 2) }
        }
    }
    tables.iter().map(|table| table.rows.len()).sum()
}

#[test]
fn the_tables_are_long_enough() {
    let tables = [paths::TABLES, conditions::TABLES, order::TABLES, captures::TABLES];
    let rows: usize = tables.iter().flat_map(|tables| tables.iter()).map(|table| table.rows.len()).sum();
    assert!(rows >= 250, "{rows}");
}
