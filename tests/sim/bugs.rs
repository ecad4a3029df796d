//! Planted bugs: mistakes that real proxies make. Each is inserted between worker and
//! kernel, or by a hook of the worker, and must be found.

use crate::buf::Buf;
use crate::frames::{CLOSE, FIN, read_head};
use crate::kernel::Sock;
use framegate::policy::ask::Answer;
use framegate::proto::rate::{OnExcess, RateLimit};
use framegate::worker::sys::Event;
use framegate::worker::token::{SlotKey, Token};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A short read counts as drained though the FIN came with the data.
    FinEdge,
    /// Urgent data is ignored.
    UrgentData,
    /// EMFILE on accept counts as an empty queue.
    ListenerEdge,
    /// The generation in a token is ignored.
    StaleToken,
    /// The proxy's own frame is sent at any position of the stream.
    InsideFrame,
    /// The answer of a service goes to the session that has the slot of the one that asked.
    AnswerToSlot,
    /// A service that gives no answer admits.
    FailOpen,
    /// A call whose session has ended keeps its connection.
    LeakedCall,
    /// A call whose session has ended keeps its connection for a while.
    LateCancel,
    /// A call's own deadline is ignored.
    NoCallTimeout,
    /// A health check that fails does not count.
    IgnoredCheck,
    /// Replaced members are not used.
    OldMembers,
    /// An order of an administrator is not carried out.
    IgnoredOrder,
    /// The worker does not learn that an endpoint has gone down.
    NoSweep,
    /// A reload begins with new counts and new objects.
    NoInherit,
    /// A session counts for ever.
    LeakedPick,
    /// The head of a response to a call is complete when the connection ends.
    CutHead,
    /// A paused direction is read too early.
    ShortPause,
    /// A look at an incomplete PROXY header takes it.
    TakenHeader,
    /// Peers have no time to answer a ping.
    Impatient,
    /// The route's heartbeat is off.
    NoHeartbeat,
    /// What is not active is taken for active.
    Inactive,
    /// Credentials end earlier than the server says, or later.
    EarlyExpiry,
    LateExpiry,
    /// An order of revocation is not carried out.
    IgnoredRevocation,
    /// It is carried out, and not remembered.
    ForgottenRevocation,
    /// It is about another client, too.
    RevokesOthers,
    /// Frames that were read before an order are not sent after it.
    LastWords,
    /// A limit has a larger burst, or a smaller one; its patience is none, or endless; it has the
    /// usual code.
    WideLimit,
    NarrowLimit,
    NoPatience,
    EndlessPatience,
    UsualCode,
    /// A request is forwarded before its body is known of: a response to its head is early, and its
    /// connection is used again.
    ForgottenBody,
    /// Whether something has come over a kept connection is not asked.
    BlindReuse,
    /// A server's `Connection: close` is not heard.
    UnheardClose,
    /// A request that changes something is sent a second time.
    SentTwice,
    /// Requests that were sent ahead are answered in another order.
    WrongOrder,
    /// A body that was cut counts as complete.
    ResetIsEnd,
    /// A kept connection is never closed.
    LeakedLink,
}

impl Bug {
    /// Mistakes of whatever relays.
    pub const OF_RELAYS: [Bug; 4] = [Bug::FinEdge, Bug::UrgentData, Bug::ListenerEdge, Bug::StaleToken];
    /// Mistakes of what has frames of its own, asks, and pauses.
    pub const OF_WORKERS: [Bug; 28] = [
        Bug::InsideFrame,
        Bug::AnswerToSlot,
        Bug::FailOpen,
        Bug::LeakedCall,
        Bug::LateCancel,
        Bug::NoCallTimeout,
        Bug::IgnoredCheck,
        Bug::OldMembers,
        Bug::IgnoredOrder,
        Bug::NoSweep,
        Bug::NoInherit,
        Bug::LeakedPick,
        Bug::CutHead,
        Bug::ShortPause,
        Bug::Impatient,
        Bug::NoHeartbeat,
        Bug::Inactive,
        Bug::EarlyExpiry,
        Bug::LateExpiry,
        Bug::IgnoredRevocation,
        Bug::ForgottenRevocation,
        Bug::RevokesOthers,
        Bug::LastWords,
        Bug::WideLimit,
        Bug::NarrowLimit,
        Bug::NoPatience,
        Bug::EndlessPatience,
        Bug::UsualCode,
    ];

    /// Mistakes of what forwards plain HTTP.
    pub const OF_PLAIN: [Bug; 7] = [
        Bug::ForgottenBody,
        Bug::BlindReuse,
        Bug::UnheardClose,
        Bug::SentTwice,
        Bug::WrongOrder,
        Bug::ResetIsEnd,
        Bug::LeakedLink,
    ];

    /// Falsifies a limit.
    pub fn on_limit(self, mut limit: RateLimit) -> RateLimit {
        match (self, &mut limit.on_excess) {
            (Bug::WideLimit, _) => limit.burst += 1,
            (Bug::NarrowLimit, _) => limit.burst = (limit.burst - 1).max(1),
            (Bug::NoPatience, OnExcess::PauseThenClose { patience_ms }) => *patience_ms = 1,
            (Bug::EndlessPatience, OnExcess::PauseThenClose { patience_ms }) => *patience_ms = 1 << 40,
            (Bug::UsualCode, _) => limit.close_code = 1008,
            _ => {}
        }
        limit
    }

    /// Falsifies what an authorization server says, where one read has the place.
    pub fn on_call(self, read: &mut [u8]) {
        let (from, to): (&[u8], &[u8]) = match self {
            Bug::Inactive => (b":false,\"sub\"", b":true ,\"sub\""),
            Bug::EarlyExpiry => (b"Expires: 5", b"Expires: 1"),
            Bug::LateExpiry => (b"X-Expires: 2", b"X-Exp1res: 2"),
            _ => return,
        };
        if let Some(at) = read.windows(from.len()).position(|window| window == from) {
            let n = to.len().min(read.len() - at);
            read[at..at + n].copy_from_slice(&to[..n]);
        }
    }

    /// Falsifies a batch of events.
    pub fn on_events(self, events: &mut [Event], socks: &[Sock]) {
        for event in events {
            match self {
                Bug::FinEdge => event.read_closed = false,
                Bug::UrgentData => event.priority = false,
                Bug::ResetIsEnd => event.error = false,
                Bug::StaleToken => event.token = without_generation(event.token, socks),
                _ => {}
            }
        }
    }

    /// Falsifies the answer of a service.
    pub fn on_answer(self, to: &mut SlotKey, answer: &mut Answer, socks: &[Sock]) {
        let pair = |token: usize| match Token::unpack(token) {
            Some(Token::Pair(key, _)) => Some(key),
            _ => None,
        };
        match self {
            Bug::AnswerToSlot => {
                let mut keys = socks.iter().filter_map(|sock| pair(sock.token?));
                *to = keys.find(|key| key.slot == to.slot).unwrap_or(*to);
            }
            Bug::FailOpen if *answer == Answer::Unavailable => *answer = Answer::Status(200),
            _ => {}
        }
    }

    /// Where `sent` is a lone Close it overtakes the last byte of the frame before it, if that is
    /// still queued.
    pub fn hoist(sent: &[u8], queue: &mut Buf) {
        let lone = read_head(sent).is_some_and(|h| h.first == FIN | CLOSE && h.total() == sent.len() as u64);
        if lone && queue.len() > sent.len() {
            queue.tail_mut(sent.len() + 1).rotate_left(1);
        }
    }
}

/// The token that lives in the slot of `token` now, if another does. Layout: kind:3, generation:27,
/// slot:32, role:2.
fn without_generation(token: usize, socks: &[Sock]) -> usize {
    const GENERATION: usize = 0x07ff_ffff << 34;
    let alive = |other: &usize| other & !GENERATION == token & !GENERATION;
    socks.iter().filter_map(|sock| sock.token).find(alive).unwrap_or(token)
}
