//! Eureka: polled at an interval, an application that is not there, a token.

use super::api::{Api, Call};
use super::common::{PATIENCE, Proxy, listen};
use super::{config, metric, reaches, until};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn discover(api: &Api, more: &str) -> String {
    let url = api.url();
    config(&format!(
        "discover = {{ eureka = {{ app = \"chat\", address = \"{url}/eureka/\", interval = \"500ms\"{more} }} }}"
    ))
}

fn answer(call: Call, instances: &[(SocketAddr, &str)]) {
    let instance = |(addr, status): &(SocketAddr, &str)| {
        format!(
            r#"{{"instanceId": "x", "hostName": "h", "app": "CHAT", "ipAddr": "{}", "status": "{status}",
            "port": {{"$": {}, "@enabled": "true"}}, "securePort": {{"$": 443, "@enabled": "false"}},
            "metadata": {{"weight": "2"}}}}"#,
            addr.ip(),
            addr.port()
        )
    };
    let instances: Vec<_> = instances.iter().map(instance).collect();
    call.ok(&format!(r#"{{"application": {{"name": "CHAT", "instance": [{}]}}}}"#, instances.join(",")));
}

#[test]
fn instances_that_are_up_are_polled_for() {
    let ((one, a), (two, b)) = (listen(), listen());
    let api = Api::start();
    let toml = discover(&api, "");
    let starting = std::thread::spawn(move || Proxy::start(&toml));
    let call = api.next();
    assert_eq!((call.target(), call.header("Accept")), ("/eureka/apps/chat", Some("application/json")));
    answer(call, &[(a, "UP"), (b, "STARTING")]);
    let proxy = starting.join().unwrap();
    let began = Instant::now();
    reaches(&proxy, &[&one], &[&two]);
    let call = api.next();
    assert!(began.elapsed() < PATIENCE);
    answer(call, &[(a, "DOWN"), (b, "UP")]);
    until(&proxy, "changes_total", "eureka", 2.0);
    reaches(&proxy, &[&two], &[&one]);
    let answered = Instant::now();
    answer(api.next(), &[(b, "UP")]);
    let call = api.next();
    assert!(answered.elapsed() >= Duration::from_millis(450), "the interval is kept");
    // It is not registered: no endpoints, which are kept.
    call.answer("404 Not Found", "", "");
    until(&proxy, "failures_total", "eureka", 1.0);
    assert_eq!((metric(&proxy, "endpoints", "eureka"), metric(&proxy, "changes_total", "eureka")), (1.0, 2.0));
    reaches(&proxy, &[&two], &[&one]);
}

#[test]
fn token_comes_from_the_environment() {
    let (_one, a) = listen();
    let api = Api::start();
    let config = super::common::temp_path("toml");
    std::fs::write(&config, discover(&api, ", token_env = \"EUREKA_TOKEN\"")).unwrap();
    let starting = std::thread::spawn(move || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_framegate"));
        Proxy::spawn(command.arg("run").arg("-c").arg(&config).env("EUREKA_TOKEN", "sesame"), config.clone())
    });
    let call = api.next();
    assert_eq!(call.header("Authorization"), Some("Bearer sesame"));
    answer(call, &[(a, "UP")]);
    let proxy = starting.join().unwrap();
    assert!(!proxy.said.all().join("\n").contains("sesame"));
}
