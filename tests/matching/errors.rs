//! Errors of the keys of matching, with line and column.

use framegate::config;

const HEAD: &str = "[[listener]]\nlisten = \"0.0.0.0:8080\"\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n";

/// The errors of a route with `keys`, whose first line is line 5, without the name of the file.
#[track_caller]
fn errors(keys: &str) -> Vec<String> {
    let text = format!("{HEAD}{keys}\n");
    let error = config::parse(&text, "f").expect_err(keys);
    error.sentences().iter().map(|sentence| sentence.strip_prefix("f:").unwrap().to_owned()).collect()
}

#[test]
fn a_condition_on_a_named_value_has_its_errors() {
    let long = "x".repeat(4097);
    let long_value = format!("match = [{{ header = \"x\", is = \"{long}\" }}]");
    let nested = "(((((a{1,9}){1,9}){1,9}){1,9}){1,9}){1,9}";
    let large = format!("match = [{{ header = \"x\", regex = \"{nested}\" }}]");
    for (keys, expected) in [
        ("match = 1", "5:9: route.match: not a list; use match = [\"...\"]"),
        (
            "match = [{}]",
            "5:10: route.match: missing what to compare; expected header, query, cookie, method, \
                          subprotocol, client, cert_subject or cert_sha256",
        ),
        (
            "match = [{ header = \"x\" }]",
            "5:21: route.match.header: without a comparison; add is, prefix, regex or present",
        ),
        (
            "match = [{ header = \"x\", is = \"1\", query = \"v\" }]",
            "5:44: route.match.query: header stands in the same condition; write two conditions",
        ),
        (
            "match = [{ header = \"x\", is = \"1\", prefix = \"v\" }]",
            "5:45: route.match.prefix: is stands in the same condition; write two conditions",
        ),
        ("match = [{ haeder = \"x\", is = \"1\" }]", "5:12: route.match.haeder: unknown key; did you mean \"header\"?"),
        (
            "match = [{ header = \"a b\", is = \"1\" }]",
            "5:21: route.match.header: \"a b\" is not the name of a header; \
            expected 1 to 256 letters, digits, \"-\", \"_\" or other token characters",
        ),
        ("match = [{ header = 1, is = \"1\" }]", "5:21: route.match.header: 1 is not a string; put it in quotes"),
        (
            "match = [{ query = \"\", is = \"1\" }]",
            "5:20: route.match.query: \"\" is not the name of a query parameter",
        ),
        (
            "match = [{ cookie = \"a;\", is = \"1\" }]",
            "5:21: route.match.cookie: \"a;\" is not the name of a cookie; \
            expected 1 to 256 letters, digits, \"-\", \"_\" or other token characters",
        ),
        ("match = [{ header = \"x\", is = 1 }]", "5:31: route.match.is: 1 is not a string; put it in quotes"),
        (
            "match = [{ header = \"x\", is = \"a\\r\\nb\" }]",
            "5:31: route.match.is: \"a\\r\\nb\" has a control character, which no request can have there",
        ),
        (&long_value, &format!("5:31: route.match.is: \"{}...\" is too long; at most 4096 bytes", &long[..80])),
        (
            "match = [{ header = \"x\", prefix = \"\" }]",
            "5:35: route.match.prefix: \"\" begins every value; use present = true",
        ),
        (
            "match = [{ header = \"x\", present = \"yes\" }]",
            "5:36: route.match.present: \"yes\" is not a boolean; expected true or false, without quotes",
        ),
        (
            "match = [{ header = \"x\", is = \"1\", not = 1 }]",
            "5:42: route.match.not: 1 is not a boolean; expected true or false, without quotes",
        ),
        (
            "match = [{ header = \"x\", regex = \"a(\" }]",
            "5:34: route.match.regex: \"a(\" is not a regular expression: unclosed group",
        ),
        (
            "match = [{ header = \"x\", regex = \"a)|(b\" }]",
            "5:34: route.match.regex: \"a)|(b\" is not a regular expression: unopened group",
        ),
        (
            &large,
            &format!(
                "5:34: route.match.regex: \"{nested}\" is too large a regular expression: it compiles to more \
            than 262144 bytes"
            ),
        ),
    ] {
        assert_eq!(errors(keys), [expected], "{keys}");
    }
}

#[test]
fn a_condition_on_a_value_without_a_name_has_its_errors() {
    for (keys, expected) in [
        (
            "match = [{ method = \"get\" }]",
            "5:21: route.match.method: \"get\" is not in upper case, as methods are sent; expected \"GET\"",
        ),
        (
            "match = [{ method = \"G T\" }]",
            "5:21: route.match.method: \"G T\" is not a method; expected 1 to 256 letters, \
            digits, \"-\", \"_\" or other token characters",
        ),
        (
            "match = [{ method = 1 }]",
            "5:21: route.match.method: 1 is not valid; expected a string, or a table such as { prefix = \"...\" }",
        ),
        (
            "match = [{ subprotocol = \"a, b\" }]",
            "5:26: route.match.subprotocol: \"a, b\" is not a subprotocol; \
            expected 1 to 256 letters, digits, \"-\", \"_\" or other token characters",
        ),
        (
            "match = [{ subprotocol = { prefx = \"a\" } }]",
            "5:26: route.match.subprotocol: unknown comparison \"prefx\"; did you mean \"prefix\"?",
        ),
        (
            "match = [{ subprotocol = { prefix = \"a\", is = \"b\" } }]",
            "5:26: route.match.subprotocol: expected one comparison: is, prefix, regex or present",
        ),
        (
            "match = [{ subprotocol = { present = 1 } }]",
            "5:26: route.match.subprotocol: present: 1 is not a boolean; expected true or false, without quotes",
        ),
        (
            "match = [{ cert_subject = \"x\", prefix = \"b\" }]",
            "5:41: route.match.prefix: does not go with cert_subject; write cert_subject = { prefix = ... }",
        ),
        (
            "match = [{ cert_subject = { regex = \"[\" } }]",
            "5:27: route.match.cert_subject: regex: \"[\" is not a regular expression: unclosed character class",
        ),
        (
            "match = [{ cert_sha256 = \"aa:bb\" }]",
            "5:26: route.match.cert_sha256: \"aa:bb\" is not a SHA-256 fingerprint; expected 64 hexadecimal digits",
        ),
        (
            "match = [{ client = \"10.0.0.0/33\" }]",
            "5:21: route.match.client: \"10.0.0.0/33\" is not a network; expected for example \"10.0.0.0/8\" or \
             \"192.0.2.7\"",
        ),
        ("match = [{ client = [] }]", "5:21: route.match.client: is empty; expected for example [\"10.0.0.0/8\"]"),
        ("match = [{ client = \"::1\", is = \"1\" }]", "5:33: route.match.is: does not go with client; remove it"),
    ] {
        assert_eq!(errors(keys), [expected], "{keys}");
    }
}

#[test]
fn priorities_and_names_in_paths_have_their_errors() {
    for (keys, expected) in [
        (
            "priority = 1.5",
            "5:12: route.priority: 1.5 is not a priority; expected a whole number from -1000000 to 1000000",
        ),
        (
            "priority = 1000001",
            "5:12: route.priority: 1000001 is not a priority; expected a whole number from -1000000 to 1000000",
        ),
        (
            "path = \"/a/{}\"",
            "5:8: route.path: \"/a/{}\" has a segment with an invalid name \"\"; expected a letter and up \
            to 31 letters, digits or \"_\", for example \"/room/{id}\"",
        ),
        (
            "path = \"/a/{1}\"",
            "5:8: route.path: \"/a/{1}\" has a segment with an invalid name \"1\"; expected a letter and \
            up to 31 letters, digits or \"_\", for example \"/room/{id}\"",
        ),
        (
            "path = \"/a/x{id}\"",
            "5:8: route.path: \"/a/x{id}\" has a \"{\" or \"}\" inside a segment; a name is a whole \
            segment, for example \"/room/{id}\"",
        ),
        (
            "path = \"/{*rest}/a\"",
            "5:8: route.path: \"/{*rest}/a\" has a segment with an invalid name \"*rest\"; expected a \
            letter and up to 31 letters, digits or \"_\", for example \"/room/{id}\"",
        ),
        (
            "path = \"{id}\"",
            "5:8: route.path: \"{id}\" does not begin with a slash; expected for example \"/chat\" or \
            \"/live/*\"",
        ),
        ("path = \"/{a}/{b}/{a}\"", "5:8: route.path: \"/{a}/{b}/{a}\" has the name \"a\" twice; choose another"),
        ("path = \"/{a}/{*a}\"", "5:8: route.path: \"/{a}/{*a}\" has the name \"a\" twice; choose another"),
        ("path = \"/{a}/../b\"", "5:8: route.path: \"/{a}/../b\" has a dot segment; write the resolved path"),
        (
            "path = \"/*/{a}\"",
            "5:8: route.path: \"/*/{a}\" has a \"*\" that is not its last segment; expected for example \
            \"/live/*\"",
        ),
        (
            "path = \"/{a}/b\"\nstrip_prefix = \"/c/d\"",
            "6:16: route.strip_prefix: \"/c/d\" is not a prefix of this route's paths",
        ),
    ] {
        assert_eq!(errors(keys), [expected], "{keys}");
    }
}

#[test]
fn the_number_of_segments_and_conditions_is_bounded() {
    let conditions = |n| format!("match = [{}]", "{ header = \"x\", is = \"1\", not = true },".repeat(n));
    assert!(config::parse(&format!("{HEAD}{}\n", conditions(32)), "f").is_ok());
    let [error] = &errors(&conditions(33))[..] else { panic!() };
    assert!(error.ends_with("route.match: more than 32 conditions; merge some with a regular expression"), "{error}");
    let path = |n| format!("path = \"{}\"", "/{x}".repeat(n).replacen("{x}", "{y}", 1).replace("{x}", "a"));
    assert!(config::parse(&format!("{HEAD}{}\n", path(100)), "f").is_ok());
    assert!(errors(&path(101))[0].ends_with("has more than 100 segments"));
}

#[test]
fn two_routes_that_match_the_same_are_an_error() {
    let second = |first: &str, second: &str| {
        let text = format!("{HEAD}{first}\n[[route]]\nupstream = \"ws://10.0.0.1:9000\"\n{second}\n");
        config::parse(&text, "f").map_or_else(|e| e.sentences().join("\n"), |_| String::new())
    };
    for (first, other, expected) in [
        ("path = \"/a/{x}\"", "path = \"/a/{y}\"", "f:8:8: route.path: same host and path as the route in line 3"),
        ("path = \"/a/{*x}\"", "path = \"/a/*\"", "f:8:8: route.path: same host and path as the route in line 3"),
        (
            "match = [{ header = \"x\", is = \"1\" }, { method = \"GET\" }]",
            "match = [{ method = \"GET\" }, { header = \"X\", is = \"1\" }, { method = \"GET\" }]",
            "f:6:1: route.path: same host, path and conditions as the route in line 3",
        ),
        (
            "match = [{ header = \"x\", present = true }]",
            "match = [{ header = \"x\", present = false, not = true }]",
            "f:6:1: route.path: same host, path and conditions as the route in line 3",
        ),
        (
            "match = [{ client = [\"10.0.0.0/9\", \"10.128.0.0/9\"] }]",
            "match = [{ client = \"10.0.0.0/8\" }]",
            "f:6:1: route.path: same host, path and conditions as the route in line 3",
        ),
        // Another priority does not help: the second would never match.
        ("name = \"a\"", "name = \"b\"\npriority = 1", "f:6:1: route.path: same host and path as the route in line 3"),
        // Its default name is taken.
        (
            "match = [{ header = \"x\", is = \"1\" }]",
            "match = [{ header = \"x\", is = \"2\" }]",
            "f:6:1: route.name: \"/*\" is also the name of the route in line 3; add a name to one of them",
        ),
        ("match = [{ header = \"x\", is = \"1\" }]", "name = \"b\"\nmatch = [{ header = \"x\", is = \"2\" }]", ""),
        ("path = \"/a/{x}\"", "path = \"/a/{x}/*\"", ""),
    ] {
        assert_eq!(second(first, other), expected, "{first} / {other}");
    }
}
