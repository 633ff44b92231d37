//! Compares an echo with what was sent, byte by byte, in pieces of any size.
//!
//! Pure: it uses no socket and no clock. It compares with what has been sent *so far*. So a byte that comes before the one
//! that it echoes is wrong, like one that comes behind the last.

/// Bytes of an excerpt: enough to recognise them, and few enough for a line in a log.
const EXCERPT: usize = 16;

/// The first byte that is not the echo of what was sent, and the bytes there, as in source code (`\n`, `\xb0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// From the beginning of the message.
    pub offset: u64,
    /// The bytes that should have come from there on; empty if no more should have come.
    pub expected: String,
    /// The bytes that came instead.
    pub got: String,
}

impl Difference {
    /// `bytes` have come behind the whole echo of a message of this length.
    pub fn surplus(length: u64, bytes: &[u8]) -> Self {
        Self { offset: length, expected: String::new(), got: excerpt(bytes) }
    }
}

/// How much of one echo has come.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    verified: usize,
}

impl Verifier {
    /// Takes the next piece and compares it with the message as far as that has been `sent`.
    ///
    /// # Errors
    /// The first difference.
    pub fn receive(&mut self, sent: &[u8], piece: &[u8]) -> Result<(), Difference> {
        let due = &sent[self.verified..];
        let same = if due.starts_with(piece) {
            piece.len()
        } else {
            due.iter().zip(piece).take_while(|(due, got)| due == got).count()
        };
        self.verified += same;
        if same == piece.len() {
            return Ok(());
        }
        Err(Difference { offset: self.verified as u64, expected: excerpt(&due[same..]), got: excerpt(&piece[same..]) })
    }

    /// Bytes that have come and are right.
    pub fn verified(&self) -> usize {
        self.verified
    }
}

fn excerpt(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(EXCERPT)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn received(sent: &[u8], pieces: &[&[u8]]) -> Result<usize, Difference> {
        let mut verifier = Verifier::default();
        pieces.iter().try_for_each(|piece| verifier.receive(sent, piece)).map(|()| verifier.verified())
    }

    fn difference(offset: u64, expected: &str, got: &str) -> Difference {
        Difference { offset, expected: expected.into(), got: got.into() }
    }

    #[test]
    fn a_prefix_differs_at_the_first_byte() {
        assert_eq!(received(b"ping\n", &[b"> ping\n"]), Err(difference(0, r"ping\n", r"> ping\n")));
    }

    #[test]
    fn a_difference_in_a_later_piece_is_counted_from_the_beginning() {
        assert_eq!(received(b"ping\n", &[b"pi", b"nG\n"]), Err(difference(3, r"g\n", r"G\n")));
    }

    #[test]
    fn a_byte_behind_the_echo_differs_at_its_end() {
        assert_eq!(received(b"ping\n", &[b"ping\n\0"]), Err(difference(5, "", r"\x00")));
        assert_eq!(received(b"ping\n", &[b"ping\n", b"\0"]), Err(difference(5, "", r"\x00")));
        assert_eq!(Difference::surplus(5, b"\0"), difference(5, "", r"\x00"));
    }

    #[test]
    fn a_byte_that_comes_before_it_was_sent_is_wrong_though_it_is_the_right_one() {
        let mut verifier = Verifier::default();
        assert_eq!(verifier.receive(b"pin", b"ping"), Err(difference(3, "", "g")));
    }

    #[test]
    fn an_excerpt_is_short_and_names_every_byte() {
        let sent = [b"N\xc2\xb0".as_slice(), &[b'x'; 100]].concat();
        let wrong = difference(1, r"\xc2\xb0xxxxxxxxxxxxxx", &"y".repeat(16));
        assert_eq!(received(&sent, &[b"N", &[b'y'; 100]]), Err(wrong));
    }

    proptest! {
        #[test]
        fn an_echo_is_verified_in_any_pieces(
            sent: Vec<u8>, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..9),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len() + 1)).collect();
            cuts.extend([0, sent.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &sent[cut[0]..cut[1]]).collect();
            prop_assert_eq!(received(&sent, &pieces), Ok(sent.len()));
        }

        #[test]
        fn a_flipped_byte_is_found_at_any_place_and_in_any_pieces(
            sent in prop::collection::vec(any::<u8>(), 1..200), flipped: prop::sample::Index, with in 1..=u8::MAX,
            cut: prop::sample::Index,
        ) {
            let (at, cut) = (flipped.index(sent.len()), cut.index(sent.len()));
            let mut echo = sent.clone();
            echo[at] ^= with;
            let found = received(&sent, &[&echo[..cut], &echo[cut..]]);
            prop_assert_eq!(found.map_err(|difference| difference.offset), Err(at as u64));
        }
    }
}
