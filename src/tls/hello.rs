//! The tickets that a ClientHello offers, read before rustls sees it: who resumes is known before
//! the handshake costs anything. Everything else of it is skipped. What is not as expected offers
//! nothing; rustls will say what is wrong with it.

/// "enum { ... handshake(22) ... } ContentType" (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// "enum { client_hello(1) ... } HandshakeType" (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
/// The ticket of TLS 1.2 (RFC 5077 section 3.2).
const SESSION_TICKET: u16 = 35;
/// Those of TLS 1.3 (RFC 8446 section 4.2.11).
const PRE_SHARED_KEY: u16 = 41;
const VERSION_AND_RANDOM: usize = 2 + 32;
const RECORD_MAX: usize = 16 * 1024;

/// The tickets in the ClientHello that `bytes` begin with; `None` while its first record is
/// incomplete. A ClientHello in more records offers nothing.
pub fn tickets(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let Some((head, rest)) = bytes.split_first_chunk::<5>() else {
        return if bytes.first().is_none_or(|first| *first == HANDSHAKE) { None } else { Some(Vec::new()) };
    };
    let [kind, _, _, high, low] = *head;
    let len = usize::from(u16::from_be_bytes([high, low]));
    if kind != HANDSHAKE || len > RECORD_MAX {
        return Some(Vec::new());
    }
    Some(offered(Input(rest.get(..len)?)).unwrap_or_default())
}

/// `None`: it is no ClientHello, or malformed.
fn offered(mut record: Input<'_>) -> Option<Vec<&[u8]>> {
    if record.take(1)? != [CLIENT_HELLO] {
        return None;
    }
    let mut hello = Input(record.vector(3)?);
    hello.take(VERSION_AND_RANDOM)?;
    // Session id, cipher suites, compression methods.
    [1, 2, 1].into_iter().try_for_each(|width| hello.vector(width).map(drop))?;
    let mut extensions = Input(hello.vector(2)?);
    let mut offered = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut value = Input(extensions.vector(2)?);
        if kind == usize::from(SESSION_TICKET) && !value.0.is_empty() {
            offered.push(value.0);
        } else if kind == usize::from(PRE_SHARED_KEY) {
            let mut identities = Input(value.vector(2)?);
            while !identities.0.is_empty() {
                offered.push(identities.vector(2)?);
                // The obfuscated age of the ticket.
                identities.take(4)?;
            }
        }
    }
    Some(offered)
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// Bytes behind their length, which has `width` bytes.
    fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let len = self.number(width)?;
        self.take(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(width: usize, bytes: &[u8]) -> Vec<u8> {
        [&bytes.len().to_be_bytes()[8 - width..], bytes].concat()
    }

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        [kind.to_be_bytes().to_vec(), vector(2, value)].concat()
    }

    fn identities(tickets: &[&[u8]]) -> Vec<u8> {
        let each = tickets.iter().flat_map(|ticket| [vector(2, ticket), vec![1, 2, 3, 4]].concat());
        let binders = vector(2, &vector(1, &[7; 32]));
        extension(PRE_SHARED_KEY, &[vector(2, &each.collect::<Vec<_>>()), binders].concat())
    }

    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let start = [&[3, 3][..], &[9; 32], &vector(1, &[5; 32]), &vector(2, &[0x13, 1]), &vector(1, &[0])].concat();
        let body = [start, vector(2, &extensions.concat())].concat();
        let message = [vec![CLIENT_HELLO], vector(3, &body)].concat();
        [vec![HANDSHAKE, 3, 1], vector(2, &message)].concat()
    }

    #[test]
    fn tickets_of_both_versions_are_found() {
        let other = extension(0, b"\x00\x0a\x00\x00\x07example");
        assert_eq!(tickets(&hello(std::slice::from_ref(&other))), Some(vec![]));
        let empty = extension(SESSION_TICKET, b"");
        assert_eq!(tickets(&hello(&[empty, other.clone()])), Some(vec![]), "an empty one asks for a ticket");
        let (old, new) = (extension(SESSION_TICKET, b"old"), identities(&[b"one", b"two"]));
        assert_eq!(tickets(&hello(&[old.clone(), other.clone()])), Some(vec![&b"old"[..]]));
        assert_eq!(tickets(&hello(&[other, old, new])), Some(vec![&b"old"[..], b"one", b"two"]));
    }

    #[test]
    fn each_cut_is_incomplete_and_more_bytes_do_not_matter() {
        let whole = hello(&[identities(&[b"ticket"])]);
        for n in 0..whole.len() {
            assert_eq!(tickets(&whole[..n]), None, "{n}");
        }
        let more = [whole.as_slice(), &[20, 3, 3, 0, 1, 1]].concat();
        assert_eq!(tickets(&more), Some(vec![&b"ticket"[..]]));
    }

    #[test]
    fn what_is_something_else_offers_nothing() {
        for other in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"G", &[21, 3, 3, 0, 2, 1, 0], &[22, 3, 1, 0xff, 0xff], &[0]] {
            assert_eq!(tickets(other), Some(vec![]), "{other:?}");
        }
        assert_eq!(tickets(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Some(vec![]), "a ServerHello");
        // A message that goes on in another record.
        let mut split = hello(&[identities(&[b"ticket"])]);
        split[8] += 1;
        assert_eq!(tickets(&split), Some(vec![]));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0_usize..120, to in any::<u8>()) {
            let _ = tickets(&bytes);
            let _ = tickets(&[&[22, 3, 1, 0, 200, 1, 0, 0, 196][..], &bytes].concat());
            let mut changed = hello(&[extension(SESSION_TICKET, b"old"), identities(&[b"one", b"two"])]);
            let at = at % changed.len();
            changed[at] = to;
            let found = tickets(&changed);
            prop_assert!(found.is_none_or(|found| found.iter().map(|one| one.len()).sum::<usize>() <= changed.len()));
        }
    }
}
