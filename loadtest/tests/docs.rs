//! The commands of the load generator in README.md and the manual use flags that exist.

#[path = "../../tests/common/markdown.rs"]
mod markdown;

use std::path::Path;
use std::process::Command;

/// `--help` of the command that a call names; `serve` has commands of its own.
fn help_of(call: &[String]) -> String {
    let depth = if call.get(1).is_some_and(|command| command == "serve") { 2 } else { 1 };
    let commands = call.iter().skip(1).take(depth);
    let output = Command::new(env!("CARGO_BIN_EXE_framegate-loadtest")).args(commands).arg("--help").output().unwrap();
    assert!(output.status.success(), "{call:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn unknown_flags(call: &[String]) -> Vec<&String> {
    let help = help_of(call);
    let known = |flag: &str| help.split([' ', ',', '\n', '=']).any(|word| word == flag);
    call.iter().filter(|word| word.starts_with('-') && !known(word)).collect()
}

#[test]
fn commands_in_the_manual_use_known_flags() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut count = 0;
    for page in markdown::pages(root) {
        for call in markdown::calls(&std::fs::read_to_string(&page).unwrap(), "framegate-loadtest") {
            let unknown = unknown_flags(&call.words);
            assert!(unknown.is_empty(), "{}:{}: unknown {unknown:?}", page.display(), call.line);
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} commands found");
}

#[test]
fn an_unknown_flag_is_found() {
    let calls = markdown::calls(
        "```sh\nframegate-loadtest echo ws://a --rate 5 --nope 'x y' # --no\n```\n",
        "framegate-loadtest",
    );
    assert_eq!(unknown_flags(&calls[0].words), ["--nope"]);
    assert_eq!(calls[0].words.last().unwrap(), "x y");
}
