//! TLS of a pair's conns: the handshake step by step, and what stands between the kernel and the session afterwards. Above
//! this file bytes are plaintext, below it ciphertext; a backlog holds what was sealed.

use super::act;
use super::buffers::SCRATCH_BYTES;
use super::conn::{Conn, Progress};
use super::pair::Pair;
use super::pump::{deliver_raw, discarded, feed, tell};
use super::resources::Resources;
use super::sys::Sys;
use super::token::SlotKey;
use crate::proto::Side;
use crate::proto::end::Cause;
use crate::proto::relay::Lead;
use crate::proto::session::Event;
use crate::tls::{Failure, Opened, PAYLOAD_MAX, RECORD_BYTES, Tls};

/// Reads of one conn in a handshake step.
const READS_MAX: u32 = 4;
/// Bytes of ciphertext that are asked for at the least.
const LEAST_READ: usize = 1024;

/// Begins the handshake of one side, or goes on with it as far as what has come allows.
pub(super) fn shake<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, side: Side, res: &mut Resources<'_, S>) {
    if !pair.is_secure(side) {
        return act::connecting(pair, key, res);
    }
    for _ in 0..READS_MAX {
        if !pair.waits_to_shake(side) {
            return;
        }
        let (progress, opened) = pull(pair, (side, SCRATCH_BYTES), res);
        deliver_sealed(pair, side, false, res);
        match (progress, opened) {
            (Progress::Blocked, _) => return,
            (Progress::Moved(_), Err(failure)) => return fail(pair, key, (side, failure), res),
            (Progress::Moved(_), Ok(opened)) => {
                pair.session.on_event(Event::Spoke, res.now);
                if opened.established {
                    return established(pair, key, (side, opened), res);
                }
                if opened.closed {
                    return lost(pair, key, (side, Progress::Eof), res);
                }
            }
            (end @ (Progress::Eof | Progress::Reset), _) => return lost(pair, key, (side, end), res),
        }
    }
}

/// The first words toward an upstream that has just been connected.
pub(super) fn greet<S: Sys>(
    pair: &mut Pair<S::Sock>,
    mut tls: Box<Tls>,
    res: &mut Resources<'_, S>,
) -> Result<(), Cause> {
    tls.open(&mut [], &mut res.plain, &mut res.sealed).map_err(why_of)?;
    if let Some(conn) = &mut pair.conns[Side::Upstream] {
        conn.tls = Some(tls);
    }
    deliver_sealed(pair, Side::Upstream, false, res);
    Ok(())
}

fn established<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (side, opened): (Side, Opened),
    res: &mut Resources<'_, S>,
) {
    if let Some(conn) = &mut pair.conns[side] {
        conn.up = true;
        let resumed = conn.tls.as_ref().is_some_and(|tls| tls.is_resumed());
        res.core.tally.tls_established(side, resumed);
    }
    match side {
        Side::Downstream => {
            act::secured(pair);
            tell(pair, key, Event::Secured, res);
        }
        Side::Upstream => act::connected(pair, key, res),
    }
    take_plain(pair, key, side, res);
    if opened.closed {
        tell(pair, key, Event::Eof(side), res);
    }
}

fn lost<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, (side, end): (Side, Progress), res: &mut Resources<'_, S>) {
    let event = match (side, end) {
        (Side::Downstream, Progress::Reset) => Event::Reset(side),
        (Side::Downstream, _) => Event::Eof(side),
        (Side::Upstream, Progress::Reset) => Event::ConnectFailed(Cause::Reset),
        (Side::Upstream, _) => Event::ConnectFailed(Cause::Eof),
    };
    tell(pair, key, event, res);
}

fn fail<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, (side, failure): (Side, Failure), res: &mut Resources<'_, S>) {
    if let Some(conn) = &mut pair.conns[side] {
        // From here on it is a plain socket that is read to its end.
        conn.up = true;
        if failure == Failure::PlainHttp {
            conn.tls = None;
        }
    }
    res.core.tally.tls_failed(side);
    pair.session.on_event(Event::Spoke, res.now);
    tell(pair, key, Event::Insecure(side, why_of(failure)), res);
}

/// One read of up to some `max` bytes, opened and shown to the session.
#[inline]
pub(super) fn relay_once<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, max): (Side, usize),
    res: &mut Resources<'_, S>,
) -> Progress {
    let (progress, opened) = pull(pair, (from, max), res);
    deliver_sealed(pair, from, false, res);
    take_plain(pair, key, from, res);
    end_of(pair, key, (from, progress, opened), res)
}

/// What a read has come to besides its bytes.
fn end_of<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    (from, progress, opened): (Side, Progress, Result<Opened, Failure>),
    res: &mut Resources<'_, S>,
) -> Progress {
    match opened {
        Err(failure) => {
            res.core.tally.tls_failed(from);
            tell(pair, key, Event::Insecure(from, why_of(failure)), res);
            Progress::Blocked
        }
        Ok(opened) if opened.closed => Progress::Eof,
        Ok(_) => progress,
    }
}

/// One read whose plaintext is thrown away: only its amount and its end matter.
pub(super) fn discard_once<S: Sys>(
    pair: &mut Pair<S::Sock>,
    key: SlotKey,
    from: Side,
    res: &mut Resources<'_, S>,
) -> Progress {
    let (progress, opened) = pull(pair, (from, SCRATCH_BYTES), res);
    deliver_sealed(pair, from, false, res);
    let n = res.plain.len();
    res.plain.clear();
    if n > 0 {
        discarded(pair, key, (from, n), res);
    }
    end_of(pair, key, (from, progress, opened), res)
}

/// Reads once and opens what came: plaintext stands in `res.plain` then, and what TLS has to say in `res.sealed`.
fn pull<S: Sys>(
    pair: &mut Pair<S::Sock>,
    (from, max): (Side, usize),
    res: &mut Resources<'_, S>,
) -> (Progress, Result<Opened, Failure>) {
    let Some(Conn { tls: Some(tls), .. }) = &pair.conns[from] else {
        return (Progress::Blocked, Ok(Opened::default()));
    };
    let kept = tls.kept();
    // Whole records, where the peer sends full ones; never so little that there would be much reading for nothing.
    let end = match max.min(SCRATCH_BYTES) / PAYLOAD_MAX {
        0 => kept + max.max(LEAST_READ),
        records => (records * RECORD_BYTES).max(kept + LEAST_READ),
    };
    let Some(conn) = &mut pair.conns[from] else { return (Progress::Blocked, Ok(Opened::default())) };
    let room = res.scratch.get_mut(kept..end.min(SCRATCH_BYTES)).unwrap_or(&mut []);
    let progress = conn.pull(&mut res.core.sys, room);
    let (Progress::Moved(n), Some(tls)) = (progress, &mut conn.tls) else { return (progress, Ok(Opened::default())) };
    let bytes = res.scratch.get_mut(..kept + n.get()).unwrap_or(&mut []);
    (progress, tls.open(bytes, &mut res.plain, &mut res.sealed))
}

/// Shows the session the plaintext that was opened.
#[inline]
fn take_plain<S: Sys>(pair: &mut Pair<S::Sock>, key: SlotKey, from: Side, res: &mut Resources<'_, S>) {
    if res.plain.is_empty() {
        return;
    }
    pair.last_seen = res.now;
    // Relayed out for as long as it is walked: the shell stays free for the session's actions.
    let mut plain = std::mem::take(&mut res.plain);
    feed(pair, key, (from, &plain), res);
    plain.clear();
    res.plain = plain;
}

/// Seals what is to leave toward `to`, and sends it; `last`: a FIN follows at once, and our close_notify goes before it.
pub(super) fn deliver<S: Sys>(
    pair: &mut Pair<S::Sock>,
    to: Side,
    (lead, bytes): (Lead, &[u8]),
    last: bool,
    res: &mut Resources<'_, S>,
) {
    let Some(Conn { tls: Some(tls), .. }) = &mut pair.conns[to] else { return };
    let (now, sealed) = (res.now, &mut res.sealed);
    let result = if lead.is_empty() {
        tls.seal(bytes, now, sealed)
    } else {
        // A header that came in two reads: it stays in one record with what follows it.
        tls.seal(&[lead.bytes(), bytes].concat(), now, sealed)
    };
    let result = if last { result.and_then(|()| tls.close(sealed)) } else { result };
    if result.is_err() {
        // No key is left to seal with: nothing more can be said.
        if let Some(conn) = &mut pair.conns[to] {
            conn.ready.broken = true;
        }
    }
    deliver_sealed(pair, to, last, res);
}

/// Says that nothing more comes, where that was not said yet.
pub(super) fn farewell<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, res: &mut Resources<'_, S>) {
    if let Some(Conn { tls: Some(tls), .. }) = &mut pair.conns[to] {
        // What cannot be sealed is not said; the FIN alone tells the peer that something is missing.
        let _unsaid = tls.close(&mut res.sealed);
        deliver_sealed(pair, to, true, res);
    }
}

fn deliver_sealed<S: Sys>(pair: &mut Pair<S::Sock>, to: Side, last: bool, res: &mut Resources<'_, S>) {
    if res.sealed.is_empty() {
        return;
    }
    let mut sealed = std::mem::take(&mut res.sealed);
    deliver_raw(pair, to, (Lead::EMPTY, sealed.bytes()), last, res);
    sealed.clear();
    res.sealed = sealed;
}

pub(super) fn why_of(failure: Failure) -> Cause {
    match failure {
        Failure::PlainHttp => Cause::PlainOnTls,
        Failure::Garbage => Cause::TlsMalformed,
        Failure::Version => Cause::TlsVersion,
        Failure::NoCommonParameters => Cause::TlsNoCommonParameters,
        Failure::NoCertificate => Cause::TlsNoCertificate,
        Failure::Expired => Cause::TlsExpired,
        Failure::UnknownIssuer => Cause::TlsUnknownIssuer,
        Failure::WrongName => Cause::TlsWrongName,
        Failure::BadCertificate => Cause::TlsBadCertificate,
        Failure::Alert(_) => Cause::TlsAlert,
        Failure::BadRecord => Cause::TlsBadRecord,
        Failure::Misbehaved => Cause::TlsMisbehaved,
        Failure::Internal => Cause::TlsInternal,
    }
}
