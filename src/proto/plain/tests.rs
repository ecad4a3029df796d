//! Plain HTTP messages.
