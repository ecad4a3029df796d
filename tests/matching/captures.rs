//! Names in paths, and what they stand for.

use super::{Table, check};

#[test]
fn names_in_paths() {
    check(TABLES);
}

pub const TABLES: &[Table] = &[
    Table {
        routes: &[
            ("room", r#"path = "/room/{id}""#),
            ("lobby", r#"path = "/room/lobby""#),
            ("user", r#"path = "/room/{id}/user/{user}""#),
            ("me", r#"path = "/room/{id}/user/me""#),
            ("below", r#"path = "/room/{id}/*""#),
            ("files", r#"path = "/files/{*rest}""#),
            ("logs", r#"path = "/files/logs/*""#),
        ],
        rows: &[
            ("h/room/7", "room id=7"),
            ("h/room/lobby", "lobby"),
            ("h/room/%6cobby", "lobby"),
            ("h/room/lobby/", "below id=lobby"),
            ("h/room/a%2Fb", "room id=a%2Fb"),
            ("h/room/a%2fb", "room id=a%2fb"),
            ("h/room/%41", "room id=%41"),
            ("h/%72oom/%41", "room id=%41"),
            ("h/room/", "-"),
            ("h/room", "-"),
            ("h/room//", "-"),
            ("h/room//user/x", "-"),
            ("h/room/7/", "below id=7"),
            ("h/room/7/x/y", "below id=7"),
            ("h/room/7/user", "below id=7"),
            ("h/room/7/user/8", "user id=7 user=8"),
            ("h/room/7/user/me", "me id=7"),
            ("h/room/7/user/", "below id=7"),
            ("h/room/7/user/8/", "below id=7"),
            ("h/room/lobby/user/me", "me id=lobby"),
            // Dot segments: the normalised copy.
            ("h/room/x/../7", "room id=7"),
            ("h/room/%41/./x/..", "below id=A"),
            ("h/room/7/user/%2e%2e/%2E", "below id=7"),
            ("h/room/..", "-"),
            ("h/files", "files rest="),
            ("h/files/", "files rest="),
            ("h/files/a", "files rest=a"),
            ("h/files/a/b%20c/", "files rest=a/b%20c/"),
            ("h/files//a", "files rest=/a"),
            ("h/files/a?b=c", "files rest=a"),
            ("h/files/logs", "logs"),
            ("h/files/logs/x", "logs"),
            ("h/files/logsx", "files rest=logsx"),
            ("h/files/a/../../files/%62", "files rest=b"),
            ("h/filesx", "-"),
        ],
    },
    // From the left: the first literal decides, even where the other has more of them.
    Table {
        routes: &[
            ("left", r#"path = "/a/{x}/{y}""#),
            ("right", r#"path = "/{x}/b/c""#),
            ("rest", r#"path = "/a/*""#),
            ("any", r#"path = "/{*all}""#),
        ],
        rows: &[
            ("h/a/b/c", "left x=b y=c"),
            ("h/x/b/c", "right x=x"),
            ("h/a/b", "rest"),
            ("h/a/b/c/d", "rest"),
            ("h/x/b/d", "any all=x/b/d"),
            ("h/", "any all="),
            ("h//", "any all=/"),
            ("h//b/c", "any all=/b/c"),
        ],
    },
    // A branch of literals that ends nowhere leads back to the names.
    Table {
        routes: &[
            ("deep", r#"path = "/a/b/c/d""#),
            ("names", r#"path = "/{p}/{q}/{r}""#),
            ("mixed", r#"path = "/a/{q}/c""#),
        ],
        rows: &[
            ("h/a/b/c/d", "deep"),
            ("h/a/b/c", "mixed q=b"),
            ("h/a/b/x", "names p=a q=b r=x"),
            ("h/a/b/c/x", "-"),
            ("h/x/b/c", "names p=x q=b r=c"),
            ("h/a/b", "-"),
        ],
    },
    // Another host may have the same path with another name.
    Table {
        routes: &[
            ("one", "host = \"one\"\npath = \"/{a}\""),
            ("two", "host = \"*.two\"\npath = \"/{b}\""),
            ("any", r#"path = "/{c}""#),
        ],
        rows: &[("one/1", "one a=1"), ("x.two/2", "two b=2"), ("two/3", "any c=3"), ("one/1/2", "-")],
    },
];
