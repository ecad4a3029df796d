//! For each rule a snippet that breaks it, and snippets that look alike and are good.

use super::circles::circles;
use super::manifest::{is_satisfied, without_reason};
use super::markdown::long_lines;
use super::source::{Source, machine_paths};

fn rules(path: &str, text: &str) -> Vec<&'static str> {
    let crates = ["mio", "log", "slab", "httparse", "serde", "socket2"].map(str::to_owned).into();
    Source::new(path, text, &crates).violations().into_iter().map(|violation| violation.rule).collect()
}

fn long(lines: usize) -> String {
    body(&"    a();\n".repeat(lines))
}

fn tests(text: &str) -> String {
    format!("//! H.\n#[cfg(test)]\nmod tests {{\n    {text}\n}}\n")
}

fn taking(parameters: &str) -> String {
    format!("//! H.\nfn f<T: Fn(A) -> B>({parameters}) {{}}\n")
}

fn use_(path: &str) -> String {
    format!("//! H.\nuse {path};\n")
}

fn body(text: &str) -> String {
    format!("//! Header.\nfn f() {{\n{text}\n}}\n")
}

#[test]
fn each_rule_finds_its_violation() {
    let many = |n| format!("//! H.\n{}", "const A: u8 = 1;\n".repeat(n));
    let nested = body("if a { for b in c { match d { _ => { while e { f(); } } } } }");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("src/a.rs", "fn f() {}\n".into(), &["header"]),
        ("src/a.rs", long(70), &["function"]),
        ("src/a.rs", many(501), &["file"]),
        ("src/a.rs", nested.clone(), &["nesting"]),
        ("src/a.rs", body("if let Some(K { s }) = a { if b { if c { if d { x } } } }"), &["nesting"]),
        ("src/a.rs", taking("a: A<B, C>, b: B, c: F, d: G, e: H, g: I"), &["parameters"]),
        ("src/a.rs", taking("a: A, b: (B, (C, D)), c: E, d: F"), &["parameters"]),
        ("src/a.rs", taking("&self, (a, b): &'a mut (A, B), [c, d]: [C; 2], e: E, f: F"), &["parameters"]),
        (
            "src/a.rs",
            taking("\n    &mut self,\n    a: A,\n    b: B,\n    c: C,\n    d: D,\n    e: E,\n    f: F,\n"),
            &["parameters"],
        ),
        ("src/a.rs", body("x.unwrap();"), &["word"]),
        ("src/a.rs", body("x.expect(\"y\");"), &["word"]),
        ("src/a.rs", body("todo!()"), &["word"]),
        ("src/a.rs", body("unimplemented!()"), &["word"]),
        ("loadtest/src/a.rs", body("dbg!(x);"), &["word"]),
        ("src/proto/a.rs", body("std::time::Instant::now();"), &["pure"]),
        ("src/policy/a.rs", body("SystemTime::now();"), &["pure"]),
        ("src/worker/a.rs", body("println!();"), &["print"]),
        ("src/proto/a.rs", body("eprintln!();"), &["print"]),
        ("src/proto/a.rs", use_("std::sync::Mutex"), &["lock"]),
        ("src/policy/a.rs", body("let x: std::sync::RwLock<A>;"), &["lock"]),
        ("src/worker/a.rs", use_("std::sync::{Arc, Condvar}"), &["lock"]),
        ("src/control.rs", body("std::thread::spawn(f);"), &["thread"]),
        ("src/control.rs", body("thread::Builder::new();"), &["thread"]),
        ("src/control.rs", body("unsafe { x() }"), &["unsafe"]),
        ("src/a.rs", "//! H.\n#[allow(unsafe_code)]\nfn f() {}\n".into(), &["unsafe"]),
        ("loadtest/src/a.rs", body("unsafe { x() }"), &["unsafe"]),
        ("src/a.rs", "//! H.\npub struct PairManager;\n".into(), &["name"]),
        ("src/a.rs", "//! H.\npub(crate) enum Context<T> {}\n".into(), &["name"]),
        ("src/proto/a.rs", use_("crate::policy::route"), &["layer"]),
        ("src/proto.rs", use_("crate::worker"), &["layer"]),
        ("src/policy/a.rs", use_("crate::{proto::x, config::{y, z}}"), &["layer"]),
        ("src/config/a.rs", use_("crate::{\n    proto,\n    worker,\n}"), &["layer"]),
        ("src/metrics.rs", body("crate::worker::pair::x();"), &["layer"]),
        ("src/log/a.rs", use_("crate::server::Failure"), &["layer"]),
        ("src/worker/pump.rs", use_("crate::control::Control"), &["layer"]),
        ("src/worker/pump.rs", use_("mio::Poll"), &["layer"]),
        ("src/worker/pump.rs", use_("socket2::SockRef"), &["layer"]),
        ("src/worker/pump.rs", body("::log::warn!(x);"), &["layer"]),
        ("src/proto/a.rs", use_("serde::Serialize"), &["layer"]),
        ("src/a.rs", format!("//! See {}x.\n", machine_paths()[0]), &["path"]),
        ("src/a.rs", format!("//! {}\n", "x ".repeat(49)), &["comment width"]),
        ("benches/a.rs", body(&format!("    // {}", "x ".repeat(48))), &["comment width"]),
        ("tests/a.rs", body(&format!("    \"{}\"", "x ".repeat(60))), &["code width"]),
        ("src/a.rs", "//! Somebody reads.\n".into(), &["riddle"]),
        ("fuzz/src/a.rs", body("f(); // the peer is told"), &["riddle"]),
        ("tests/a.rs", long(120), &["function"]),
        ("tests/a.rs", many(601), &["file"]),
        ("tests/a.rs", "fn f() {}\n".into(), &["header"]),
        ("tests/sim/a.rs", format!("//! H.\n#[test]\nfn {}() {{}}\n", "x".repeat(71)), &["test name"]),
        ("src/a.rs", tests(&format!("#[test]\n    fn {}() {{}}", "x".repeat(71))), &["test name"]),
    ];
    for (path, text, expected) in cases {
        assert_eq!(rules(path, &text), expected, "{path}: {text}");
    }
}

#[test]
fn good_code_is_left_alone() {
    let good = [
        ("src/worker/sys.rs", body("unsafe { libc() } mio::Poll::new(); socket2::x();")),
        ("src/worker/pump.rs", body("slab::Slab::new(); crate::log::Facts; crate::proto::x;")),
        ("src/worker/pump.rs", "//! H.\nuse crate::log::{Facts, record::field};\n".to_owned()),
        ("src/server.rs", body("std::thread::Builder::new();")),
        ("src/a.rs", body("x.unwrap_or_default(); y.expect_err(z); \".unwrap()\"; r#\"todo!\"#; '\"'; // dbg!(x)")),
        ("src/a.rs", body("loop { if a { match b { c => { let Some(d) = e else { return }; } } } }")),
        ("src/a.rs", body("/* unsafe /* todo!() */ */ let _: &'static str = \"\\\"unsafe\";")),
        ("src/a.rs", "//! H.\n#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n".to_owned()),
        ("src/a.rs", "//! H.\n#[cfg(test)]\nuse crate::x;\nfn f() {}\n".to_owned()),
        ("src/a.rs", long(68)),
        (
            "src/a.rs",
            body("if a { for b in c { match d { K { e } if f => { g(); } _ => {} } } } else if b { c } else { d }"),
        ),
        (
            "src/a.rs",
            "//! H.\nfn f(&self, a: A<(B, C)>, b: (), c: fn(F, G) -> H, (d, e): (I, J)) -> (K, L) {}\n".to_owned(),
        ),
        ("src/a.rs", body("// tidy: the table of causes has no shorter form\n    x.unwrap();")),
        ("src/log/a.rs", use_("std::sync::Mutex")),
        ("src/a.rs", format!("//! https://example.com/{}\n", "x".repeat(90))),
        ("src/a.rs", body(&format!("    f(\"{}\");", "x".repeat(100)))),
        ("src/a.rs", body("f(\"somebody\");")),
        ("tests/a.rs", body(&format!("    \"\n{}\"", "x ".repeat(80)))),
        ("tests/a.rs", body("    x.unwrap(); println!(); std::thread::spawn(f);")),
        ("tests/a.rs", long(118)),
        ("benches/a.rs", long(200)),
        ("src/a.rs", "//! H.\npub struct ContextFree;\n".to_owned()),
    ];
    for (path, text) in good {
        assert_eq!(rules(path, &text), Vec::<&str>::new(), "{path}: {text}");
    }
    // A reason is needed, not a word.
    assert_eq!(rules("src/a.rs", &body("// tidy: ok\n    x.unwrap();")), ["word"]);
    // Code behind the tests is code.
    let behind = "//! H.\n#[cfg(test)]\nmod tests {\n    fn f() {}\n}\nfn g() { x.unwrap(); }\n";
    assert_eq!(rules("src/a.rs", behind), ["word"]);
}

/// The circles of a crate of these files.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let source = |(name, text): &(&str, &str)| Source::new(&format!("src/{name}.rs"), text, &[].into());
    let sources: Vec<_> = files.iter().map(source).collect();
    circles("src", &sources).into_iter().map(|circle| circle.files.join(" ")).collect()
}

#[test]
fn circles_are_found_by_any_form_of_path() {
    let of = |a: &str, b: &str| {
        let root = ("lib", "mod a;\nmod b;\nmod c;\npub use b::B as Other;\nuse a::X;");
        circles_of(&[root, ("a/mod", a), ("a/x", "use super::A;"), ("b", b), ("c", "pub use crate::a::A;")])
    };
    let found = vec!["src/a/mod.rs src/b.rs".to_owned()];
    assert_eq!(of("use crate::b::B;", "use crate::a::A;"), found);
    assert_eq!(of("mod x;\nfn f() { crate::b::f() }", "use super::{c, a::{self, A}};"), found);
    // Through re-exports, one with a new name, and through a module that a `use` imports.
    assert_eq!(of("use crate::Other;", "use super::c::A;"), found);
    assert_eq!(of("use crate::{b, c};\nfn f() { b::f() }", "use super::a;\nfn f(x: a::A) {}"), found);
    // Through a child of one of them, which the parent's code uses.
    let child = [
        ("lib", "mod a;\nmod b;"),
        ("a", "mod x;\nfn f() { x::f() }"),
        ("a/x", "use crate::b::B;"),
        ("b", "use crate::a::A;"),
    ];
    assert_eq!(circles_of(&child), ["src/a.rs src/a/x.rs src/b.rs"]);
}

#[test]
fn module_lists_and_reexports_make_no_circle() {
    let good: &[&[(&str, &str)]] = &[
        &[("lib", "mod a;\npub use a::A;\npub struct B;"), ("a", "use crate::B;")],
        &[("lib", "mod a;\npub(crate) use a::{A, C};"), ("a", "pub struct A;\nuse crate::C;")],
        &[
            ("lib", "mod a;\nmod b;"),
            ("a", "use crate::b::B;"),
            ("b", "// crate::a::A\nfn f(a: u8) { \"crate::a::A\"; }"),
        ],
        &[("lib", "mod a;\nmod b;"), ("a", "use crate::b::B;"), ("b", "#[cfg(test)]\nmod tests { use crate::a::A; }")],
        &[("lib", "mod a;\nmod b;"), ("a", "use crate::b;\nuse other::b::x;"), ("b", "use crate::a;")],
        // A child is a part of its parent.
        &[("lib", "mod a;\nuse a::f;"), ("a", "mod x;\nfn f() { x::f() }"), ("a/x", "use super::A;\nuse crate::B;")],
        // The program beside the library is another crate.
        &[("lib", "mod a;"), ("main", "use framegate::a::A;"), ("a", "use crate::A;")],
    ];
    for files in good {
        assert_eq!(circles_of(files), Vec::<String>::new(), "{files:?}");
    }
}

#[test]
fn licence_expressions_are_read_as_spdx() {
    for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "ISC AND (GPL-3.0 OR ISC)", "Apache-2.0 WITH LLVM-exception"] {
        assert!(is_satisfied(good), "{good}");
    }
    for bad in ["", "none", "GPL-3.0", "MIT AND GPL-3.0", "ISC AND (GPL-3.0 OR LGPL-3.0)", "MIT MIT", "(MIT", "MIT OR"]
    {
        assert!(!is_satisfied(bad), "{bad}");
    }
}

#[test]
fn a_reason_is_beside_or_above_its_dependency() {
    let manifest = "[package]\nname = \"x\"\n\n[dependencies]\n# Why.\na = \"1\"\nb = \"1\" # Why.\nc = { x = \"#\" }\n\
                    # Why.\n\nd = \"1\"\n[profile.dev]\nlto = \"off\"\n[dev-dependencies]\ne = \"1\"\n";
    assert_eq!(without_reason(manifest), ["c", "d", "e"]);
}

#[test]
fn only_markdown_prose_has_a_width() {
    let long = "x ".repeat(61);
    let text = format!("{long}\n| {long} |\n```\n{long}\n```\n[{long}](y)\n> {long}\n{}\n", "x".repeat(120));
    assert_eq!(long_lines(&text), [(1, 122), (7, 124)]);
}
