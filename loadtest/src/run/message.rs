//! The messages of a group: made once for each size, sent again and again with nothing but the
//! stamp changed, and compared with what comes back. Owns the templates; knows no socket and no
//! clock.
//!
//! All messages carry one mask key. A load generator has no cache to protect from its own bytes
//! (RFC 6455 section 10.3 is about browsers), and so a message costs its sender no more than the
//! bytes of its stamp.

use crate::run::plan::{MessagePlan, Sizes};
use crate::run::stamp::{self, Stamp};
use fastrand::Rng;
use framegate::proto::frame::{Header, opcode};
use framegate::proto::mask::mask;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Bytes of the sequence number in messages too short for a stamp.
const SHORT_LEN: usize = 8;

/// What is remembered of a message until its reply is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    pub stamp: Stamp,
    pub template: u32,
    /// Times of the run's clock, in nanoseconds.
    pub intended: u64,
    pub sent: u64,
}

/// All that a group sends.
#[derive(Debug)]
pub struct Messages {
    templates: Vec<Template>,
    /// Running sums of the weights.
    sums: Vec<f64>,
    text: bool,
    /// Lines of a file go out in turn, as they are.
    lines: bool,
    turn: usize,
}

/// One message as it goes out and as it must come back.
#[derive(Debug)]
struct Template {
    payload: Vec<u8>,
    /// The frames, masked.
    wire: Vec<u8>,
    /// Where the fragments' payloads begin in `wire`; all but the last are `fragment_len` long.
    places: Vec<usize>,
    fragment_len: usize,
    rest_crc: u32,
    front: Front,
}

/// What differs from message to message, at its front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    Stamp,
    Sequence(usize),
    Nothing,
}

impl Messages {
    pub fn new(plan: &MessagePlan) -> Messages {
        let template = |payload: Vec<u8>, front| Template::new(payload, front, plan);
        let (templates, weights): (Vec<Template>, Vec<f64>) = match &plan.sizes {
            Sizes::Mix(mix) => mix
                .iter()
                .map(|(size, weight)| {
                    let has_stamp = *size >= stamp::len(plan.text);
                    let front = if has_stamp { Front::Stamp } else { Front::Sequence((*size).min(SHORT_LEN)) };
                    (template(pattern(*size, plan.text), front), *weight)
                })
                .unzip(),
            Sizes::Lines(lines) => lines.iter().map(|line| (template(line.clone(), Front::Nothing), 1.0)).unzip(),
        };
        let sums = weights.iter().scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        let lines = matches!(plan.sizes, Sizes::Lines(_));
        Messages { sums: sums.collect(), templates, text: plan.text, lines, turn: 0 }
    }

    /// Which template is next.
    pub fn choose(&mut self, random: &mut Rng) -> u32 {
        if self.lines {
            self.turn += 1;
            return ((self.turn - 1) % self.templates.len()) as u32;
        }
        if self.templates.len() == 1 {
            return 0;
        }
        let at = random.f64() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum <= at).min(self.templates.len() - 1) as u32
    }

    pub fn is_text(&self) -> bool {
        self.text
    }

    pub fn payload_len(&self, template: u32) -> usize {
        self.templates[template as usize].payload.len()
    }

    /// The frames of a message, ready to leave. Valid until the next call.
    pub fn wire(&mut self, sent: &Sent) -> &[u8] {
        let template = &mut self.templates[sent.template as usize];
        template.seal(&sent.stamp, self.text);
        template.patch();
        &template.wire
    }

    /// Makes the payload that must come back for `sent` the one that [`Messages::expected`] gives.
    pub fn expect(&mut self, sent: &Sent) {
        self.templates[sent.template as usize].seal(&sent.stamp, self.text);
    }

    /// The payload last sealed of that template, from `at` on.
    pub fn expected(&self, template: u32, at: usize) -> &[u8] {
        self.templates[template as usize].payload.get(at..).unwrap_or(&[])
    }
}

impl Template {
    fn new(payload: Vec<u8>, front: Front, plan: &MessagePlan) -> Template {
        let rest = payload.get(stamp::len(plan.text)..).unwrap_or(&[]);
        let rest_crc = crc32fast::hash(rest);
        let fragments = plan.fragments.clamp(1, payload.len().max(1));
        let fragment_len = payload.len().div_ceil(fragments).max(1);
        let (mut wire, mut places) = (Vec::new(), Vec::new());
        let chunks: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(fragment_len).collect() };
        for (index, chunk) in chunks.iter().enumerate() {
            let opcode = match index {
                0 if plan.text => opcode::TEXT,
                0 => opcode::BINARY,
                _ => opcode::CONTINUATION,
            };
            let fin = index + 1 == chunks.len();
            Header { fin, rsv: 0, opcode, mask: Some(KEY), payload_len: chunk.len() as u64 }.write(&mut wire);
            places.push(wire.len());
            wire.extend_from_slice(chunk);
            let at = wire.len() - chunk.len();
            mask(&mut wire[at..], KEY, 0);
        }
        Template { payload, wire, places, fragment_len, rest_crc, front }
    }

    /// Writes what is special to this message into the payload.
    fn seal(&mut self, stamp: &Stamp, text: bool) {
        match self.front {
            Front::Stamp => stamp.write(&mut self.payload, text, self.rest_crc),
            Front::Sequence(len) => {
                for (at, byte) in self.payload.iter_mut().take(len).enumerate() {
                    let digit = (stamp.sequence >> (8 * at)) as u8;
                    *byte = if text { b'a' + digit % 26 } else { digit };
                }
            }
            Front::Nothing => {}
        }
    }

    /// Carries the front of the payload over to the wire.
    fn patch(&mut self) {
        let mut len = match self.front {
            Front::Stamp => self.payload.len().min(stamp::len(true)),
            Front::Sequence(len) => len,
            Front::Nothing => return,
        };
        for (place, chunk) in self.places.iter().zip(self.payload.chunks(self.fragment_len)) {
            let n = chunk.len().min(len);
            let room = &mut self.wire[*place..*place + n];
            room.copy_from_slice(&chunk[..n]);
            mask(room, KEY, 0);
            len -= n;
            if len == 0 {
                return;
            }
        }
    }
}

/// Bytes without a period that a shifted or swapped piece could hide in; letters and digits for
/// text.
fn pattern(len: usize, text: bool) -> Vec<u8> {
    let mut random = Rng::with_seed(0x0066_7261_6d65);
    (0..len).map(|_| if text { random.alphanumeric() as u8 } else { random.u8(..) }).collect()
}

/// A control frame of ours, masked.
pub fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(6 + payload.len());
    Header { fin: true, rsv: 0, opcode, mask: Some(KEY), payload_len: payload.len() as u64 }.write(&mut wire);
    let at = wire.len();
    wire.extend_from_slice(payload);
    mask(&mut wire[at..], KEY, 0);
    wire
}

#[cfg(test)]
mod tests {
    use super::*;
    use framegate::proto::frame::Parsed;
    use std::sync::Arc;

    fn plan(sizes: Sizes, text: bool, fragments: usize) -> MessagePlan {
        MessagePlan { sizes, text, fragments }
    }

    fn sent(sequence: u64, template: u32) -> Sent {
        Sent { stamp: Stamp { source: 3, sequence, time_ns: 99 }, template, intended: 0, sent: 0 }
    }

    /// Payload and number of frames.
    fn unmasked(mut wire: &[u8]) -> (Vec<u8>, usize) {
        let (mut payload, mut frames) = (Vec::new(), 0);
        while !wire.is_empty() {
            let Ok(Parsed::Complete(header, len)) = Header::parse(wire) else { panic!("no header") };
            let (own, rest) = wire[len..].split_at(header.payload_len as usize);
            let mut own = own.to_vec();
            mask(&mut own, header.mask.unwrap(), 0);
            payload.extend_from_slice(&own);
            assert_eq!(header.fin, rest.is_empty());
            assert_eq!(header.opcode == opcode::CONTINUATION, frames > 0);
            (wire, frames) = (rest, frames + 1);
        }
        (payload, frames)
    }

    #[test]
    fn what_goes_out_is_what_must_come_back() {
        for text in [false, true] {
            for size in [0, 1, 7, 8, 23, 24, 31, 32, 33, 125, 126, 1024, 65_535, 65_536] {
                for fragments in [1, 2, 3, 7] {
                    let mut messages = Messages::new(&plan(Sizes::Mix(vec![(size, 1.0)]), text, fragments));
                    for sequence in [0, 1, 300] {
                        let sent = sent(sequence, 0);
                        let (payload, frames) = unmasked(messages.wire(&sent));
                        messages.expect(&sent);
                        assert_eq!(payload, messages.expected(0, 0));
                        assert_eq!(frames, fragments.clamp(1, size.max(1)).min(frames), "{size} {fragments}");
                        assert!(!text || payload.is_ascii());
                        let read = Stamp::read(&payload, text);
                        assert_eq!(read, (size >= stamp::len(text)).then_some(sent.stamp));
                    }
                    let (first, _) = unmasked(messages.wire(&sent(0, 0)));
                    let (second, _) = unmasked(messages.wire(&sent(1, 0)));
                    assert_eq!(first == second, size == 0);
                }
            }
        }
    }

    #[test]
    fn a_mix_has_its_weights_and_lines_go_in_turn() {
        let mut random = Rng::with_seed(1);
        let mut mix = Messages::new(&plan(Sizes::Mix(vec![(10, 9.0), (1000, 1.0)]), false, 1));
        let large = (0..10_000).filter(|_| mix.choose(&mut random) == 1).count();
        assert!((800..1200).contains(&large), "{large}");
        let lines = Arc::new(vec![b"one".to_vec(), b"two".to_vec()]);
        let mut lines = Messages::new(&plan(Sizes::Lines(lines), true, 1));
        let order: Vec<u32> = (0..4).map(|_| lines.choose(&mut random)).collect();
        assert_eq!(order, [0, 1, 0, 1]);
        assert_eq!(unmasked(lines.wire(&sent(5, 1))).0, b"two");
    }
}
