//! The ports of source addresses, in a network namespace, where there are few.

use crate::backend::Backend;
use crate::common::*;
use crate::crowd::Crowd;
use crate::rig::*;
use std::process::Command;

/// Set in the namespace.
const INSIDE: &str = "FRAMEGATE_TEST_FEW_PORTS";
const PORTS: usize = 200;
/// Makes the namespace: a loopback device, and this many ports for each address.
const PREPARE: &str = "ip link set lo up && echo 40000 40199 > /proc/sys/net/ipv4/ip_local_port_range";

#[test]
fn warning_comes_before_the_ports_of_an_address_run_out() {
    if std::env::var_os(INSIDE).is_some() {
        return warns_once_before_they_run_out();
    }
    let namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c"]).arg(format!("{PREPARE} && {then}"));
        command
    };
    if !namespace("true").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no network namespaces without privileges here");
    }
    let name = "ports::warning_comes_before_the_ports_of_an_address_run_out";
    let output = namespace(&format!("exec \"$0\" --exact {name} --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

fn warns_once_before_they_run_out() {
    let backend = Backend::start(0);
    let mut proxy = Proxy::start(&config([&backend], "bind = [\"127.0.0.2\", \"127.0.0.3\"]"));
    let mut crowd = Crowd::start(&proxy);
    let ports = 2 * PORTS;
    let first = ports * 9 / 10;
    // A request for the endpoints makes control look at them. Some ports are those of listeners, so
    // not all of them can be used.
    for more in [first - 1, 1, 1, ports / 20] {
        crowd.open(more);
        upstreams_are_true(&proxy, &crowd, [&backend]);
    }
    ended_as(&crowd.stop(&[]), |_| STOPPED);
    are_deserted(&[backend]);
    proxy.signal("TERM");
    assert!(proxy.wait().success());
    let said = proxy.said.whole();
    let warnings: Vec<_> = said.iter().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else { panic!("{warnings:#?}") };
    let text = format!("has {first} sessions, 90 % of the {ports} ports for connections to it");
    assert!(warning.contains(&text), "{warning}");
}
