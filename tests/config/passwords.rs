//! Users with passwords: what their sections mean, and the errors of every key.

use super::{bad, good};

/// `more` begins at line 8, in an [[auth]] section that a route uses.
fn section(more: &str) -> String {
    let route = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nauth = \"a\"\n";
    format!("{route}[[auth]]\nname = \"a\"\n{more}\n")
}

#[track_caller]
fn wrong(text: &str, place: &str, why: &str) {
    let all = bad(text);
    assert!(all.iter().any(|line| line.contains(place) && line.contains(why)), "no {place} {why} in {all:#?}");
}

#[cfg(not(feature = "basic"))]
#[test]
fn a_build_without_passwords_says_so_in_one_sentence() {
    let why = "\"basic\" cannot be used: this build has no passwords (feature \"basic\")";
    let all = bad(&section("type = \"basic\"\nfile = \"missing\""));
    assert!(all[0].contains("8:8: auth.type") && all[0].contains(why), "{all:?}");
    good(&section("type = \"client_certificate\""));
    wrong(&section("type = \"basic\""), "auth.type", why);
}

#[cfg(feature = "basic")]
#[test]
fn sections_are_read_and_check_shows_them() {
    let file = std::env::temp_dir().join(format!("framegate-passwords-{}", std::process::id()));
    let write = |password: &str| {
        let hash = bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap();
        std::fs::write(&file, format!("# staff\nalice:{hash}\n")).unwrap();
    };
    write("open");
    let text = section(&format!("type = \"basic\"\nfile = {file:?}"));
    let snapshot = good(&text);
    let shown = snapshot.describe(1024, 1);
    assert!(shown.contains("  a: 1 users with passwords, realm \"a\", from authorization\n"), "{shown}");
    assert!(shown.contains("8192 results of passwords, 184 B each\n"), "{shown}");
    assert_eq!(snapshot, good(&text), "a reload sees no change");
    write("shut");
    assert_ne!(snapshot, good(&text), "a reload sees the change");
    for (more, place, why) in [
        ("realm = \"a\\\"b\"".to_owned(), "10:9: auth.realm", "is not a realm; expected up to 100 printable"),
        ("realm = \"\"".to_owned(), "10:9: auth.realm", "\"\" is not a realm"),
        ("from = [\"cookie:a\"]".to_owned(), "10:8: auth.from", "has no effect on passwords, which stand in"),
        (
            "issuer = [\"a\"]".to_owned(),
            "10:10: auth.issuer",
            "belongs to type = \"jwt\" or \"introspection\"; remove it",
        ),
    ] {
        wrong(&format!("{text}{more}\n"), place, why);
    }
    std::fs::write(&file, "alice:plain\n").unwrap();
    wrong(&text, "9:8: auth.file", "line 1: is neither bcrypt nor argon2; make it with: htpasswd -B -n USER");
    std::fs::write(&file, b"\xff").unwrap();
    wrong(&text, "9:8: auth.file", "is not UTF-8");
    std::fs::remove_file(&file).unwrap();
    wrong(&text, "9:8: auth.file", "cannot be read: No such file");
    wrong(&section("type = \"basic\""), "6:1: auth.file", "missing; add for example file = \"users.htpasswd\"");
    let other = section("type = \"client_certificate\"\nfile = \"a\"\nrealm = \"b\"");
    wrong(&other, "9:8: auth.file", "belongs to type = \"basic\"; remove it");
    wrong(&other, "10:9: auth.realm", "belongs to type = \"basic\"; remove it");
}
