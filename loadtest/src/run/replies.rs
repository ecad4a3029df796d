//! The messages in flight of one connection: matches replies with what was sent, and
//! tells loss, doubles, order and wrong bytes apart. An expected reply is compared as it comes,
//! without being gathered; only what differs, and what a server sends unasked, is kept until it is
//! whole. Knows no socket and no clock.

use crate::run::measure::Fault;
use crate::run::message::{Messages, Sent};
use crate::run::plan::Reply;
use crate::run::stamp::Stamp;
use std::collections::VecDeque;

/// Longest message that is gathered.
const GATHERED_MAX: usize = 64 << 20;
/// Sequence numbers remembered as missing; whatever is missing beyond is lost at once.
const MISSING_MAX: usize = 4096;

#[derive(Debug, Default)]
pub struct Replies {
    under_way: VecDeque<Sent>,
    /// Bytes of the reply under way that were as expected.
    matched: usize,
    gathered: Option<Vec<u8>>,
    /// Of pushed messages: the next sequence number of each source.
    streams: Vec<(u32, u64)>,
    /// Source and sequence of what was passed over: reordered if it comes, lost if not.
    missing: Vec<(u32, u64)>,
    /// Missing beyond what is remembered.
    lost: u64,
}

/// What a piece of a message completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    Part,
    /// The reply to this one.
    Reply(Sent),
    /// A message that the server sent unasked; with its stamp, if it has one.
    Pushed(Option<Stamp>),
    /// A wrong message. If it took the place of a reply, that message is no longer in flight.
    Wrong(Fault, String),
}

/// How replies are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Replies(Reply),
    /// Messages come unasked.
    Pushes,
}

impl Replies {
    pub fn sent(&mut self, sent: Sent) {
        self.under_way.push_back(sent);
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Messages that are known not to have come, once nothing more can come.
    pub fn lost(&self) -> u64 {
        self.lost + self.missing.len() as u64
    }

    /// The next bytes of the message under way. `source` is our own name in stamps.
    pub fn on_data(&mut self, data: Data<'_>, messages: &mut Messages, expect: Expect) -> Result<Received, String> {
        let Data { bytes, last, .. } = data;
        if let Expect::Pushes = expect {
            if last && self.gathered.is_none() {
                return Ok(self.pushed(bytes, data.text));
            }
            self.gather(bytes)?;
            let whole = if last { self.gathered.take() } else { None };
            return Ok(whole.map_or(Received::Part, |whole| self.pushed(&whole, data.text)));
        }
        if let Expect::Replies(Reply::Any) = expect {
            return Ok(match (last, last.then(|| self.under_way.pop_front()).flatten()) {
                (false, _) => Received::Part,
                (true, Some(sent)) => Received::Reply(sent),
                (true, None) => unexpected(),
            });
        }
        if self.gathered.is_none() {
            if let Some(got) = self.compare(&data, messages) {
                return Ok(got);
            }
            self.keep_what_matched(messages);
        }
        self.gather(bytes)?;
        let whole = if last { self.gathered.take() } else { None };
        Ok(whole.map_or(Received::Part, |whole| self.diagnose(&whole, &data, messages)))
    }

    /// The short way: it is what was expected. `None` if it is not.
    #[inline]
    fn compare(&mut self, data: &Data<'_>, messages: &mut Messages) -> Option<Received> {
        let front = self.under_way.front()?;
        if self.matched < crate::run::stamp::len(true) {
            messages.expect(front);
        }
        let expected = messages.expected(front.template, self.matched);
        let as_expected = expected.get(..data.bytes.len()) == Some(data.bytes) && data.text == messages.is_text();
        if !as_expected || data.last && expected.len() != data.bytes.len() {
            return None;
        }
        self.matched += data.bytes.len();
        if !data.last {
            return Some(Received::Part);
        }
        self.matched = 0;
        self.under_way.pop_front().map(Received::Reply)
    }

    /// It is no longer what was expected: what came so far was, and is needed to tell what it is.
    fn keep_what_matched(&mut self, messages: &mut Messages) {
        let mut kept = Vec::new();
        if let Some(front) = self.under_way.front().filter(|_| self.matched > 0) {
            messages.expect(front);
            kept.extend_from_slice(messages.expected(front.template, 0).get(..self.matched).unwrap_or(&[]));
        }
        self.matched = 0;
        self.gathered = Some(kept);
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<(), String> {
        let gathered = self.gathered.get_or_insert_default();
        if gathered.len() + bytes.len() > GATHERED_MAX {
            return Err(format!("a message of more than {} MiB", GATHERED_MAX >> 20));
        }
        gathered.extend_from_slice(bytes);
        Ok(())
    }

    /// It is not the reply that was expected: which is it?
    fn diagnose(&mut self, whole: &[u8], data: &Data<'_>, messages: &Messages) -> Received {
        let Some(front) = self.under_way.front().copied() else {
            return match Stamp::read(whole, messages.is_text()).filter(|stamp| stamp.source == data.source) {
                Some(stamp) if self.found(stamp) => late(stamp),
                Some(stamp) => again(stamp),
                None => unexpected(),
            };
        };
        let Some(stamp) = Stamp::read(whole, messages.is_text()) else {
            self.under_way.pop_front();
            let (got, sent) = (whole.len(), messages.payload_len(front.template));
            let sequence = front.stamp.sequence;
            return Received::Wrong(
                Fault::Corrupt,
                format!(
                    "reply {sequence} of a connection differs from what was sent ({got} bytes received, {sent} sent)"
                ),
            );
        };
        if stamp.source != data.source {
            let detail = format!("connection {} got a message of connection {}", data.source, stamp.source);
            return Received::Wrong(Fault::Unexpected, detail);
        }
        match self.under_way.iter().position(|sent| sent.stamp.sequence == stamp.sequence) {
            Some(place) => {
                for sent in self.under_way.drain(..place).collect::<Vec<_>>() {
                    self.miss(sent.stamp.source, sent.stamp.sequence..sent.stamp.sequence + 1);
                }
                if data.text != messages.is_text() {
                    self.under_way.pop_front();
                    return Received::Wrong(Fault::Corrupt, "a reply changed between text and binary".into());
                }
                self.under_way.pop_front().map_or_else(unexpected, Received::Reply)
            }
            None if self.found(stamp) => late(stamp),
            None => again(stamp),
        }
    }

    fn pushed(&mut self, whole: &[u8], text: bool) -> Received {
        let Some(stamp) = Stamp::read(whole, text) else {
            // Servers of others know no stamps; one that stamps may not stop.
            return if self.streams.is_empty() {
                Received::Pushed(None)
            } else {
                Received::Wrong(Fault::Corrupt, "a pushed message does not match its stamp".into())
            };
        };
        let place = self.streams.iter().position(|(source, _)| *source == stamp.source);
        let Some(place) = place else {
            // Who joins a broadcast in its middle has missed nothing.
            self.streams.push((stamp.source, stamp.sequence + 1));
            return Received::Pushed(Some(stamp));
        };
        let next = self.streams[place].1;
        if stamp.sequence < next {
            return if self.found(stamp) { late(stamp) } else { again(stamp) };
        }
        self.miss(stamp.source, next..stamp.sequence);
        self.streams[place].1 = stamp.sequence + 1;
        Received::Pushed(Some(stamp))
    }

    fn miss(&mut self, source: u32, sequences: std::ops::Range<u64>) {
        let room = MISSING_MAX.saturating_sub(self.missing.len()) as u64;
        let remembered = (sequences.end - sequences.start).min(room);
        self.lost += (sequences.end - sequences.start) - remembered;
        self.missing.extend((sequences.start..sequences.start + remembered).map(|sequence| (source, sequence)));
    }

    /// Whether it was missing; it no longer is.
    fn found(&mut self, stamp: Stamp) -> bool {
        let place = self.missing.iter().position(|missing| *missing == (stamp.source, stamp.sequence));
        place.map(|place| self.missing.swap_remove(place)).is_some()
    }
}

/// A piece of a message, and the connection that received it.
#[derive(Debug, Clone, Copy)]
pub struct Data<'a> {
    pub bytes: &'a [u8],
    pub text: bool,
    pub last: bool,
    pub source: u32,
}

fn unexpected() -> Received {
    Received::Wrong(Fault::Unexpected, "an unexpected message".into())
}

fn late(stamp: Stamp) -> Received {
    Received::Wrong(Fault::Reordered, format!("message {} received after a later one", stamp.sequence))
}

fn again(stamp: Stamp) -> Received {
    Received::Wrong(Fault::Duplicate, format!("message {} received again", stamp.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::plan::{MessagePlan, Sizes};

    struct Bench {
        messages: Messages,
        replies: Replies,
        payloads: Vec<Vec<u8>>,
    }

    const EXACT: Expect = Expect::Replies(Reply::Exact);

    /// A connection with `count` messages under way.
    fn bench(size: usize, count: u64) -> Bench {
        let plan = MessagePlan { sizes: Sizes::Mix(vec![(size, 1.0)]), text: false, fragments: 1 };
        let (mut messages, mut replies, mut payloads) = (Messages::new(&plan), Replies::default(), vec![]);
        for sequence in 0..count {
            let stamp = Stamp { source: 5, sequence, time_ns: 1 };
            let sent = Sent { stamp, template: 0, intended: 0, sent: 0 };
            messages.expect(&sent);
            payloads.push(messages.expected(0, 0).to_vec());
            replies.sent(sent);
        }
        Bench { messages, replies, payloads }
    }

    impl Bench {
        /// In two pieces.
        fn come(&mut self, payload: &[u8], cut: usize, expect: Expect) -> Received {
            let data = |bytes, last| Data { bytes, text: false, last, source: 5 };
            let (first, rest) = payload.split_at(cut.min(payload.len()));
            let part = self.replies.on_data(data(first, false), &mut self.messages, expect).unwrap();
            assert_eq!(part, Received::Part);
            self.replies.on_data(data(rest, true), &mut self.messages, expect).unwrap()
        }

        fn verdict(&mut self, payload: &[u8], cut: usize) -> String {
            match self.come(payload, cut, EXACT) {
                Received::Reply(sent) => format!("reply {}", sent.stamp.sequence),
                Received::Wrong(fault, _) => fault.name().into(),
                other => format!("{other:?}"),
            }
        }
    }

    #[test]
    fn every_fault_is_told_from_every_other_wherever_it_is_cut() {
        for cut in 0..=100 {
            let mut one = bench(100, 8);
            let sent = one.payloads.clone();
            assert_eq!(one.verdict(&sent[0], cut), "reply 0");
            // 1 is passed over, comes late, and then once more.
            assert_eq!(one.verdict(&sent[2], cut), "reply 2");
            assert_eq!(one.verdict(&sent[1], cut), "reordered");
            assert_eq!(one.verdict(&sent[1], cut), "duplicate");
            assert_eq!(one.verdict(&sent[2], cut), "duplicate");
            let mut wrong = sent[3].clone();
            wrong[cut.min(99)] ^= 0x10;
            assert_eq!(one.verdict(&wrong, cut), "corrupt");
            assert_eq!(one.verdict(&sent[4][..99], cut), "corrupt");
            assert_eq!(one.verdict(&[sent[5].as_slice(), b"x"].concat(), cut), "corrupt");
            // 6 never comes.
            assert_eq!(one.verdict(&sent[7], cut), "reply 7");
            assert_eq!((one.replies.lost(), one.replies.under_way()), (1, 0));
            assert_eq!(one.verdict(b"what is this", cut), "unexpected");
        }
    }

    #[test]
    fn messages_without_room_for_a_stamp_are_compared() {
        let mut one = bench(4, 2);
        let sent = one.payloads.clone();
        assert_eq!(one.verdict(&sent[1], 2), "corrupt");
        assert_eq!(one.verdict(&sent[1], 2), "reply 1");
    }

    #[test]
    fn a_message_of_somebody_else_is_unexpected() {
        let mut one = bench(100, 1);
        let mut other = one.payloads[0].clone();
        let crc = crc32fast::hash(&other[24..]);
        Stamp { source: 6, sequence: 0, time_ns: 1 }.write(&mut other, false, crc);
        assert_eq!(one.verdict(&other, 50), "unexpected");
        let sent = one.payloads[0].clone();
        assert_eq!(one.verdict(&sent, 50), "reply 0");
    }

    #[test]
    fn pushed_messages_are_followed_by_their_numbers() {
        let mut one = bench(100, 6);
        let sent = one.payloads.clone();
        let mut come = |index: usize| match one.come(&sent[index], 30, Expect::Pushes) {
            Received::Pushed(stamp) => format!("{}", stamp.unwrap().sequence),
            Received::Wrong(fault, _) => fault.name().into(),
            other => format!("{other:?}"),
        };
        let got: Vec<String> = [1, 2, 4, 3, 4, 5].into_iter().map(&mut come).collect();
        assert_eq!(got, ["1", "2", "4", "reordered", "duplicate", "5"]);
        assert_eq!(one.replies.lost(), 0);
        let mut wrong = sent[5].clone();
        wrong[50] ^= 1;
        assert!(matches!(one.come(&wrong, 10, Expect::Pushes), Received::Wrong(Fault::Corrupt, _)));
        let mut foreign = bench(100, 0);
        assert_eq!(foreign.come(b"hello", 2, Expect::Pushes), Received::Pushed(None));
    }

    #[test]
    fn any_reply_will_do_if_that_was_said() {
        let mut one = bench(100, 1);
        assert!(matches!(one.come(b"{}", 1, Expect::Replies(Reply::Any)), Received::Reply(_)));
        assert!(matches!(one.come(b"{}", 1, Expect::Replies(Reply::Any)), Received::Wrong(Fault::Unexpected, _)));
    }
}
