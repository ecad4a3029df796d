//! The configurations in `examples/`: valid for framegate, the originals valid for the proxies that
//! they are of, and all of them run before real backends. What both sides of a pair promise is
//! asserted of both; where they differ as the comments say, of framegate.
#![cfg(all(feature = "discovery", feature = "files", feature = "regex"))]

#[path = "examples/access.rs"]
mod access;
#[allow(dead_code)] // a part is used
#[path = "discovery/api.rs"]
mod api;
mod common;
#[path = "examples/envoy.rs"]
mod envoy;
#[path = "examples/haproxy.rs"]
mod haproxy;
#[path = "examples/nginx.rs"]
mod nginx;
#[path = "examples/rig.rs"]
mod rig;
#[path = "examples/site.rs"]
mod site;
#[path = "examples/spring.rs"]
mod spring;
#[path = "examples/traefik.rs"]
mod traefik;

use std::path::PathBuf;
use std::process::Command;

/// The files of all examples with this ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(rig::folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|is| is == ending)).collect()
}

#[test]
fn every_example_passes_check() {
    let files = files("toml");
    assert_eq!(files.len(), 13, "{files:?}");
    for file in &files {
        // The certificates of an example are those of its host.
        let text = rig::with_certificates(&std::fs::read_to_string(file).unwrap());
        let (folder, copy) = rig::folder_with("framegate.toml", &text);
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).arg("check").arg("-c").arg(&copy).output().unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        // Routes that cannot match or be told apart; the limit on open files is this machine's.
        let warned = |line: &&str| line.starts_with("warning") && !line.contains("RLIMIT_NOFILE");
        assert_eq!(said.lines().find(warned), None, "{}", file.display());
    }
}

/// The programs of some are not here to read them.
#[test]
fn originals_in_yaml_are_yaml() {
    let files = files("yaml");
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert!(documents.iter().all(serde_json::Value::is_object), "{}: {documents:?}", file.display());
    }
}
