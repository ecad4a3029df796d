//! Conditions of a route on anything but host and path: one input, one comparison, which may be
//! negated; and which conditions imply or exclude each other, for `overlap`.

use super::input::Input;
use crate::policy::Facts;
use crate::policy::pattern::Pattern;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::fmt;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    pub predicate: Predicate,
    /// It holds where the predicate does not; also where there is nothing to compare.
    pub negated: bool,
}

/// What a condition asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Predicate {
    /// The input is there, and its value stands the test.
    Value(Input, Test),
    /// The client's address is in one of these networks.
    Client(Vec<IpNet>),
}

/// A comparison. Bytes are compared, and case matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Test {
    Is(String),
    Prefix(String),
    Regex(Pattern),
    /// Any value.
    Present,
}

impl Test {
    pub fn holds(&self, value: &[u8]) -> bool {
        match self {
            Test::Is(text) => value == text.as_bytes(),
            Test::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Test::Regex(pattern) => pattern.matches(value),
            Test::Present => true,
        }
    }

    /// Every value that stands this test stands `other`. `false` where that is not known.
    fn implies(&self, other: &Test) -> bool {
        match (self, other) {
            (_, Test::Present) => true,
            (Test::Is(text), other) => other.holds(text.as_bytes()),
            (Test::Prefix(longer), Test::Prefix(prefix)) => longer.starts_with(prefix.as_str()),
            (this, other) => this == other,
        }
    }

    /// No value stands both tests. `false` where that is not known.
    fn excludes(&self, other: &Test) -> bool {
        match (self, other) {
            (Test::Is(text), other) | (other, Test::Is(text)) => !other.holds(text.as_bytes()),
            (Test::Prefix(a), Test::Prefix(b)) => !a.starts_with(b.as_str()) && !b.starts_with(a.as_str()),
            _ => false,
        }
    }
}

impl Predicate {
    fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Predicate::Value(input, test) => input.any(facts, |value| test.holds(value)),
            Predicate::Client(networks) => networks.iter().any(|network| network.contains(&facts.client)),
        }
    }

    fn implies(&self, other: &Predicate) -> bool {
        match (self, other) {
            (Predicate::Value(input, test), Predicate::Value(of, other)) => input == of && test.implies(other),
            (Predicate::Client(nets), Predicate::Client(of)) => {
                nets.iter().all(|net| of.iter().any(|wider| wider.contains(net)))
            }
            _ => false,
        }
    }

    fn excludes(&self, other: &Predicate) -> bool {
        match (self, other) {
            (Predicate::Value(input, test), Predicate::Value(of, other)) => {
                input == of && input.is_single() && test.excludes(other)
            }
            (Predicate::Client(nets), Predicate::Client(of)) => {
                let apart = |a: &IpNet, b: &IpNet| !a.contains(b) && !b.contains(a);
                nets.iter().all(|net| of.iter().all(|other| apart(net, other)))
            }
            _ => false,
        }
    }
}

impl Condition {
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        self.predicate.holds(facts) != self.negated
    }

    /// It holds only for clients that have shown a certificate.
    pub fn needs_certificate(&self) -> bool {
        !self.negated && matches!(self.predicate, Predicate::Value(Input::CertSubject | Input::CertSha256, _))
    }

    /// What the request has in place of what it requires, for people.
    pub fn found(&self, facts: &Facts<'_>) -> String {
        match &self.predicate {
            Predicate::Client(_) => format!("the client is {}", facts.client),
            Predicate::Value(input, _) => match input.shown(facts) {
                Some(value) => format!("the request has {value}"),
                None => "the request has none".to_owned(),
            },
        }
    }

    /// Every request that this one holds for is one that `other` holds for. `false` where that is
    /// not known.
    pub(super) fn implies(&self, other: &Condition) -> bool {
        match (self.negated, other.negated) {
            (false, false) => self.predicate.implies(&other.predicate),
            (true, true) => other.predicate.implies(&self.predicate),
            (false, true) => self.predicate.excludes(&other.predicate),
            (true, false) => false,
        }
    }

    /// They never hold for the same request. `false` where that is not known.
    pub(super) fn excludes(&self, other: &Condition) -> bool {
        match (self.negated, other.negated) {
            (false, false) => self.predicate.excludes(&other.predicate),
            (false, true) => self.predicate.implies(&other.predicate),
            (true, false) => other.predicate.implies(&self.predicate),
            (true, true) => false,
        }
    }

    /// The stricter, the smaller: equality, the longest prefix, the smallest network, regular
    /// expression, presence; negated ones last.
    pub(super) fn rank(&self) -> (bool, u8, Reverse<usize>) {
        let (kind, length) = match &self.predicate {
            Predicate::Value(_, Test::Is(_)) => (0, 0),
            Predicate::Value(_, Test::Prefix(prefix)) => (1, prefix.len()),
            Predicate::Client(networks) => (2, networks.iter().map(IpNet::prefix_len).min().unwrap_or_default().into()),
            Predicate::Value(_, Test::Regex(_)) => (3, 0),
            Predicate::Value(_, Test::Present) => (4, 0),
        };
        (self.negated, kind, Reverse(length))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |affirmed, negated| if self.negated { negated } else { affirmed };
        match &self.predicate {
            Predicate::Client(networks) => {
                let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
                write!(f, "client {} {}", word("in", "not in"), networks.join(", "))
            }
            Predicate::Value(input, test) => match test {
                Test::Is(text) => write!(f, "{input} {} {text:?}", word("is", "is not")),
                Test::Prefix(text) => write!(f, "{input} {} {text:?}", word("begins with", "does not begin with")),
                // Its backslashes are its own.
                Test::Regex(pattern) => {
                    write!(f, "{input} {} \"{}\"", word("matches", "does not match"), pattern.source())
                }
                Test::Present => write!(f, "{input} is {}", word("present", "absent")),
            },
        }
    }
}
