//! `traceparent` (W3C Trace Context, section 3.2): read one, write the one of our own hop.

use crate::text;

/// What the proxy sends upstream as `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trace {
    id: u128,
    span: u64,
    flags: u8,
}

/// Flags that are defined: sampled, random trace-id. "Vendors MUST set [the others] to zero."
const FLAGS: u8 = 0x03;
const SAMPLED: u8 = 0x01;

impl Trace {
    /// The trace of a `traceparent` value with a new span.
    pub fn continued(value: &[u8], seed: &[u8; 24]) -> Option<Trace> {
        let (head, tail) = value.split_at_checked(55)?;
        let [v0, v1, b'-', rest @ ..] = head else { return None };
        // Version ff is forbidden; a later version than 00 may have more behind a dash.
        match (hex(&[*v0, *v1])?, tail) {
            (0xff, _) => return None,
            (0, []) | (1.., [] | [b'-', ..]) => {}
            _ => return None,
        }
        let (id, rest) = rest.split_first_chunk::<32>()?;
        let (span, flags) = rest.strip_prefix(b"-")?.split_first_chunk::<16>()?;
        let (id, sender, flags) = (hex(id)?, hex(span)?, hex(flags.strip_prefix(b"-")?)?);
        if id == 0 || sender == 0 {
            return None;
        }
        Some(Trace { id, span: span_of(seed), flags: flags as u8 & FLAGS })
    }

    /// A new trace; sampled, so that the collector decides.
    pub fn started(seed: &[u8; 24]) -> Trace {
        let id = seed.iter().skip(8).fold(0, |id, byte| id << 8 | u128::from(*byte));
        // All zeros is no id.
        Trace { id: id.max(1), span: span_of(seed), flags: SAMPLED }
    }

    /// The value of the field.
    pub fn value(&self) -> [u8; 55] {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (id, span, flags) = (self.id.to_be_bytes(), self.span.to_be_bytes(), [self.flags]);
        for (part, bytes) in [(3..35, id.as_slice()), (36..52, &span), (53..55, &flags)] {
            text::write_hex(bytes, value.get_mut(part).unwrap_or_default());
        }
        value
    }
}

fn span_of(seed: &[u8; 24]) -> u64 {
    seed.iter().take(8).fold(0, |span, byte| span << 8 | u64::from(*byte)).max(1)
}

/// Lower-case hex only, as the format demands; at most 32 digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 24] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];

    #[test]
    fn valid_traces_are_continued_with_a_new_span() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cases = [
            (format!("00-{id}-00f067aa0ba902b7-01"), "01"),
            (format!("00-{id}-00f067aa0ba902b7-00"), "00"),
            (format!("00-{id}-00f067aa0ba902b7-ff"), "03"),
            (format!("cc-{id}-00f067aa0ba902b7-01"), "01"),
            (format!("cc-{id}-00f067aa0ba902b7-01-what-comes-later"), "01"),
        ];
        for (value, flags) in cases {
            let trace = Trace::continued(value.as_bytes(), &SEED).expect(&value);
            assert_eq!(&trace.value()[..], format!("00-{id}-0102030405060708-{flags}").as_bytes(), "{value}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cases = [
            String::new(),
            "00".into(),
            format!("ff-{id}-00f067aa0ba902b7-01"),
            format!("00-{id}-00f067aa0ba902b7-01-more"),
            format!("cc-{id}-00f067aa0ba902b7-01more"),
            format!("00-{}-00f067aa0ba902b7-01", id.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-00f067aa0ba902b7-0"),
            format!("00-{id}-00f067aa0ba902b7-0g"),
            format!("00_{id}_00f067aa0ba902b7_01"),
            format!("0g-{id}-00f067aa0ba902b7-01"),
        ];
        for value in cases {
            assert_eq!(Trace::continued(value.as_bytes(), &SEED), None, "{value}");
        }
    }

    #[test]
    fn a_new_trace_takes_its_ids_from_the_seed_and_they_are_never_zero() {
        assert_eq!(Trace::started(&SEED).value(), *b"00-090a0b0c0d0e0f101112131415161718-0102030405060708-01");
        assert_eq!(Trace::started(&[0; 24]).value(), *b"00-00000000000000000000000000000001-0000000000000001-01");
    }
}
