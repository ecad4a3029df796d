//! The configurations in `examples/`: valid for framegate, the originals valid for the proxies that
//! they are of, and all of them run before real backends. What both sides of a pair promise is
//! asserted of both; where they differ as the comments say, of framegate.

#[cfg(feature = "discovery")]
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
#[path = "examples/spring.rs"]
mod spring;
#[path = "examples/traefik.rs"]
mod traefik;

use std::process::Command;

#[test]
fn every_example_passes_check() {
    let folders = std::fs::read_dir(rig::folder()).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| std::fs::read_dir(path).unwrap());
    let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    let discovers = |text: &str| text.lines().any(|line| line.starts_with("[upstream.discover"));
    let mut checked = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "toml")) {
        checked += 1;
        if !cfg!(feature = "discovery") && discovers(&std::fs::read_to_string(file).unwrap()) {
            continue;
        }
        let output = Command::new(env!("CARGO_BIN_EXE_framegate")).arg("check").arg("-c").arg(file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        // Routes that cannot match or be told apart; the limit on open files is this machine's.
        let warned = |line: &&str| line.starts_with("warning") && !line.contains("RLIMIT_NOFILE");
        assert_eq!(said.lines().find(warned), None, "{}", file.display());
    }
    assert!(checked >= 6, "{files:?}");
}
