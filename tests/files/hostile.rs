//! Paths that lead elsewhere, names of things that are no files, and files that are none of the
//! client's business.

use super::common::*;
use super::site::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

const SECRET: &str = "SECRET";

/// A site in a folder of its own, beside which there is a secret.
fn beside_a_secret() -> (Site, Site) {
    let outer = Site::new();
    outer.put("secret.txt", SECRET);
    outer.put("site2/secret.txt", SECRET);
    let site = Site(outer.0.join("site"));
    std::fs::create_dir(&site.0).unwrap();
    site.put("index.html", "home");
    site.put("a/index.html", "index of a");
    site.put("a/b.txt", "b");
    site.put("a b/c d.txt", "spaces");
    site.put("100%.txt", "percent");
    site.put("%2e%2e/x.txt", "an odd name");
    site.put("caf\u{e9}.txt", "coffee");
    site.put("a..b.txt", "dots");
    site.put("x+y&z=1;@:!$'()*,.txt", "signs");
    site.put(".hidden", SECRET);
    site.put(".git/config", SECRET);
    site.put("a/.htaccess", SECRET);
    site.put("...", SECRET);
    site.put("..hidden", SECRET);
    site.put("back\\slash.txt", SECRET);
    site.put("new\nline.txt", SECRET);
    site.put("a/.well-known/x", SECRET);
    site.put(".well-known/security.txt", "contact");
    site.put(".well-known/.secret", SECRET);
    (outer, site)
}

fn with_links(site: &Site) {
    let link = |target: &str, name: &str| symlink(target, site.0.join(name)).unwrap();
    link("a/b.txt", "inside");
    link("../site/a/b.txt", "around");
    link("../secret.txt", "out");
    link("../site2", "sibling");
    link("..", "up");
    link("/etc/passwd", "passwd");
    link("/etc", "etc");
    link("/dev/zero", "zero");
    link("/proc/self/environ", "environ");
    link(site.0.join("a/b.txt").to_str().unwrap(), "absolute");
    link("loop", "loop");
    link("nowhere", "dangling");
    link("a", "folder");
    link("a/../../secret.txt", "winding");
}

/// What is asked for, and the status; with a body where that is of a file.
const PATHS: &[(&str, u16, &str)] = &[
    // What there is.
    ("/", 200, "home"),
    ("/a/b.txt", 200, "b"),
    ("/a/", 200, "index of a"),
    ("/%61/%62.txt", 200, "b"),
    ("/a/./b.txt", 200, "b"),
    ("/a/../a/b.txt", 200, "b"),
    ("/a/%2e%2e/a/b.txt", 200, "b"),
    ("/a%20b/c%20d.txt", 200, "spaces"),
    ("/100%25.txt", 200, "percent"),
    ("/100%.txt", 400, ""),
    ("/%252e%252e/x.txt", 200, "an odd name"),
    ("/caf%C3%A9.txt", 200, "coffee"),
    ("/a..b.txt", 200, "dots"),
    ("/x+y&z=1;@:!$'()*,.txt", 200, "signs"),
    ("/x%2By%26z%3D1%3B%40%3A%21%24%27%28%29%2A%2C.txt", 200, "signs"),
    ("/.well-known/security.txt", 200, "contact"),
    ("/a/b.txt?x=/../../secret.txt", 200, "b"),
    ("/inside", 200, "b"),
    ("/folder/b.txt", 200, "b"),
    ("/folder", 308, ""),
    // Up and out.
    ("/../secret.txt", 400, ""),
    ("/a/../../secret.txt", 400, ""),
    ("/%2e%2e/secret.txt", 400, ""),
    ("/.%2e/secret.txt", 400, ""),
    ("/%2E%2E/secret.txt", 400, ""),
    ("/..%2fsecret.txt", 400, ""),
    ("/..%2Fsecret.txt", 400, ""),
    ("/%2e%2e%2fsecret.txt", 400, ""),
    ("/a/..%2f..%2fsecret.txt", 400, ""),
    ("/a%2f..%2f..%2fsecret.txt", 400, ""),
    ("/a%2fb.txt", 404, ""),
    ("/a/%2fetc/passwd", 404, ""),
    ("/%2fetc/passwd", 404, ""),
    ("//etc/passwd", 404, ""),
    ("///etc/passwd", 404, ""),
    ("/a//b.txt", 404, ""),
    ("//a/b.txt", 404, ""),
    ("/a/b.txt//", 404, ""),
    ("/..\\secret.txt", 400, ""),
    ("/..%5csecret.txt", 404, ""),
    ("/..%5Csecret.txt", 404, ""),
    ("/a%5c..%5c..%5csecret.txt", 404, ""),
    ("/back%5cslash.txt", 404, ""),
    // Encoded twice, and longer than need be.
    ("/%252e%252e/secret.txt", 404, ""),
    ("/%252e%252e%252fsecret.txt", 404, ""),
    ("/..%252fsecret.txt", 404, ""),
    ("/%25252e%25252e/secret.txt", 404, ""),
    ("/%c0%ae%c0%ae/secret.txt", 404, ""),
    ("/%c0%2e%c0%2e/secret.txt", 404, ""),
    ("/%e0%80%ae%e0%80%ae/secret.txt", 404, ""),
    ("/%f0%80%80%ae/secret.txt", 404, ""),
    ("/..%c0%afsecret.txt", 404, ""),
    ("/%uff0e%uff0e/secret.txt", 400, ""),
    ("/%ef%bc%8e%ef%bc%8e/secret.txt", 404, ""),
    ("/..;/secret.txt", 404, ""),
    ("/.../secret.txt", 404, ""),
    ("/..../secret.txt", 404, ""),
    ("/%2", 400, ""),
    ("/%", 400, ""),
    ("/%zz", 400, ""),
    // Control bytes.
    ("/a/b.txt%00", 400, ""),
    ("/a/b.txt%00.html", 400, ""),
    ("/new%0aline.txt", 404, ""),
    ("/a/b.txt%0d%0aX:%20y", 404, ""),
    ("/a/b.txt%7f", 404, ""),
    ("/a/b.txt%1f", 404, ""),
    // Hidden, and dots where others drop them.
    ("/.hidden", 404, ""),
    ("/%2ehidden", 404, ""),
    ("/..hidden", 404, ""),
    ("/...", 404, ""),
    ("/.git/config", 404, ""),
    ("/.git/", 404, ""),
    ("/.git", 404, ""),
    ("/a/.htaccess", 404, ""),
    ("/a/%2Ehtaccess", 404, ""),
    ("/a/.well-known/x", 404, ""),
    ("/.well-known/.secret", 404, ""),
    ("/.well-known", 404, ""),
    ("/a/../.hidden", 404, ""),
    ("/a/b.txt.", 404, ""),
    ("/a/b.txt...", 404, ""),
    ("/a/b.txt%20", 404, ""),
    ("/a/b.txt::$DATA", 404, ""),
    ("/a/b.txt/", 404, ""),
    ("/a/b.txt/.", 404, ""),
    ("/a/b.txt/../b.txt", 200, "b"),
    ("/index.html/../../secret.txt", 400, ""),
    // Links.
    ("/around", 404, ""),
    ("/out", 404, ""),
    ("/sibling/secret.txt", 404, ""),
    ("/up/secret.txt", 404, ""),
    ("/up/site/a/b.txt", 404, ""),
    ("/passwd", 404, ""),
    ("/etc/passwd", 404, ""),
    ("/etc/", 404, ""),
    ("/zero", 404, ""),
    ("/environ", 404, ""),
    ("/absolute", 404, ""),
    ("/loop", 404, ""),
    ("/dangling", 404, ""),
    ("/winding", 404, ""),
    // No files.
    ("/fifo", 404, ""),
    ("/fifo/", 404, ""),
    ("/socket", 404, ""),
];

#[test]
fn nothing_but_the_files_of_the_site_is_served() {
    let (_outer, site) = beside_a_secret();
    with_links(&site);
    let made = Command::new("mkfifo").arg(site.0.join("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(site.0.join("socket")).unwrap();
    let mut proxy = site.proxy("");
    let mut others = Vec::new();
    for (path, status, body) in PATHS {
        for method in ["GET", "HEAD"] {
            let answer = ask(&connect(proxy.addr), method, path, "");
            if answer.status != *status {
                others.push(format!("{method} {path}: {}", answer.status));
            }
            let text = answer.text();
            assert!(!text.contains(SECRET) && !text.contains("root:"), "{path}: {text}");
            if *status == 200 && method == "GET" {
                assert_eq!(text, *body, "{path}");
            }
        }
    }
    assert_eq!(others, [""; 0]);
    assert!(PATHS.len() >= 60);
    let long = format!("/{}", "a".repeat(255));
    assert_eq!(get(proxy.addr, &long, "").status, 404);
    for path in ["a".repeat(256), "a/".repeat(3000), "%61".repeat(4000), format!("a/{}", "..b/".repeat(1000))] {
        assert_eq!(get(proxy.addr, &format!("/{path}"), "").status, 404);
    }
    assert_eq!(get(proxy.addr, &format!("/{}", "a/../".repeat(2000)), "").text(), "home");
    // The end of a FIFO is still waited for by no thread, and nothing is held open.
    assert_eq!(get(proxy.addr, "/", "").status, 200);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().filter_map(Result::ok);
    eventually("all files are closed", || {
        let held = open().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        (!held.into_iter().any(|path| path.starts_with(&site.0))).then_some(())
    });
    let lines = proxy.stop();
    assert!(lines.iter().any(|line| line.contains("cause=no-file status=404")), "{lines:#?}");
}

#[test]
fn a_rewrite_does_not_lead_out_either() {
    let (_outer, site) = beside_a_secret();
    for keys in [
        "rewrite = { pattern = \"^/get/(.*)\", replace = \"/{1}\" }",
        "path = \"/get/*\"\nstrip_prefix = \"/get\"",
        "add_prefix = \"/a\"",
        "path = \"/get/{*rest}\"\nrewrite = { path = \"/{rest}\" }",
    ] {
        let proxy = site.proxy(keys);
        for path in [
            "/get/..%2fsecret.txt",
            "/get/%2e%2e%2fsecret.txt",
            "/get/..%252fsecret.txt",
            "/get/%2e%2e/secret.txt",
            "/get//etc/passwd",
            "/get/.hidden",
            "/get/a/.htaccess",
            "/get/.git/config",
            "/get/....//secret.txt",
            "/get/..;/secret.txt",
            "/..%2fsecret.txt",
            "/.hidden",
            "/get/.%2e/.%2e/secret.txt",
            "/get/a%2f..%2f..%2fsecret.txt",
            "/get/%252e%252e%252fsecret.txt",
        ] {
            let answer = get(proxy.addr, path, "");
            assert!(matches!(answer.status, 400 | 404), "{keys} {path}: {answer:?}");
        }
    }
}

#[test]
fn a_file_that_the_process_may_not_read_is_forbidden() {
    let site = Site::new();
    for (path, mode) in [(site.put("closed.txt", SECRET), 0o000), (site.put("shut/in.txt", SECRET), 0o644)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(site.0.join("shut"), PermissionsExt::from_mode(0o000)).unwrap();
    let config = temp_path("toml");
    std::fs::write(&config, site.config("").replace("pin = true", "")).unwrap();
    // Root may read all: another user then, who needs a program that it may run.
    let program = temp_path("bin");
    std::fs::copy(env!("CARGO_BIN_EXE_framegate"), &program).unwrap();
    let mut command = Command::new(&program);
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    let proxy = Proxy::spawn(command.arg("run").arg("-c").arg(&config), config.clone());
    for (path, status) in [("/letters.txt", 200), ("/closed.txt", 403), ("/shut/in.txt", 403), ("/shut/", 403)] {
        let answer = get(proxy.addr, path, "");
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(!answer.text().contains(SECRET));
    }
    std::fs::remove_file(program).unwrap();
    std::fs::set_permissions(site.0.join("shut"), PermissionsExt::from_mode(0o755)).unwrap();
}
