//! The admin listener shows endpoints as they are, and gives them orders.

use crate::common::*;
use crate::rig::*;
use serde_json::{Value, json};

#[test]
fn orders_change_the_state_and_what_new_sessions_get() {
    let backends = Backend::several(2);
    let proxy = Proxy::start(&config(&backends, "", ""));
    let (url, addr) = (backends[0].url(), backends[0].addr);
    let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for (name, order, state) in [
        (addr.to_string(), "drain", "drained"),
        (url.clone(), "down", "forced-down"),
        (encoded, "ready", "up"),
        (format!("ws:%2F%2F{addr}"), "down", "forced-down"),
        (url.replace(':', "%3a"), "ready", "up"),
    ] {
        let answer = admin(&proxy, "POST", &format!("/upstreams/g/{name}/{order}"));
        assert_eq!(answer, (200, format!("{state}\n")), "{name}");
        assert_eq!(endpoint(&proxy, &backends[0])["state"], state);
        let seen: Vec<_> = (0..4).map(|_| session(&proxy).backend()).collect();
        assert_eq!(seen.contains(&0), state == "up", "{state}: {seen:?}");
    }
    // `%67` is g.
    assert_eq!(admin(&proxy, "POST", &format!("/upstreams/%67/{addr}/drain")).0, 200);
}

#[test]
fn what_is_no_order_is_refused() {
    let backends = Backend::several(1);
    let proxy = Proxy::start(&config(&backends, "", ""));
    let addr = backends[0].addr;
    for (method, path, status) in [
        ("POST", format!("/upstreams/other/{addr}/drain"), 404),
        ("POST", "/upstreams/g/127.0.0.1:1/drain".to_owned(), 404),
        ("POST", format!("/upstreams/g/{addr}/stop"), 404),
        ("POST", format!("/upstreams/g/{addr}"), 404),
        ("POST", "/upstreams/g/%zz/drain".to_owned(), 404),
        ("POST", "/upstreams/g/%ff/drain".to_owned(), 404),
        ("POST", "/upstreams/g/%/drain".to_owned(), 404),
        ("GET", format!("/upstreams/g/{addr}/drain"), 405),
        ("DELETE", format!("/upstreams/g/{addr}/ready"), 405),
        ("POST", "/upstreams".to_owned(), 405),
    ] {
        assert_eq!(admin(&proxy, method, &path).0, status, "{method} {path}");
    }
    let from_browser = format!("POST /upstreams/g/{addr}/drain HTTP/1.1\r\nHost: a\r\nOrigin: http://a\r\n\r\n");
    assert!(http(proxy.admin(), &from_browser).starts_with("HTTP/1.1 403 "));
    assert_eq!(endpoint(&proxy, &backends[0])["state"], "up", "nothing has changed");
}

#[test]
fn shows_what_is_true() {
    let backends = Backend::several(3);
    let endpoint = |(backend, weight, priority): (&Backend, u16, u8)| {
        format!("{{ url = {:?}, weight = {weight}, priority = {priority} }}", backend.url())
    };
    let endpoints = [(&backends[0], 1, 0), (&backends[1], 5, 1), (&backends[2], 7, 1)].map(endpoint);
    let rules = "balance = \"least_sessions\"\nejection = { failures = 2, time = \"1h\", max_time = \"1h\" }\n\
                 limits = { max_pending = 1, queue = 3 }";
    let proxy = Proxy::start(&config_of(&endpoints.join(", "), "", rules));
    let held = [session(&proxy), session(&proxy)];
    backends[0].set(Mode::Status(500));
    (0..2).for_each(|_| assert_eq!(visit(&proxy, "/", "").status(), 500));
    wait_state(&proxy, &backends[0], "ejected");
    order(&proxy, &backends[1], "drain");
    backends[2].set(Mode::Stalls);
    let _pending = begin(&proxy, "/", "");
    wait_upstream(&proxy, "pending", 1);
    let _queued = [begin(&proxy, "/", ""), begin(&proxy, "/", "")];
    wait_upstream(&proxy, "queued", 2);

    let mut shown = upstream(&proxy);
    let since: Vec<_> =
        shown["endpoints"].as_array_mut().unwrap().iter_mut().map(|e| e["since_unix_s"].take()).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let recent = |since: &Value| (now - 30..=now + 1).contains(&since.as_u64().unwrap());
    assert!(recent(&since[0]) && recent(&since[1]) && since[2].is_null(), "{since:?}");
    let row = |n: usize, state: &str, [weight, priority, sessions, pending, ok, failed, ejections]: [u64; 7]| {
        json!({
            "url": backends[n].url(), "state": state, "since_unix_s": null, "sessions": sessions, "pending": pending,
            "weight": weight, "priority": priority, "handshakes_ok": ok, "handshakes_failed": failed,
            "ejections": ejections, "source": "configuration",
        })
    };
    assert_eq!(
        shown,
        json!({
            "name": "g", "balance": "least_sessions", "sessions": 3, "pending": 1, "queued": 2,
            "discovery": null,
            "endpoints": [
                row(0, "ejected", [1, 0, 2, 0, 2, 2, 1]),
                row(1, "drained", [5, 1, 0, 0, 0, 0, 0]),
                row(2, "up", [7, 1, 1, 1, 0, 0, 0]),
            ],
        })
    );
    assert_table(&proxy, &shown);
    drop(held);
}

/// The table shows the same as the JSON.
fn assert_table(proxy: &Proxy, shown: &Value) {
    let (status, table) = admin(proxy, "GET", "/upstreams?format=table");
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let title = "UPSTREAM ENDPOINT STATE SINCE SESSIONS PENDING WEIGHT PRIORITY OK FAILED EJECTED SOURCE";
    assert_eq!((status, rows[0].join(" ")), (200, title.to_owned()));
    let endpoints = shown["endpoints"].as_array().unwrap();
    assert_eq!(rows.len(), endpoints.len() + 1, "{table}");
    for (row, endpoint) in rows[1..].iter().zip(endpoints) {
        let since = row[3];
        assert!(since == "start" || since.strip_suffix('s').is_some_and(|s| s.parse::<u64>().is_ok()), "{since}");
        assert_eq!(row[11], endpoint["source"].as_str().unwrap());
        assert_eq!(row[..3], ["g", endpoint["url"].as_str().unwrap(), endpoint["state"].as_str().unwrap()]);
        let keys = ["sessions", "pending", "weight", "priority", "handshakes_ok", "handshakes_failed", "ejections"];
        assert_eq!(row[4..11], keys.map(|key| endpoint[key].to_string()), "{table}");
    }
}
