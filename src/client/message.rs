//! What a message says: a text with its number and the client's id, or binary bytes of a given size.
//!
//! Pure.

/// What all messages of one connection have in common.
#[derive(Debug)]
pub(crate) enum Content {
    /// The literal parts of a text. The message's number stands between each two.
    Text(Vec<Vec<u8>>),
    /// So many bytes. Each is a function of client, connection, message and place, so that no two can be mixed up unseen.
    Binary { client: u64, connection: u64, size: usize },
}

impl Content {
    /// `{id}` and `{n}` in the template are filled in, and a newline is added. Braces that come with the id are not filled
    /// in again.
    pub fn text(template: &str, id: &str) -> Self {
        let mut parts = vec![Vec::new()];
        for (n, literal) in template.split("{id}").enumerate() {
            let mut between_numbers = literal.split("{n}").map(str::as_bytes);
            let last = parts.last_mut().expect("it begins with one");
            last.extend_from_slice(if n > 0 { id.as_bytes() } else { b"" });
            last.extend_from_slice(between_numbers.next().unwrap_or_default());
            parts.extend(between_numbers.map(<[u8]>::to_vec));
        }
        parts.last_mut().expect("it begins with one").push(b'\n');
        Self::Text(parts)
    }

    /// Bytes that are a connection's own.
    pub fn binary(id: &str, connection: usize, size: usize) -> Self {
        let client = id.bytes().fold(0, |hash, byte| scrambled(hash ^ u64::from(byte)));
        Self::Binary { client, connection: connection as u64, size }
    }

    /// The length of the `n`th message.
    pub fn length(&self, n: u64) -> usize {
        match self {
            Self::Text(parts) => {
                let digits = n.checked_ilog10().map_or(1, |tens| tens as usize + 1);
                parts.iter().map(Vec::len).sum::<usize>() + digits * (parts.len() - 1)
            }
            Self::Binary { size, .. } => *size,
        }
    }

    /// Appends the `n`th message.
    pub fn write(&self, n: u64, bytes: &mut Vec<u8>) {
        match self {
            Self::Text(parts) => {
                bytes.extend_from_slice(&parts[0]);
                for part in &parts[1..] {
                    // Each message has a number, and `write!` takes its detours.
                    bytes.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
                    bytes.extend_from_slice(part);
                }
            }
            Self::Binary { client, connection, size } => {
                let begin = scrambled(client ^ connection.rotate_left(32) ^ n);
                let words = (0..size.div_ceil(8) as u64).flat_map(|word| scrambled(begin ^ word).to_le_bytes());
                bytes.extend(words.take(*size));
            }
        }
    }
}

/// A number in which every bit depends on every bit of the given one (the finalizer of SplitMix64).
fn scrambled(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content: &Content, n: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.write(n, &mut bytes);
        assert_eq!(bytes.len(), content.length(n), "{n}");
        bytes
    }

    #[test]
    fn a_message_is_as_long_as_it_says() {
        for n in [0, 9, 10, 99, 100, u64::MAX] {
            for template in ["", "{n}", "{n} {id} {n}"] {
                message(&Content::text(template, "c-{n}"), n);
            }
            message(&Content::binary("c", 1, 9), n);
        }
    }

    #[test]
    fn a_message_has_its_id_and_number_filled_in_and_a_newline_added() {
        for (template, expected) in [
            ("[CLIENT {id}] Message N°{n}", "[CLIENT {n}] Message N°7\n"),
            ("{n}{n} {id}{id}", "77 {n}{n}\n"),
            ("{x} {", "{x} {\n"),
            ("", "\n"),
        ] {
            assert_eq!(String::from_utf8(message(&Content::text(template, "{n}"), 7)).unwrap(), expected);
        }
    }

    #[test]
    fn every_number_is_written_as_people_write_it() {
        for n in [0, 9, 10, 99, 100, 1_234_567_890, u64::MAX] {
            assert_eq!(message(&Content::text("{n}", ""), n), format!("{n}\n").into_bytes());
        }
    }

    #[test]
    fn a_binary_message_has_its_size_and_differs_from_every_other_at_every_place() {
        let of = |connection, n, size| message(&Content::binary("c-1", connection, size), n);
        for size in [1, 7, 8, 9, 100] {
            assert_eq!(of(1, 1, size).len(), size);
        }
        let one = of(1, 1, 64);
        assert_eq!(one, of(1, 1, 64), "the same message is the same");
        let of_another_client = message(&Content::binary("c-2", 1, 64), 1);
        for other in
            [of_another_client, of(2, 1, 64), of(1, 2, 64), one[8..].iter().chain(&one[..8]).copied().collect()]
        {
            let alike = one.iter().zip(&other).filter(|(one, other)| one == other).count();
            assert!(alike < 8, "{alike} of 64 bytes are alike");
        }
    }
}
