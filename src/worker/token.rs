//! Tokens: what an event is about, packed into the 64 bits that come back from poll.
//!
//! `kind:3 gen:27 slot:32 role:2`. The generation tells a live slot from an event meant for the one
//! before.

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The inbox has something.
    Waker,
    /// A listener, by its number in this worker.
    Listener(u32),
    /// A connection of a pair.
    Pair(SlotKey, Role),
    /// A connection of a call, a request of our own.
    Call(SlotKey, Role),
    /// The connection of a shadow.
    Shadow(SlotKey, Role),
    /// A connection to an endpoint that pairs have one after the other.
    Link(SlotKey),
}

/// A slot and the generation it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotKey {
    pub slot: u32,
    /// Of 27 bits.
    pub generation: u32,
}

/// Which connection of a pair, or of a call. Every attempt to reach the upstream has another role
/// than the one before, so that an event of a dropped attempt is not taken for one of its
/// successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role(u8);

const GENERATION_MASK: u32 = (1 << 27) - 1;

impl Role {
    pub const DOWNSTREAM: Role = Role(0);
    pub const FIRST_ATTEMPT: Role = Role(1);

    /// The role of the next attempt.
    pub fn next_attempt(self) -> Role {
        Role(self.0 % 3 + 1)
    }
}

impl SlotKey {
    /// The generation after `generation`, within its 27 bits.
    pub fn next_generation(generation: u32) -> u32 {
        (generation + 1) & GENERATION_MASK
    }
}

impl Token {
    pub fn pack(self) -> usize {
        let (kind, generation, slot, role) = match self {
            Token::Waker => (0, 0, 0, 0),
            Token::Listener(slot) => (1, 0, slot, 0),
            Token::Pair(key, role) => (2, key.generation, key.slot, role.0),
            Token::Call(key, role) => (3, key.generation, key.slot, role.0),
            Token::Shadow(key, role) => (4, key.generation, key.slot, role.0),
            Token::Link(key) => (5, key.generation, key.slot, 0),
        };
        let generation = u64::from(generation & GENERATION_MASK);
        (kind << 61 | generation << 34 | u64::from(slot) << 2 | u64::from(role & 3)) as usize
    }

    /// `None` for what was never packed.
    #[inline]
    pub fn unpack(packed: usize) -> Option<Token> {
        let packed = packed as u64;
        let slot = (packed >> 2) as u32;
        let key = SlotKey { slot, generation: (packed >> 34) as u32 & GENERATION_MASK };
        match packed >> 61 {
            0 => Some(Token::Waker),
            1 => Some(Token::Listener(slot)),
            2 => Some(Token::Pair(key, Role(packed as u8 & 3))),
            3 => Some(Token::Call(key, Role(packed as u8 & 3))),
            4 => Some(Token::Shadow(key, Role(packed as u8 & 3))),
            5 => Some(Token::Link(key)),
            _ => None,
        }
    }
}

// The packing needs them all.
const _: () = assert!(usize::BITS == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back_from_the_bits_it_was_packed_into() {
        let key = |slot, generation| SlotKey { slot, generation };
        let mut role = Role::DOWNSTREAM;
        for slot in [0, 1, 77, u32::MAX] {
            for generation in [0, 1, GENERATION_MASK] {
                for token in [
                    Token::Waker,
                    Token::Listener(slot),
                    Token::Pair(key(slot, generation), role),
                    Token::Call(key(slot, generation), role),
                    Token::Shadow(key(slot, generation), role),
                    Token::Link(key(slot, generation)),
                ] {
                    assert_eq!(Token::unpack(token.pack()), Some(token));
                }
                role = role.next_attempt();
            }
        }
        assert_eq!(Token::unpack(usize::MAX), None);
    }

    #[test]
    fn generations_wrap_and_tries_never_repeat_at_once() {
        assert_eq!(SlotKey::next_generation(GENERATION_MASK), 0);
        let (first, second) = (Role::FIRST_ATTEMPT, Role::FIRST_ATTEMPT.next_attempt());
        let third = second.next_attempt();
        assert!(first != second && second != third && third != first);
        assert!(![first, second, third].contains(&Role::DOWNSTREAM));
        assert_eq!(third.next_attempt(), first);
    }
}
