//! The wait in a gRPC status's details: `google.rpc.RetryInfo`.

use std::time::Duration;

use http::HeaderMap;

use super::{Hint, names};

/// The wait in `grpc-status-details-bin`, the longest if there are several; [`Hint::None`] if it is
/// absent or malformed.
///
/// The header is a `google.rpc.Status` in base64, with or without padding. Its details are
/// `google.protobuf.Any`; a `google.rpc.RetryInfo` among them has a `retry_delay`. A negative delay
/// counts as none.
///
/// Sources: gRPC's `PROTOCOL-HTTP2.md` ("Status-Details"), googleapis' `google/rpc/status.proto` and
/// `google/rpc/error_details.proto`.
pub(super) fn read(headers: &HeaderMap) -> Hint {
    let value = headers.get(&names::GRPC_STATUS_DETAILS);
    let details = value.and_then(|value| decode_base64(value.as_bytes().trim_ascii()));
    details.and_then(|details| of_status(&details)).unwrap_or(Hint::None)
}

/// `google.rpc.Status`: `repeated Any details = 3`.
fn of_status(status: &[u8]) -> Option<Hint> {
    let mut longest = Hint::None;
    for_each_field(status, |number, value| {
        if let (3, Value::Bytes(any)) = (number, value) {
            longest = longest.max(of_any(any)?);
        }
        Some(())
    })?;
    Some(longest)
}

/// `google.protobuf.Any`: `string type_url = 1; bytes value = 2`.
fn of_any(any: &[u8]) -> Option<Hint> {
    let (mut kind, mut content) = (&b""[..], &b""[..]);
    for_each_field(any, |number, value| {
        match (number, value) {
            (1, Value::Bytes(text)) => kind = text,
            (2, Value::Bytes(bytes)) => content = bytes,
            _ => {}
        }
        Some(())
    })?;
    if kind.ends_with(b"/google.rpc.RetryInfo") { of_retry_info(content) } else { Some(Hint::None) }
}

/// `google.rpc.RetryInfo`: `Duration retry_delay = 1`, which is `int64 seconds = 1; int32 nanos = 2`.
fn of_retry_info(info: &[u8]) -> Option<Hint> {
    let mut delay = None;
    for_each_field(info, |number, value| {
        if let (1, Value::Bytes(duration)) = (number, value) {
            // Fragments of one message are merged, and the last value of a field wins.
            let (seconds, nanos) = delay.get_or_insert((0, 0));
            for_each_field(duration, |number, value| {
                match (number, value) {
                    (1, Value::Number(number)) => *seconds = number.cast_signed(),
                    (2, Value::Number(number)) => *nanos = number.cast_signed(),
                    _ => {}
                }
                Some(())
            })?;
        }
        Some(())
    })?;
    let Some((seconds, nanos)) = delay else { return Some(Hint::None) };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return Some(Hint::None);
    };
    let wait = Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into()));
    Some(Hint::from_wait(wait))
}

/// A field of a protobuf message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed-size number, which no message here contains.
    Fixed,
}

/// Calls `on` with the number and the value of each field; `None` if the bytes are not a message, or
/// if `on` returns it.
fn for_each_field<'a>(
    mut message: &'a [u8],
    mut on: impl FnMut(u64, Value<'a>) -> Option<()>,
) -> Option<()> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)?),
            1 => message.split_off(..8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Value::Bytes(message.split_off(..length)?)
            }
            5 => message.split_off(..4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        on(key >> 3, value)?;
    }
    Some(())
}

/// A number of up to ten bytes, seven bits each, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Decodes base64 (RFC 4648 section 4) with optional padding.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"=").map_or(text, |text| text.strip_suffix(b"=").unwrap_or(text));
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for &letter in group {
            bits = bits << 6 | u32::from(sextet(letter)?);
        }
        let whole = match group.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    Some(bytes)
}

const fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::classify::heads::head;

    /// A field whose value is shorter than 128 bytes.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len().try_into().unwrap()], value].concat()
    }

    fn number(field: u8, mut value: u64) -> Vec<u8> {
        let mut bytes = vec![field << 3];
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    fn delay(seconds: i64, nanos: i64) -> Vec<u8> {
        [number(1, seconds.cast_unsigned()), number(2, nanos.cast_unsigned())].concat()
    }

    fn detail(kind: &str, value: &[u8]) -> Vec<u8> {
        let kind = format!("type.googleapis.com/google.rpc.{kind}");
        bytes(3, &[bytes(1, kind.as_bytes()), bytes(2, value)].concat())
    }

    fn retry_info(seconds: i64, nanos: i64) -> Vec<u8> {
        detail("RetryInfo", &bytes(1, &delay(seconds, nanos)))
    }

    fn encode_base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let letters = bytes.chunks(3).flat_map(|group| {
            let mut bits = [0; 4];
            bits[1..=group.len()].copy_from_slice(group);
            let bits = u32::from_be_bytes(bits);
            (0..=group.len()).map(move |at| LETTERS[(bits >> (18 - 6 * at)) as usize & 63] as char)
        });
        letters.collect()
    }

    fn hint(status: &[u8]) -> Hint {
        read(&head(&[("grpc-status-details-bin", &encode_base64(status))]))
    }

    fn after(nanos: u64) -> Hint {
        Hint::After(Duration::from_nanos(nanos))
    }

    #[test]
    fn the_delay_of_a_status_is_read() {
        // Code 8, "slow down", and 1.5 s.
        let text = "CAgSCXNsb3cgZG93bho2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoK\
                    CAgBEIDKte4B";
        assert_eq!(read(&head(&[("grpc-status-details-bin", text)])), after(1_500_000_000));
        assert_eq!(read(&HeaderMap::new()), Hint::None);
    }

    #[test]
    fn padding_may_be_there_or_not() {
        for text in ["", "a", "ab", "abc"] {
            let status = [bytes(2, text.as_bytes()), retry_info(1, 0)].concat();
            let letters = encode_base64(&status);
            let padded = format!(
                " {letters}{} ",
                "=".repeat(letters.len().next_multiple_of(4) - letters.len())
            );
            for text in [letters, padded] {
                assert_eq!(
                    read(&head(&[("grpc-status-details-bin", &text)])),
                    after(1_000_000_000)
                );
            }
        }
    }

    #[test]
    fn other_details_are_passed_over_and_the_longest_delay_counts() {
        let status = [
            number(1, 8),
            bytes(2, b"slow down"),
            detail("DebugInfo", b"\x0a\x02hi"),
            retry_info(0, 5),
            retry_info(2, 0),
            retry_info(1, 999_999_999),
        ];
        assert_eq!(hint(&status.concat()), after(2_000_000_000));
        assert_eq!(hint(&status[..3].concat()), Hint::None);
    }

    #[test]
    fn a_delay_is_a_wait_within_the_bounds_of_a_hint() {
        assert_eq!(hint(&retry_info(0, 0)), Hint::Zero);
        assert_eq!(hint(&detail("RetryInfo", &bytes(1, b""))), Hint::Zero);
        assert_eq!(hint(&detail("RetryInfo", b"")), Hint::None);
        assert_eq!(hint(&retry_info(-1, 0)), Hint::None);
        assert_eq!(hint(&retry_info(0, -1)), Hint::None);
        assert_eq!(hint(&retry_info(86_400, 0)), Hint::After(Hint::LONGEST));
        assert_eq!(hint(&retry_info(86_400, 1)), Hint::TooLong);
        assert_eq!(hint(&retry_info(i64::MAX, i64::from(u32::MAX))), Hint::TooLong);
    }

    #[test]
    fn what_is_no_status_asks_for_nothing() {
        let whole = retry_info(1, 0);
        for length in 1..whole.len() {
            assert_eq!(hint(&whole[..length]), Hint::None, "{length} bytes");
        }
        let endless = [&[0xff; 11][..], &whole].concat();
        assert_eq!(hint(&endless), Hint::None);
        let group = [&whole[..], &[0x0b]].concat();
        assert_eq!(hint(&group), Hint::None);
        for text in ["A", "====", "Gg*", "\u{20ac}", "GgA=GgA="] {
            assert_eq!(read(&head(&[("grpc-status-details-bin", text)])), Hint::None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_passed_over(text in any::<Vec<u8>>(), status in any::<Vec<u8>>()) {
            _ = decode_base64(&text);
            prop_assert_eq!(decode_base64(encode_base64(&status).as_bytes()), Some(status.clone()));
            _ = of_status(&status);
        }
    }
}
