//! Credentials that do not count any more although they are valid, by order of the admin listener.

use super::Identity;
use crate::proto::Millis;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::Arc;

/// How many orders are remembered at a time.
pub const REVOKED_MAX: usize = 10_000;

/// Whose sessions an order is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// [`Identity::subject`].
    Subject(String),
    /// [`Identity::token_id`]: of a token or an API key.
    Token(String),
    /// The session with this request id.
    Session(String),
}

impl Who {
    /// Whether a session is meant, by its request id and client.
    pub fn is(&self, session: &[u8], client: Option<&Identity>) -> bool {
        match self {
            Who::Subject(subject) => client.is_some_and(|client| client.subject == *subject),
            Who::Token(id) => client.is_some_and(|client| client.token_id.as_ref() == Some(id)),
            Who::Session(id) => session == id.as_bytes(),
        }
    }
}

/// What is revoked, until when. Shared by snapshots: an order lives over a reload. Read without a
/// lock when a request is judged; replaced as a whole by control alone.
#[derive(Debug, Default)]
pub struct Revoked(ArcSwap<HashMap<Who, Millis>>);

/// There are [`REVOKED_MAX`] orders in force.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

impl Revoked {
    /// Admits no request of `who` until then.
    pub fn add(&self, who: Who, until: Millis, now: Millis) -> Result<(), TooMany> {
        let mut all = HashMap::clone(&self.0.load());
        all.retain(|_, until| *until > now);
        if all.len() >= REVOKED_MAX && !all.contains_key(&who) {
            return Err(TooMany);
        }
        all.insert(who, until);
        self.0.store(Arc::new(all));
        Ok(())
    }

    pub fn covers(&self, client: &Identity, now: Millis) -> bool {
        let all = self.0.load();
        // Most of the time there is none.
        if all.is_empty() {
            return false;
        }
        let is = |who: Who| all.get(&who).is_some_and(|until| *until > now);
        is(Who::Subject(client.subject.clone())) || client.token_id.clone().is_some_and(|id| is(Who::Token(id)))
    }

    /// Takes over the orders of another snapshot.
    pub fn inherit(&self, before: &Revoked) {
        self.0.store(before.0.load_full());
    }
}

/// Orders are no part of the configuration.
impl PartialEq for Revoked {
    fn eq(&self, _: &Revoked) -> bool {
        true
    }
}

impl Eq for Revoked {}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(subject: &str, token_id: Option<&str>) -> Identity {
        Identity { subject: subject.to_owned(), token_id: token_id.map(str::to_owned), ..Identity::default() }
    }

    #[test]
    fn orders_hold_until_their_time() {
        let revoked = Revoked::default();
        revoked.add(Who::Subject("a".into()), 100, 0).unwrap();
        revoked.add(Who::Token("t".into()), 50, 0).unwrap();
        for (subject, token, now, covered) in [
            ("a", None, 99, true),
            ("a", None, 100, false),
            ("b", None, 0, false),
            ("b", Some("t"), 49, true),
            ("b", Some("t"), 50, false),
            ("t", Some("a"), 0, false),
        ] {
            assert_eq!(revoked.covers(&client(subject, token), now), covered, "{subject} {token:?} {now}");
        }
        let after = Revoked::default();
        after.inherit(&revoked);
        assert!(after.covers(&client("a", None), 0));
    }

    #[test]
    fn there_is_room_again_when_orders_end() {
        let revoked = Revoked::default();
        for n in 0..REVOKED_MAX {
            revoked.add(Who::Token(n.to_string()), 10, 0).unwrap();
        }
        assert_eq!(revoked.add(Who::Token("x".into()), 20, 9), Err(TooMany));
        revoked.add(Who::Token("0".into()), 20, 9).unwrap();
        revoked.add(Who::Token("x".into()), 20, 10).unwrap();
        assert!(revoked.covers(&client("a", Some("0")), 19) && revoked.covers(&client("a", Some("x")), 19));
    }

    #[test]
    fn sessions_are_named_by_subject_token_or_id() {
        let (known, session) = (client("a", Some("t")), b"id-1");
        for (who, is) in [
            (Who::Subject("a".into()), true),
            (Who::Subject("t".into()), false),
            (Who::Token("t".into()), true),
            (Who::Session("id-1".into()), true),
            (Who::Session("id".into()), false),
        ] {
            assert_eq!(who.is(session, Some(&known)), is, "{who:?}");
        }
        assert!(!Who::Subject(String::new()).is(session, None) && Who::Session("id-1".into()).is(session, None));
    }
}
