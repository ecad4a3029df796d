//! Bytes that wait for a slow receiver: chunks of a pool, and the backlog of one flow made of them.
//! A healthy connection owns none. The pool keeps a reserve, so that a read whose destination takes
//! bytes always goes ahead.
//!
//! `used + RESERVE <= max` between two reads; the worker ends the longest-stalled session to make
//! it so again.

use super::sys::{PipeId, Sys};
use crate::memory::PIPES_MAX;
use crate::proto::Millis;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Bytes of one read, and so the most that one read can leave behind.
pub use crate::memory::SCRATCH_BYTES;
pub const CHUNK_BYTES: usize = 16 * 1024;
/// One scratch, a chunk for what TLS adds to it, and one for what the proxy itself does.
const RESERVE: usize = SCRATCH_BYTES / CHUNK_BYTES + 2;
/// Chunks kept for the next one in need; more go back to the allocator.
const FREE_MAX: usize = 64;
/// Chunks of one vectored send.
const SLICES_MAX: usize = 16;

type Chunk = Box<[u8; CHUNK_BYTES]>;

/// Chunks of one worker. Counts all that are out; keeps a few that came back.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Chunk>,
    used: usize,
    max: usize,
    /// Empty pipes, those to be closed since bytes are left in them, and how many there are in all.
    pipes: Vec<PipeId>,
    spoilt: Vec<PipeId>,
    pipe_count: usize,
}

impl Pool {
    /// At most `bytes` for all backlogs together, but never less than two reserves.
    pub fn new(bytes: usize) -> Pool {
        let (pipes, spoilt) = (Vec::new(), Vec::new());
        Pool { free: Vec::new(), used: 0, max: Pool::chunks(bytes), pipes, spoilt, pipe_count: 0 }
    }

    fn chunks(bytes: usize) -> usize {
        (bytes / CHUNK_BYTES).max(2 * RESERVE)
    }

    pub fn set_max(&mut self, bytes: usize) {
        self.max = Pool::chunks(bytes);
    }

    /// The reserve has been touched.
    #[inline]
    pub fn is_short(&self) -> bool {
        self.used + RESERVE > self.max
    }

    pub fn used_bytes(&self) -> usize {
        self.used * CHUNK_BYTES
    }

    /// An empty pipe, `None` where there is none to be had.
    pub fn take_pipe<S: Sys>(&mut self, sys: &mut S) -> Option<PipeId> {
        for pipe in self.spoilt.drain(..) {
            sys.close_pipe(pipe);
            self.pipe_count -= 1;
        }
        if let Some(pipe) = self.pipes.pop() {
            return Some(pipe);
        }
        // Where descriptors are short, the ordinary way needs none.
        let pipe = if self.pipe_count < PIPES_MAX { sys.pipe().ok() } else { None }?;
        self.pipe_count += 1;
        Some(pipe)
    }

    /// Closes the pipes that are not in use.
    pub fn close_pipes<S: Sys>(&mut self, sys: &mut S) {
        for pipe in self.pipes.drain(..).chain(self.spoilt.drain(..)) {
            sys.close_pipe(pipe);
        }
        self.pipe_count = 0;
    }

    /// It is empty again.
    pub fn give_pipe(&mut self, pipe: PipeId) {
        self.pipes.push(pipe);
    }

    /// Whatever is left in it is of no use any more.
    pub fn spoil_pipe(&mut self, pipe: PipeId) {
        self.spoilt.push(pipe);
    }

    fn take(&mut self) -> Chunk {
        self.used += 1;
        self.free.pop().unwrap_or_else(|| Box::new([0; CHUNK_BYTES]))
    }

    fn give(&mut self, chunk: Chunk) {
        self.used -= 1;
        if self.free.len() < FREE_MAX {
            self.free.push(chunk);
        }
    }
}

/// What one receiver has not taken yet, in order. Never empty while it exists.
#[derive(Debug)]
pub struct Backlog {
    /// A pipe and how many bytes are in it; they come before the chunks.
    pipe: Option<(PipeId, usize)>,
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that have left.
    start: usize,
    /// Bytes that wait.
    len: usize,
    /// Since when the receiver has taken nothing.
    pub stalled_since: Millis,
}

impl Backlog {
    pub fn new(now: Millis) -> Backlog {
        Backlog { pipe: None, chunks: VecDeque::new(), start: 0, len: 0, stalled_since: now }
    }

    /// What the receiver did not take out of a pipe.
    pub fn of_pipe(now: Millis, pipe: PipeId, held: usize) -> Backlog {
        Backlog { pipe: Some((pipe, held)), ..Backlog::new(now) }
    }

    pub fn pipe(&self) -> Option<(PipeId, usize)> {
        self.pipe
    }

    /// The first `n` bytes of the pipe have left; an empty one goes back.
    pub fn advance_pipe(&mut self, n: usize, pool: &mut Pool) {
        let Some((pipe, held)) = &mut self.pipe else { return };
        *held -= n.min(*held);
        if *held == 0 {
            pool.give_pipe(*pipe);
            self.pipe = None;
        }
    }

    /// The receiver will take nothing any more.
    pub fn forget(&mut self, pool: &mut Pool) {
        if let Some((pipe, _)) = self.pipe.take() {
            pool.spoil_pipe(pipe);
        }
        self.advance(self.len, pool);
    }

    /// Bytes that wait, those in a pipe not included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0 && self.pipe.is_none()
    }

    /// The receiver `took` some of it.
    pub fn touch(&mut self, took: bool, now: Millis) {
        if took {
            self.stalled_since = now;
        }
    }

    pub fn push(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        while !bytes.is_empty() {
            let end = (self.start + self.len) % CHUNK_BYTES;
            if self.start + self.len == self.chunks.len() * CHUNK_BYTES {
                self.chunks.push_back(pool.take());
            }
            let Some(room) = self.chunks.back_mut().and_then(|chunk| chunk.get_mut(end..)) else { return };
            let n = room.len().min(bytes.len());
            let (now, later) = bytes.split_at(n);
            if let Some(room) = room.get_mut(..n) {
                room.copy_from_slice(now);
            }
            self.len += n;
            bytes = later;
        }
    }

    /// The first chunks, for one vectored send.
    pub fn slices(&self) -> ([IoSlice<'_>; SLICES_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut skip, mut left, mut count) = (self.start, self.len, 0);
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let n = (CHUNK_BYTES - skip).min(left);
            *slice = IoSlice::new(chunk.get(skip..skip + n).unwrap_or(&[]));
            (skip, left, count) = (0, left - n, count + 1);
        }
        (slices, count)
    }

    /// The first `n` bytes have left.
    pub fn advance(&mut self, n: usize, pool: &mut Pool) {
        debug_assert!(n <= self.len);
        self.len -= n.min(self.len);
        self.start += n;
        while self.start >= CHUNK_BYTES || (self.len == 0 && !self.chunks.is_empty()) {
            self.start = self.start.saturating_sub(CHUNK_BYTES);
            if let Some(chunk) = self.chunks.pop_front() {
                pool.give(chunk);
            }
        }
    }

    /// Gives everything back.
    pub fn drop_all(mut self, pool: &mut Pool) {
        self.forget(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_comes_out_is_what_went_in_and_every_chunk_comes_back(
            steps in proptest::collection::vec((0usize..40_000, 0usize..60_000), 1..30)
        ) {
            let mut pool = Pool::new(1 << 20);
            let mut backlog = Backlog::new(0);
            let (mut expect, mut next) = (VecDeque::<u8>::new(), 0u8);
            for (push, take) in steps {
                let mut byte = || {
                    next = next.wrapping_mul(31).wrapping_add(7);
                    next
                };
                let bytes: Vec<u8> = (0..push).map(|_| byte()).collect();
                expect.extend(&bytes);
                backlog.push(&bytes, &mut pool);
                prop_assert_eq!(backlog.len, expect.len());
                let (slices, count) = backlog.slices();
                let first: Vec<u8> = slices[..count].iter().flat_map(|s| s.iter().copied()).take(take).collect();
                prop_assert!(expect.iter().take(first.len()).eq(first.iter()));
                expect.drain(..first.len());
                backlog.advance(first.len(), &mut pool);
            }
            prop_assert!(pool.used * CHUNK_BYTES < backlog.len + 2 * CHUNK_BYTES);
            backlog.drop_all(&mut pool);
            prop_assert_eq!(pool.used, 0);
        }
    }

    #[test]
    fn the_pool_is_short_when_less_than_a_read_is_left() {
        let mut pool = Pool::new(20 * CHUNK_BYTES);
        let mut out = Vec::new();
        while !pool.is_short() {
            out.push(pool.take());
        }
        assert_eq!(out.len(), 20 - RESERVE + 1);
        let mut last = Backlog::new(0);
        last.push(&vec![0; SCRATCH_BYTES], &mut pool);
        assert!(pool.used <= 20, "the reserve holds one more read");
        last.drop_all(&mut pool);
        for chunk in out {
            pool.give(chunk);
        }
        assert!(!pool.is_short());
    }
}
