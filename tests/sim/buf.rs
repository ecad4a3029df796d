//! Bytes in a socket of the simulated kernel.

/// A queue of bytes that keeps its memory.
#[derive(Debug, Default)]
pub struct Buf {
    bytes: Vec<u8>,
    head: usize,
    /// Bytes consumed since the beginning: positions in the stream.
    pub passed: u64,
}

impl Buf {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.head..]
    }

    /// The last `n` bytes, or all.
    pub fn tail_mut(&mut self, n: usize) -> &mut [u8] {
        let start = self.bytes.len() - n.min(self.len());
        &mut self.bytes[start..]
    }

    pub fn push(&mut self, more: &[u8]) {
        if self.head > 1 << 16 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    pub fn consume(&mut self, n: usize) {
        self.head += n;
        self.passed += n as u64;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
    }

    pub fn end(&self) -> u64 {
        self.passed + self.len() as u64
    }

    pub fn reset(&mut self) {
        self.bytes.clear();
        (self.head, self.passed) = (0, 0);
    }
}
