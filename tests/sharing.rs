//! Limits that two hosts share through a real Redis: sessions and rates, and all that can happen to
//! Redis meanwhile.
#![cfg(feature = "redis")]

mod common;
#[path = "sharing/rig.rs"]
mod rig;

use common::{eventually, temp_path};
use rig::{
    Backend, Crowd, Dripping, HOST_TIMEOUT, Host, PROMPT, Server, THREE_SESSIONS, assert_shared, config,
    create_cluster, hosts, is_there, tls_arguments,
};
use std::process::Command;
use std::time::Instant;

/// The rights that the manual names.
const GATE: &str = "on >open-sesame ~framegate:* -@all +ping +hello +eval +evalsha +script|load +time +hlen +hgetall \
                    +hset +hdel +pexpire";

/// After a crowd has gone: what it had is not gone at once.
fn assert_shared_again(hosts: &[Host; 2]) {
    let opened: usize = hosts.iter().map(|host| host.lines(" open ")).sum();
    assert!(opened > 0);
    for host in hosts {
        eventually("all sessions are over", || (host.lines(" open ") == host.lines(" phase=open ")).then_some(()));
    }
    assert_shared(hosts, "one");
}

fn urls(url: &str) -> String {
    format!("urls = [\"{url}\"]")
}

#[test]
fn sessions_of_a_client_count_on_all_hosts() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let hosts = hosts(THREE_SESSIONS, &urls(&redis.url()));
    assert_shared(&hosts, "one");
    // Another client has sessions of its own.
    let _one = [(); 3].map(|()| hosts[0].admits("one"));
    hosts[1].refuses("one");
    let _two = hosts[1].open_all("two", 3);
    // Who it is stands nowhere in Redis.
    let keys = redis.keys();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("framegate:{0}:") && key.len() == "framegate:{0}:".len() + 32));
}

#[test]
fn handshakes_of_a_client_count_on_all_hosts() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let limits = "per_identity = { handshakes = \"1/h\", burst = 4, shared = true }";
    let [a, b] = hosts(limits, &urls(&redis.url()));
    a.open_all("one", 4);
    assert!(a.open("one").is_err());
    a.wait_for_rounds();
    // The first one on a host is admitted before others are heard of; it counts for them.
    b.open_all("one", 1);
    b.wait_for_rounds();
    let refusal = b.open("one").err().unwrap();
    let seconds = refusal.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    assert!((7_000..=7_200).contains(&seconds.parse::<u64>().unwrap()), "five of four in an hour each: {refusal}");
    eventually("the other host waits as long", || {
        let refusal = a.open("one").err().unwrap();
        let seconds = refusal.split("\r\nRetry-After: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
        (seconds.parse::<u64>().unwrap() > 7_000).then_some(())
    });
    b.open_all("two", 4);
}

#[test]
fn a_host_that_is_killed_is_forgotten_and_one_that_stops_leaves() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let [mut a, b] = hosts(THREE_SESSIONS, &urls(&redis.url()));
    let held = a.open_all("one", 3);
    b.refuses("one");
    let killed = Instant::now();
    a.proxy.signal("KILL");
    a.proxy.wait();
    let _session = b.admits("one");
    let took = killed.elapsed();
    assert!(took >= HOST_TIMEOUT / 2 && took < HOST_TIMEOUT + PROMPT, "{took:?}");
    drop(held);
    // One that stops takes back what it has told.
    let key = eventually("its session is told", || redis.keys().pop());
    eventually("only one host is left", || (redis.told(&key) == (1, 1)).then_some(()));
    let mut b = b;
    b.proxy.signal("TERM");
    b.proxy.signal("TERM");
    b.proxy.wait();
    assert_eq!(redis.keys(), Vec::<String>::new());
}

#[test]
fn redis_is_killed_and_brought_back_under_load() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let hosts = hosts(THREE_SESSIONS, &urls(&redis.url()));
    assert_shared(&hosts, "one");
    let crowd = Crowd::start(&hosts);
    redis.kill();
    hosts.iter().for_each(|host| host.wait_until_up(false));
    hosts[0].proxy.said.wait_for("redis: limits are not shared until it answers");
    redis.restart();
    hosts.iter().for_each(|host| host.wait_until_up(true));
    let seen = crowd.stop();
    assert!(seen.handshakes > 20 && seen.slowest < PROMPT, "{seen:?}");
    assert_shared_again(&hosts);
}

#[test]
fn redis_stalls_and_goes_on_under_load() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let hosts = hosts(THREE_SESSIONS, &urls(&redis.url()));
    let held = hosts[0].open_all("one", 2);
    let other = hosts[1].admits("one");
    hosts[0].refuses("one");
    hosts[1].refuses("one");
    redis.signal("STOP");
    let crowd = Crowd::start(&hosts);
    // What the other had is forgotten in the end, and each counts for itself.
    hosts.iter().for_each(|host| host.wait_until_up(false));
    let alone = [hosts[1].admits("one"), hosts[1].admits("one")];
    let seen = crowd.stop();
    assert!(seen.handshakes > 20 && seen.slowest < PROMPT, "{seen:?}");
    redis.signal("CONT");
    hosts.iter().for_each(|host| host.wait_until_up(true));
    hosts[0].end(held);
    hosts[1].end([other]);
    hosts[1].end(alone);
    assert_shared_again(&hosts);
}

#[test]
fn an_answer_without_end_does_not_hold_old_numbers() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let dripping = Dripping::before(&redis);
    let backend = Backend::start();
    let a = Host::start(&backend, THREE_SESSIONS, &urls(&redis.url()));
    let b = Host::start(&backend, THREE_SESSIONS, &urls(&format!("redis://127.0.0.1:{}", dripping.port)));
    let _held = a.open_all("one", 2);
    let _other = b.admits("one");
    b.refuses("one");
    dripping.drip();
    // Each byte comes in time, so no timeout ends it. What the other had is forgotten all the same.
    let _alone = [b.admits("one"), b.admits("one")];
    assert!(b.open("one").is_err());
    b.wait_until_up(false);
}

#[test]
fn a_host_starts_without_redis_and_finds_it_later() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    redis.kill();
    let backend = Backend::start();
    let hosts = [(); 2].map(|()| Host::start(&backend, THREE_SESSIONS, &urls(&redis.url())));
    let [a, b] = &hosts;
    a.proxy.said.wait_for("redis: limits are not shared until it answers");
    let (of_a, of_b) = (a.open_all("one", 3), b.open_all("one", 3));
    assert!(a.open("one").is_err() && b.open("one").is_err(), "each for itself");
    redis.restart();
    hosts.iter().for_each(|host| host.wait_until_up(true));
    let key = eventually("sessions are told", || redis.keys().pop());
    eventually("of both hosts", || (redis.told(&key) == (6, 2)).then_some(()));
    // Six of three: there is room when four are over.
    a.end(of_a);
    a.refuses("one");
    b.end(of_b);
    let _session = a.admits("one");
}

#[test]
fn what_others_have_written_is_no_harm() {
    if !is_there() {
        return;
    }
    let redis = Server::start(&[]);
    let limits = "per_identity = { sessions = 3, handshakes = \"1000/s\", shared = true }";
    let [a, b] = hosts(limits, &urls(&redis.url()));
    let held = a.open_all("one", 2);
    let key = eventually("sessions are told", || redis.keys().pop());
    let bad = || a.proxy.metric("framegate_redis_bad_answers_total");
    let writes: &[&[&str]] = &[
        &["SET", &key, "x"],
        &["LPUSH", &key, "x"],
        &["HSET", &key, "other", "many"],
        &["HSET", &key, "other", "-1 9999999999999999"],
        &["HSET", &key, "other", "99999999 9999999999999999"],
        &["HSET", &key, "other", "999999999999999999999999 9999999999999999"],
        &["HSET", &key, "full", "nan"],
        &["HSET", &key, "full", "1e400"],
        &["HSET", &key, "full", "99999999999999999999"],
        &["HSET", &key, "full", "2000000000000000"],
    ];
    for write in writes {
        let before = bad();
        // Again and again: a host may write between the two.
        eventually("it is counted", || {
            redis.ask(&["DEL", &key]).unwrap();
            redis.ask(write).unwrap();
            (bad() > before).then_some(())
        });
        // Two of three, counted alone.
        a.end([a.admits("one")]);
    }
    assert!(a.is_up() && b.is_up(), "only this client counts alone");
    redis.ask(&["DEL", &key]).unwrap();
    let _third = b.admits("one");
    b.refuses("one");
    a.refuses("one");
    drop(held);
}

#[test]
fn a_password_and_a_user_with_few_rights() {
    if !is_there() {
        return;
    }
    let users = temp_path("acl");
    std::fs::write(&users, format!("user default on >root ~* &* +@all\nuser gate {GATE}\n")).unwrap();
    let redis = Server::with(&["--aclfile", users.to_str().unwrap()], &["AUTH", "root"]);
    let (right, wrong) = (temp_path("password"), temp_path("password"));
    std::fs::write(&right, "open-sesame\n").unwrap();
    std::fs::write(&wrong, "shut-sesame\n").unwrap();
    let with =
        |file: &std::path::Path| format!("{}\nusername = \"gate\"\npassword_file = {file:?}", urls(&redis.url()));
    let shared = hosts(THREE_SESSIONS, &with(&right));
    assert_shared(&shared, "one");
    let refused = Host::start(&Backend::start(), THREE_SESSIONS, &with(&wrong));
    refused.proxy.said.wait_for("redis: limits are not shared until it answers");
    let _alone = refused.open_all("one", 3);
    for host in [&shared[0], &refused] {
        let said = [host.proxy.said.all(), host.proxy.log.all()].concat().join("\n");
        assert!(!said.contains("sesame"), "{said}");
    }
    for file in [users, right, wrong] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn tls_with_an_authority_of_its_own() {
    if !is_there() {
        return;
    }
    let arguments = tls_arguments();
    let redis = Server::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let url = urls(&format!("rediss://localhost:{}", redis.port));
    let trusted = hosts(THREE_SESSIONS, &format!("{url}\nca = {:?}", common::pki::PKI.ca()));
    assert_shared(&trusted, "one");
    // Without it the certificate is not trusted, and nothing is shared.
    let other = Host::start(&Backend::start(), THREE_SESSIONS, &url);
    other.proxy.said.wait_for("redis: limits are not shared until it answers");
    assert!(!other.is_up());
    let _alone = other.open_all("one", 3);
}

const CLUSTER: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
const BOTH: &str = "per_address = { sessions = 3, shared = true }, per_identity = { sessions = 3, shared = true }";

#[test]
fn a_cluster_of_three() {
    if !is_there() {
        return;
    }
    let (users, password) = (temp_path("acl"), temp_path("password"));
    let user = format!("user gate {GATE} +cluster|slots");
    std::fs::write(&users, format!("user default on >root ~* &* +@all\n{user}\n")).unwrap();
    std::fs::write(&password, "open-sesame\n").unwrap();
    let arguments = [&CLUSTER[..], &["--aclfile", users.to_str().unwrap()]].concat();
    let nodes = [(); 3].map(|()| Server::with(&arguments, &["AUTH", "root"]));
    create_cluster(&nodes, &["-a", "root"]);
    let redis = format!(
        "urls = [{:?}, {:?}]\ncluster = true\nusername = \"gate\"\npassword_file = {password:?}",
        nodes[0].url(),
        nodes[1].url()
    );
    let shared = hosts(BOTH, &redis);
    assert_shared(&shared, "one");
    assert_shared(&shared, "two");
    // A part of it goes: limits go on, also for those whose part it was.
    nodes[2].kill();
    let crowd = Crowd::start(&shared);
    shared.iter().for_each(|host| host.wait_until_up(false));
    let seen = crowd.stop();
    assert!(seen.handshakes > 20 && seen.slowest < PROMPT, "{seen:?}");
    nodes[2].restart();
    shared.iter().for_each(|host| host.wait_until_up(true));
    assert_shared_again(&shared);
    for file in [users, password] {
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn a_cluster_with_tls() {
    if !is_there() {
        return;
    }
    let (tls, ca) = (tls_arguments(), common::pki::PKI.ca());
    let arguments: Vec<&str> = tls.iter().map(String::as_str).chain(CLUSTER).chain(["--tls-cluster", "yes"]).collect();
    let nodes = [(); 3].map(|()| Server::start(&arguments));
    create_cluster(&nodes, &["--tls", "--cacert", ca.to_str().unwrap()]);
    let url = |node: &Server| format!("rediss://localhost:{}", node.port);
    let redis = format!("urls = [{:?}, {:?}]\ncluster = true\nca = {ca:?}", url(&nodes[1]), url(&nodes[2]));
    let shared = hosts(BOTH, &redis);
    assert_shared(&shared, "one");
    assert_shared(&shared, "two");
}

#[test]
fn a_reload_changes_where_limits_are_shared() {
    if !is_there() {
        return;
    }
    let (first, second) = (Server::start(&[]), Server::start(&[]));
    let [a, b] = hosts(THREE_SESSIONS, &urls(&first.url()));
    let held = a.open_all("one", 3);
    b.refuses("one");
    let reload = |host: &Host, change: &dyn Fn(String) -> String| {
        let text = std::fs::read_to_string(&host.proxy.config).unwrap();
        std::fs::write(&host.proxy.config, change(text)).unwrap();
        let answer = common::http(host.proxy.admin(), "POST /reload HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.contains("200 OK"), "{answer}");
    };
    // The other one goes elsewhere, where there is no other host.
    let elsewhere = |text: String| text.replace(&first.url(), &second.url());
    reload(&b, &elsewhere);
    b.wait_until_up(true);
    let there = b.open_all("one", 3);
    // Both are together again.
    reload(&a, &elsewhere);
    let key = eventually("sessions are told", || second.keys().pop());
    eventually("of both hosts", || (second.told(&key) == (6, 2)).then_some(()));
    b.end(there);
    b.refuses("one");
    // Without sharing each has its own, and what it told is forgotten.
    reload(&b, &|text| {
        let (start, rest) = text.split_once("[redis]").unwrap();
        let (_, end) = rest.split_once("[log]").unwrap();
        format!("{}[log]{end}", start.replace("shared = true", "shared = false"))
    });
    let _alone = b.open_all("one", 3);
    eventually("only one host is left", || (second.told(&key) == (3, 1)).then_some(()));
    drop(held);
}

#[test]
fn check_says_where_limits_are_shared() {
    let toml = common::before("127.0.0.1:9".parse().unwrap(), &config(THREE_SESSIONS, "urls = [\"redis://10.0.0.1\"]"));
    let file = temp_path("toml");
    std::fs::write(&file, toml).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_framegate")).arg("check").arg("-c").arg(&file).output().unwrap();
    std::fs::remove_file(file).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("redis://10.0.0.1, namespace framegate, every 50ms, timeout 5s"), "{text}");
    assert!(text.contains("per client 3 sessions on all hosts"), "{text}");
}
