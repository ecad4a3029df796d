//! Files of a directory: `files`.

#[cfg(feature = "files")]
use super::good;
use super::{NAME, bad};
#[cfg(feature = "files")]
use framegate::policy::{
    files::Files,
    route::{Protocols, RouteAction},
};
#[cfg(feature = "files")]
use std::path::Path;

fn with_route(keys: &str) -> String {
    format!("[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\n{keys}\n")
}

#[cfg(feature = "files")]
#[test]
fn files_take_effect() {
    for (keys, root, index) in [
        ("files = \"/\"", "/", "index.html"),
        ("files = \"src\"", "src", "index.html"),
        ("files = { root = \"/\" }", "/", "index.html"),
        ("files = { index = \"home.htm\", root = \"/\" }\nprotocols = [\"http\"]", "/", "home.htm"),
        ("strip_prefix = \"/a\"\npath = \"/a/*\"\nfiles = \"/\"\ntimeouts = { idle = \"1m\" }", "/", "index.html"),
    ] {
        let snapshot = good(&with_route(keys));
        let route = &snapshot.routes.entries()[0].route;
        let files = Files { root: Path::new(root).into(), index: index.into() };
        assert_eq!(route.action, RouteAction::Files(files), "{keys}");
        assert_eq!(route.protocols, Protocols { websocket: false, http: true }, "{keys}");
        assert!(route.upstreams().is_empty() && route.proxies());
    }
    let text = good(&with_route("files = \"/\"")).describe(4096, 2);
    assert!(text.contains("  /* -> files of /, index index.html, plain HTTP alone\n"), "{text}");
    assert!(text.contains("8.0 MiB  64 pieces of files of 64 KiB per worker\n"), "{text}");
}

#[cfg(feature = "files")]
#[test]
fn errors_name_their_place_and_what_is_right() {
    let right = "expected a directory such as \"site\", or { root = \"site\", index = \"index.html\" }";
    for (keys, place, rest) in [
        ("files = 5", "4:9: route.files", &*format!("5 is not valid; {right}")),
        ("files = []", "4:9: route.files", &format!("a list is not valid; {right}")),
        ("files = {}", "4:9: route.files", &format!("has no root; {right}")),
        ("files = { rot = \"/\" }", "4:9: route.files", &format!("has no key \"rot\"; {right}")),
        (
            "files = \"/no/such/place\"",
            "4:9: route.files",
            "\"/no/such/place\" cannot be read: No such file or directory (os error 2)",
        ),
        (
            "files = \"/dev/null\"",
            "4:9: route.files",
            "\"/dev/null\" is not a directory; expected for example \"site\"",
        ),
        (
            "files = { root = \"/\", index = \"../x\" }",
            "4:9: route.files",
            "\"../x\" is not the name of an index; expected for example \"index.html\"",
        ),
        (
            "files = { root = \"/\", index = \".x\" }",
            "4:9: route.files",
            "\".x\" is not the name of an index; expected for example \"index.html\"",
        ),
        (
            "files = \"/\"\nprotocols = [\"websocket\", \"http\"]",
            "5:13: route.protocols",
            "files are served over plain HTTP alone; expected [\"http\"]",
        ),
        (
            "files = \"/\"\nupstream = \"ws://10.0.0.1:9000\"",
            "5:12: route.upstream",
            "excludes files; a route has one of upstream, split, files, respond and redirect",
        ),
        (
            "respond = {}\nfiles = \"/\"",
            "5:9: route.files",
            "excludes respond; a route has one of upstream, split, files, respond and redirect",
        ),
        ("files = \"/\"\nmode = \"opaque\"", "5:8: route.mode", "has no effect in a route with files; remove it"),
        (
            "files = \"/\"\nrequest_headers = { set = { X-A = \"b\" } }",
            "5:29: route.request_headers",
            "has no effect in a route with files; remove it",
        ),
        (
            "files = \"/\"\ntimeouts = { upstream_head = \"1s\" }",
            "5:30: route.timeouts.upstream_head",
            "has no effect in a route with files; remove it",
        ),
    ] {
        let told = bad(&with_route(keys));
        assert_eq!(told.first().map(String::as_str), Some(format!("{NAME}:{place}: {rest}").as_str()), "{told:#?}");
    }
}

#[cfg(not(feature = "files"))]
#[test]
fn a_build_without_files_says_so() {
    let why = "cannot be used: this build serves no files (feature \"files\")";
    assert_eq!(bad(&with_route("files = \"/\"")), [format!("{NAME}:4:9: route.files: {why}")]);
}
