//! The commented example has every key, its default, and valid alternatives.

use super::{good, parse};
use framegate::config;

/// The lines of the example, each replaced by what `chosen` returns for it.
fn uncommented(chosen: impl Fn(&str) -> Option<&str>) -> String {
    config::EXAMPLE.lines().map(|line| chosen(line).unwrap_or(line).to_owned() + "\n").collect()
}

/// `#key = value`.
fn default_line(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

/// `# e.g. key = value`.
fn other_line(line: &str) -> Option<&str> {
    line.strip_prefix("# e.g. ")
}

/// Keys of a route that exclude another alternative, or have two.
const EXCLUSIVE: [&str; 4] = ["files = ", "respond = ", "redirect = {", "rewrite = "];

/// Keys of an [[auth]] with tokens.
const OF_TOKENS: [&str; 12] = [
    "keys",
    "jwks_url",
    "jwks_ca",
    "jwks_refresh",
    "issuer",
    "audience",
    "leeway",
    "expiry",
    "require",
    "subject_claim",
    "roles_claim",
    "max_token",
];

/// Keys of an [[auth]] with passwords.
const OF_PASSWORDS: [&str; 2] = ["file", "realm"];

fn is_of_passwords(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| OF_PASSWORDS.contains(&key))
}

/// The lines of the first [[auth]], which can be of several types.
fn of_first_auth() -> impl Iterator<Item = &'static str> {
    let start = config::EXAMPLE.split("\n[[auth]]\n").nth(1).unwrap();
    start.lines().filter_map(other_line)
}

fn is_of_tokens(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(key, _)| OF_TOKENS.contains(&key))
}

/// Lines of [[auth]] that take the place of others, or name files.
const EXCLUSIVE_OF_AUTH: [&str; 5] = [
    "upstream = \"app\"",
    "path = \"/verify?app=chat\"",
    "client_id = \"framegate\"",
    "client_secret_file = \"/etc/framegate/introspection.secret\"",
    "bearer_file = \"/etc/framegate/introspection.token\"",
];

/// Lines of [redis] that name files, or go with them.
const OF_REDIS: [&str; 3] =
    ["username = \"framegate\"", "password_file = \"/etc/framegate/redis.password\"", "ca = \"redis-ca.pem\""];

#[cfg(feature = "redis")]
#[test]
fn files_of_redis_in_the_example_are_valid() {
    let folder = std::env::temp_dir();
    let [password, ca] =
        ["password", "pem"].map(|name| folder.join(format!("framegate-example-{}-redis.{name}", std::process::id())));
    std::fs::write(&password, "s3cret\n").unwrap();
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----").unwrap();
    let section = config::EXAMPLE.split("\n[redis]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let chosen = |line: &'static str| {
        let of_redis = other_line(line).filter(|line| OF_REDIS.contains(line));
        of_redis.or(default_line(line)).unwrap_or(line).to_owned() + "\n"
    };
    let lines: String = section.lines().map(chosen).collect();
    assert!(OF_REDIS.iter().all(|line| lines.contains(line)), "{lines}");
    let lines = lines.replace("redis://", "rediss://").replace("\"redis-ca.pem\"", &format!("{ca:?}"));
    let lines = lines.replace("\"/etc/framegate/redis.password\"", &format!("{password:?}"));
    let route = "upstream = \"ws://10.0.0.1:9000\"\nlimits = { per_address = { sessions = 1, shared = true } }";
    let snapshot = good(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\n{route}\n[redis]\n{lines}"));
    assert!(snapshot.redis.is_some() && !format!("{snapshot:?}").contains("s3cret"));
    for file in [password, ca] {
        std::fs::remove_file(file).unwrap();
    }
}

/// Those of [`other_line`] that are valid together.
fn together_line(line: &str) -> Option<&str> {
    other_line(line).filter(|line| {
        !EXCLUSIVE.iter().any(|key| line.starts_with(key))
            && !EXCLUSIVE_OF_AUTH.contains(line)
            && !is_of_tokens(line)
            && !is_of_passwords(line)
            && !OF_REDIS.contains(line)
    })
}

#[cfg(feature = "basic")]
#[test]
fn passwords_in_the_example_are_valid() {
    let file = std::env::temp_dir().join(format!("framegate-example-{}.htpasswd", std::process::id()));
    std::fs::write(&file, format!("a:{}\n", bcrypt::hash_with_salt("open", 4, [7; 16]).unwrap())).unwrap();
    let lines: Vec<_> = of_first_auth().filter(|line| is_of_passwords(line)).collect();
    assert_eq!(lines.len(), OF_PASSWORDS.len());
    let text = format!(
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nauth = \"a\"\n\
         [[auth]]\nname = \"a\"\ntype = \"basic\"\n{}\n",
        lines.join("\n")
    );
    good(&text.replace("\"users.htpasswd\"", &format!("{file:?}")));
    std::fs::remove_file(&file).unwrap();
}

#[cfg(feature = "jwt")]
#[test]
fn tokens_in_the_example_are_valid() {
    let folder = std::env::temp_dir();
    let file = |name: &str| folder.join(format!("framegate-example-{}-{name}", std::process::id()));
    let key = rcgen::KeyPair::generate().unwrap().public_key_pem();
    let jwk = "{\"keys\":[{\"kty\":\"oct\",\"k\":\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}";
    let authority = "-----BEGIN CERTIFICATE-----";
    let files = [
        ("ca.pem", authority),
        ("issuer.pem", key.as_str()),
        ("keys.json", jwk),
        ("shared.key", "0123456789abcdef0123456789abcdef"),
    ];
    let lines: Vec<_> = of_first_auth().filter(|line| is_of_tokens(line)).collect();
    assert_eq!(lines.len(), OF_TOKENS.len());
    let mut text = format!(
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\nauth = \"a\"\n\
         [[auth]]\nname = \"a\"\ntype = \"jwt\"\n{}\n",
        lines.join("\n")
    );
    for (name, content) in files {
        std::fs::write(file(name), content).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{name}");
        text = text.replace(&format!("\"{name}\""), &format!("{:?}", file(name)));
    }
    good(&text);
    files.iter().for_each(|(name, _)| std::fs::remove_file(file(name)).unwrap());
}

#[test]
fn example_shows_the_defaults() {
    let as_printed = good(config::EXAMPLE);
    assert!(config::EXAMPLE.lines().filter_map(default_line).count() > 30);
    assert_eq!(good(&uncommented(default_line)), as_printed);
    // A file with only what is not commented out has the same.
    let auth =
        config::EXAMPLE.lines().skip_while(|line| *line != "[[auth]]").take_while(|line| *line != "[[upstream]]");
    let auth: String = auth.filter(|line| !line.starts_with('#')).map(|line| line.to_owned() + "\n").collect();
    let least =
        "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"app\"\n[[upstream]]\nname = \"app\"\n";
    assert_eq!(good(&format!("{least}endpoints = [\"ws://127.0.0.1:9000\"]\n{auth}")), as_printed);
}

/// Keys of a route that take the place of `upstream`: lines that are used together.
const INSTEAD_OF_UPSTREAM: [&[&str]; 1] = [&["split = ", "split_key = "]];

/// The alternatives of a key that has several.
#[cfg(feature = "discovery")]
fn discoveries() -> Vec<&'static str> {
    config::EXAMPLE.lines().filter_map(other_line).filter(|line| line.starts_with("discover = ")).collect()
}

/// The alternatives, with the lines of one of [`INSTEAD_OF_UPSTREAM`] alone, or of none, and with
/// one of [`discoveries`], or none.
fn alternatives(instead: Option<&[&str]>, discovery: Option<&str>) -> String {
    let begins = |line: &str, keys: &[&str]| keys.iter().any(|key| line.starts_with(key));
    let text = uncommented(together_line).replace("#trusted", "# trusted");
    // A file that must be there.
    let text = text.replace("\"denied.txt\"", &format!("{:?}", denied()));
    let kept = |line: &&str| match instead {
        None => !INSTEAD_OF_UPSTREAM.iter().any(|keys| begins(line, keys)),
        Some(keys) => {
            *line != "upstream = \"app\""
                && !INSTEAD_OF_UPSTREAM.iter().any(|others| *others != keys && begins(line, others))
        }
    };
    let discovers = |line: &&str| !line.starts_with("discover = ") || Some(*line) == discovery;
    text.lines().filter(kept).filter(discovers).map(|line| line.to_owned() + "\n").collect()
}

/// A file with denied addresses, which several tests share.
fn denied() -> std::path::PathBuf {
    let path = std::env::temp_dir().join("framegate-example-denied.txt");
    std::fs::write(&path, "# none\n").unwrap();
    path
}

#[test]
fn alternatives_to_an_upstream_in_the_example_are_valid() {
    for keys in INSTEAD_OF_UPSTREAM {
        assert_ne!(good(&alternatives(Some(keys), None)), good(&alternatives(None, None)), "{keys:?}");
    }
}

#[test]
fn alternative_values_in_the_example_are_valid() {
    let snapshot = good(&alternatives(None, None));
    assert_ne!(snapshot, good(config::EXAMPLE));
    let entry = &snapshot.routes.entries()[0];
    assert!(entry.host.matches("a.example.com") && !entry.host.matches("example.org"));
    assert_eq!((entry.path.names(), entry.conditions.len()), (vec!["id"], 9));
}

#[cfg(feature = "discovery")]
#[test]
fn each_source_of_endpoints_in_the_example_is_valid() {
    let sources: std::collections::BTreeSet<_> =
        discoveries().iter().map(|line| good(&alternatives(None, Some(line))).discoveries[0].source.name()).collect();
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), ["consul", "dns", "eureka", "file", "kubernetes"]);
}

#[test]
fn exclusive_alternatives_in_the_example_are_valid() {
    let body = std::env::temp_dir().join(format!("framegate-example-{}.html", std::process::id()));
    std::fs::write(&body, "later").unwrap();
    let lines = config::EXAMPLE.lines().filter_map(other_line);
    let lines: Vec<_> = lines.filter(|line| EXCLUSIVE.iter().any(|key| line.starts_with(key))).collect();
    assert_eq!(lines.len(), 7);
    let built = |line: &&str| cfg!(feature = "files") || !line.starts_with("files");
    for line in lines.into_iter().filter(built) {
        let upstream = if line.starts_with("rewrite") { "upstream = \"ws://10.0.0.1:9000\"\n" } else { "" };
        let line = line.replace("\"maintenance.html\"", &format!("{body:?}"));
        let line = line.replace("\"site\"", &format!("{:?}", std::env::temp_dir()));
        good(&format!("[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\n{upstream}{line}\n"));
    }
    std::fs::remove_file(&body).unwrap();
}

#[test]
fn servers_and_secrets_of_auth_in_the_example_are_valid() {
    let secret = std::env::temp_dir().join(format!("framegate-example-{}.secret", std::process::id()));
    std::fs::write(&secret, "s3cret\n").unwrap();
    for lines in [&EXCLUSIVE_OF_AUTH[..2], &EXCLUSIVE_OF_AUTH[2..4], &EXCLUSIVE_OF_AUTH[4..]] {
        let forward = lines[0].starts_with("upstream");
        let chosen = uncommented(|line| {
            let chosen = other_line(line).filter(|line| lines.contains(line));
            chosen.or(if forward && line.starts_with("url = \"http:") { Some("") } else { None })
        });
        let snapshot = good(
            &chosen
                .replace("/etc/framegate/introspection", secret.with_extension("").to_str().unwrap())
                .replace(".token", ".secret"),
        );
        assert_ne!(snapshot, good(config::EXAMPLE), "{lines:?}");
        assert!(!format!("{snapshot:?}").contains("s3cret"));
    }
    std::fs::remove_file(&secret).unwrap();
}

#[test]
fn example_has_every_key() {
    let all = uncommented(|line| default_line(line).or(other_line(line)));
    let mut keys = 0;
    for section in known_keys(&format!("{UNLIKE} = 1\n")) {
        let several = ["listener", "route", "upstream", "auth"].contains(&section.as_str());
        let header = if several { format!("[[{section}]]") } else { format!("[{section}]") };
        // One for each type of [[auth]].
        let begin = format!("\n{header}\n");
        let bodies = all.split(&begin).skip(1).map(|body| body.split("\n[").next().unwrap());
        let body = bodies.collect::<Vec<_>>().join("\n");
        assert!(!body.is_empty(), "{header}");
        for key in known_keys(&format!("{header}\n{UNLIKE} = 1\n")) {
            keys += 1;
            let lines = body.lines().filter(|line| line.starts_with(&format!("{key} = ")));
            let line = lines.collect::<Vec<_>>().join("\n");
            assert!(!line.is_empty(), "{header} {key}");
            // Inline tables: their keys are on the same line.
            let tables = [format!("{{ {UNLIKE} = 1 }}"), format!("[{{ {UNLIKE} = 1 }}]")];
            for inner in tables.iter().flat_map(|table| known_keys(&format!("{header}\n{key} = {table}\n"))) {
                if !(section == "route" && ["tls", "request_head", "keep_alive"].contains(&inner.as_str())) {
                    keys += 1;
                    assert!(line.contains(&format!("{inner} = ")), "{header} {key} {inner}");
                    let below = known_keys(&format!("{header}\n{key} = {{ {inner} = {{ {UNLIKE} = 1 }} }}\n"));
                    keys += below.len();
                    assert!(below.iter().all(|key| line.contains(&format!("{key} = "))), "{header} {inner} {below:?}");
                }
            }
        }
    }
    assert!(keys >= 130, "{keys}: an error lists no keys any more");
}

/// An unknown key.
const UNLIKE: &str = "zzzzzzzzzzzz";

/// The valid keys in place of the unknown one of `text`, as the error lists them.
fn known_keys(text: &str) -> Vec<String> {
    let sentence = parse(text).map_or_else(|e| e.sentences()[0].clone(), |_| String::new());
    let known = sentence.split_once("unknown key; expected ").map_or("", |(_, known)| known);
    known.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}
