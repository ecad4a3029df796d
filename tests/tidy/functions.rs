//! The budgets of functions: lines, parameters, nesting; and the length of a test's name.

use super::source::{Add, Area, Source};
use super::text::{has_word, name_of};

const PARAMETERS: usize = 5;
const TEST_NAME: usize = 70;

/// What a function of an area may have.
struct Budget {
    lines: usize,
    nesting: usize,
}

impl Budget {
    fn of(area: Area) -> Budget {
        match area {
            // Scenarios and tables are long, and loop over sides, modes and cuts.
            Area::Tests => Budget { lines: 120, nesting: 4 },
            _ => Budget { lines: 70, nesting: 3 },
        }
    }
}

struct Function {
    line: usize,
    name: String,
    parameters: usize,
    lines: usize,
    nesting: usize,
}

pub fn check(source: &Source, add: &mut Add<'_>) {
    if source.area == Area::Other {
        return;
    }
    let budget = Budget::of(source.area);
    for function in functions(source) {
        let budgets = [
            (function.lines, budget.lines, "function", "lines"),
            (function.parameters, PARAMETERS, "parameters", "parameters"),
            (function.nesting, budget.nesting, "nesting", "levels"),
        ];
        for (has, most, rule, unit) in budgets {
            if has > most {
                add(function.line, rule, format!("{} has {has} {unit}", function.name));
            }
        }
    }
}

/// Tests under `#[cfg(test)]` too.
pub fn check_test_names(source: &Source, add: &mut Add<'_>) {
    let mut test = false;
    for (n, line) in source.text.code.iter().enumerate() {
        let line = line.trim();
        match line.split_once("fn ") {
            Some((_, rest)) => {
                let name = name_of(rest);
                if test && name.len() > TEST_NAME {
                    add(n, "test name", format!("{name} has {} characters", name.len()));
                }
                test = false;
            }
            None => test |= line.starts_with("#[test]"),
        }
    }
}

fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for (n, line) in source.lines() {
        let Some(at) = line
            .match_indices("fn ")
            .map(|(at, _)| at)
            .find(|at| line[..*at].chars().next_back().is_none_or(|c| c == ' ' || c == '('))
        else {
            continue;
        };
        let name = name_of(&line[at + 3..]).to_owned();
        if name.is_empty() {
            continue;
        }
        let rest = [&line[at..], "\n", &source.text.code[n + 1..].join("\n")].concat();
        if let Some((parameters, body)) = parts(&rest) {
            let lines = rest[..body.1].lines().filter(|line| !line.trim().is_empty()).count();
            found.push(Function { line: n, name, parameters, lines, nesting: nesting(&rest[body.0..body.1]) });
        }
    }
    found
}

/// How many parameters beside `self`, and where the body begins and ends; `None` without a body.
fn parts(text: &str) -> Option<(usize, (usize, usize))> {
    let open = parameters_start(text)?;
    let close = open + group_end(&text[open..])?;
    let parameters = split(&text[open + 1..close]).into_iter().map(weight).sum();
    let body = text[close..].find(['{', ';']).map(|at| close + at).filter(|at| text[*at..].starts_with('{'))?;
    let end = body + group_end(&text[body..])?;
    Some((parameters, (body, end + 1)))
}

/// Where the bracket closes that opens at the start of `text`.
fn group_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i);
        }
    }
    None
}

/// What commas separate at the top level; nothing empty.
fn split(list: &str) -> Vec<&str> {
    let (mut depth, mut angle, mut start, mut previous) = (0, 0, 0, ' ');
    let mut parts = Vec::new();
    for (i, c) in list.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '<' => angle += 1,
            '>' if previous != '-' && previous != '=' => angle -= 1,
            ',' if depth == 0 && angle == 0 => {
                parts.push(&list[start..i]);
                start = i + 1;
            }
            _ => {}
        }
        previous = c;
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// How many parameters one is: a tuple, or an array that is taken apart at once, counts as its
/// members.
fn weight(parameter: &str) -> usize {
    let (pattern, of_type) = parameter.split_once(": ").unwrap_or((parameter, ""));
    if has_word(pattern, "self") {
        return 0;
    }
    let array = pattern.trim().strip_prefix('[').and_then(|names| names.strip_suffix(']'));
    type_weight(of_type).max(array.map_or(1, |names| split(names).len()))
}

fn type_weight(of_type: &str) -> usize {
    let mut of_type = of_type.trim();
    while let Some(referent) = of_type.strip_prefix('&') {
        let lifetime = referent.strip_prefix('\'').map_or(referent, |named| named[name_of(named).len()..].trim_start());
        of_type = lifetime.strip_prefix("mut ").unwrap_or(lifetime).trim_start();
    }
    let members = of_type.strip_prefix('(').and_then(|members| members.strip_suffix(')')).map(split);
    members.map_or(1, |members| members.into_iter().map(type_weight).sum::<usize>().max(1))
}

/// The parenthesis behind the name and its generics.
fn parameters_start(text: &str) -> Option<usize> {
    let (mut angle, mut previous) = (0, ' ');
    for (i, c) in text.char_indices() {
        match c {
            '<' => angle += 1,
            '>' if previous != '-' => angle -= 1,
            '(' if angle == 0 => return Some(i),
            '{' | ';' => return None,
            _ => {}
        }
        previous = c;
    }
    None
}

/// The deepest stack of `if`, `match`, `for`, `while`, `loop` in a body.
fn nesting(body: &str) -> usize {
    let inner = &body[1..body.len() - 1];
    let (mut stack, mut deepest, mut since) = (Vec::new(), 0, String::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' => {
                stack.push(is_control(&since));
                deepest = deepest.max(stack.iter().filter(|control| **control).count());
                since.clear();
            }
            '}' => {
                let control = stack.pop().unwrap_or(false);
                since.clear();
                let rest = inner[i + 1..].trim_start();
                // It was a pattern: `if let Some(Key { slot }) = key {`.
                if control && (rest.starts_with(')') || rest.starts_with("= ") || rest.starts_with(',')) {
                    since.push_str(" if ");
                }
            }
            ';' => since.clear(),
            c => since.push(c),
        }
    }
    deepest
}

fn is_control(statement: &str) -> bool {
    // `let ... else` leaves; it nests nothing.
    if has_word(statement, "let") && statement.trim_end().ends_with("else") {
        return false;
    }
    let keyword = ["if", "else", "match", "for", "while", "loop"].iter().any(|word| has_word(statement, word));
    keyword && !statement.trim_end().ends_with("=>")
}
