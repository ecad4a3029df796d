//! Half-open clients.
