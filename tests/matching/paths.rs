//! Hosts and paths.

use super::{Table, check};

#[test]
fn hosts_and_paths() {
    check(TABLES);
}

pub const TABLES: &[Table] = &[
    // Hosts and prefixes: a host of which no path matches gives way to less specific ones.
    Table {
        routes: &[
            ("all", ""),
            ("live", r#"path = "/live/*""#),
            ("example", r#"host = "*.example.com""#),
            ("eu", "host = \"*.eu.example.com\"\npath = \"/live/*\""),
            ("a", "host = \"a.example.com\"\npath = \"/live/*\""),
            ("a1", "host = \"a.example.com\"\npath = \"/live/v1/*\""),
            ("a1-exact", "host = \"a.example.com\"\npath = \"/live/v1\""),
            ("only", r#"path = "/live/v1/only""#),
        ],
        rows: &[
            ("other/", "all"),
            ("other/x", "all"),
            ("other/live", "live"),
            ("other/live/", "live"),
            ("other/live/x", "live"),
            ("other/live//x", "live"),
            ("other/live?x", "live"),
            ("other/livelier", "all"),
            ("other/Live", "all"),
            ("other//live", "all"),
            ("other/%6cive/x", "live"),
            ("other/%6Cive/x", "live"),
            ("other/x/../live/x", "live"),
            ("other/./live/x", "live"),
            ("other/live/../x", "all"),
            ("other/live/%2e%2e/x", "all"),
            ("other/live/..", "all"),
            ("other/live%2Fx", "all"),
            ("other/live%20", "all"),
            ("other/live/v1/only", "only"),
            ("other/live/v1/only/", "live"),
            ("example.com/", "all"),
            ("b.example.com/live", "example"),
            ("b.c.Example.Com:80/", "example"),
            ("notexample.com/", "all"),
            ("example.com.evil/", "all"),
            ("x.eu.example.com/live/x", "eu"),
            ("x.eu.example.com/x", "example"),
            ("eu.example.com/live/x", "example"),
            ("a.example.com/live/v2", "a"),
            ("a.example.com/live/v1", "a1-exact"),
            ("a.example.com/live/v1/", "a1"),
            ("a.example.com/live/v1/x", "a1"),
            ("a.example.com/live/v1/only", "a1"),
            ("a.example.com/live/v10", "a"),
            ("A.EXAMPLE.com.:443/live/v1", "a1-exact"),
            ("a.example.com/x", "example"),
            ("xa.example.com/live/v1", "example"),
            ("b.a.example.com/live/v1", "example"),
        ],
    },
    // Addresses are hosts.
    Table {
        routes: &[
            ("v4", r#"host = "10.0.0.1""#),
            ("v6", r#"host = "[2001:db8::1]""#),
            ("local", r#"host = "localhost""#),
        ],
        rows: &[
            ("10.0.0.1/", "v4"),
            ("10.0.0.1:8080/", "v4"),
            ("10.0.0.10/", "-"),
            ("[2001:DB8:0::1]:80/", "v6"),
            ("[2001:db8::1]/", "v6"),
            ("[2001:db8::2]/", "-"),
            ("LOCALHOST/", "local"),
            ("localhost.:1/", "local"),
            ("local/", "-"),
            ("x.localhost/", "-"),
        ],
    },
    // Without a route for the rest there is none.
    Table {
        routes: &[("chat", r#"path = "/chat""#), ("slash", r#"path = "/chat/""#), ("root", r#"path = "/""#)],
        rows: &[
            ("h/chat", "chat"),
            ("h/chat/", "slash"),
            ("h/chat//", "-"),
            ("h/chat/x", "-"),
            ("h/", "root"),
            ("h/?x", "root"),
            ("h//", "-"),
            ("h/chat/.", "slash"),
            ("h/chat/x/..", "slash"),
            ("h/chat/..", "root"),
            ("h/%63h%61t", "chat"),
        ],
    },
    // What stays encoded.
    Table {
        routes: &[
            ("slash", r#"path = "/a%2fb""#),
            ("space", r#"path = "/a%20b/*""#),
            ("percent", r#"path = "/100%25""#),
        ],
        rows: &[
            ("h/a%2Fb", "slash"),
            ("h/a%2fb", "slash"),
            ("h/a/b", "-"),
            ("h/a%20b", "space"),
            ("h/a%20b/c", "space"),
            ("h/a+b", "-"),
            ("h/100%25", "percent"),
        ],
    },
    // Slashes that are doubled are segments that are empty.
    Table {
        routes: &[("two", r#"path = "/live//*""#), ("one", r#"path = "/live/*""#), ("name", r#"path = "/live/{x}""#)],
        rows: &[
            ("h/live", "one"),
            ("h/live/", "two"),
            ("h/live//", "two"),
            ("h/live//x", "two"),
            ("h/live/x", "name x=x"),
            ("h/live/x/", "one"),
            ("h/live/x/y", "one"),
        ],
    },
];
