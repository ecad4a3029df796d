//! Python `requests` before a server of Node.js.

use crate::common::field;
use crate::rig::{self, Server};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

#[test]
fn python_requests_keeps_its_connections() {
    let Some(packages) = rig::packages() else { return };
    let python = packages.join("python/bin/python");
    if !Command::new(&python).args(["-c", "import requests"]).status().is_ok_and(|status| status.success()) {
        return rig::missing("Python `requests`; run tests/peers/setup.sh");
    }
    let node = Server::start(&packages, "echo.mjs", &[]);
    let mut proxy = rig::proxy(&[&node], "", "");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/http_client.py");
    let output = Command::new(python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .arg(format!("http://{}", proxy.addr))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out.trim_end(), "ok {\"requests\": 1328}", "{err}");
    let ends = rig::ends(&mut proxy);
    // A redirection is two requests.
    assert_eq!(rig::count(&ends, "answered", 200) + rig::count(&ends, "answered", 302), 1328 + 8);
    let clients: HashSet<_> = ends.iter().filter_map(|line| field(line, "client")).collect();
    assert_eq!(clients.len(), 8, "{clients:?}");
}
