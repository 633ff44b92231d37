//! Messages and their echoes over one stream, and what may come over it unasked.
//!
//! Relies on being the stream's only reader. It uses no clock: the data plane in `session` decides how long to wait.

use crate::{
    buffer::with_buffer,
    client::{
        tally::Lost,
        verify::{Difference, Verifier},
    },
};
use std::{
    collections::VecDeque,
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of messages that are done, before they are removed from the front of the others.
const FORGET: usize = 64 << 10;

/// What came instead of an echo.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The bytes that came are not those that were sent.
    Wrong(Difference),
    /// No more bytes come.
    Lost(Lost),
}

impl Failure {
    fn of(error: ErrorKind) -> Self {
        // The system gives this error to a write if the other side had ended the connection before it was reset.
        Self::Lost(if error == ErrorKind::BrokenPipe { Lost::Closed } else { Lost::Reset })
    }
}

/// The messages that are out on one stream, in their order, and how far their bytes are out and back. `M` is what is known of
/// a message besides its bytes.
///
/// It sends and verifies at the same time: a server may take no more of a large message before some of its echo is read.
pub(crate) struct Pipeline<M> {
    /// The bytes of the messages, and of some that are done.
    bytes: Vec<u8>,
    /// Bytes of messages whose echo is back.
    done: usize,
    /// Bytes that the system has taken.
    sent: usize,
    /// Messages with their lengths.
    out: VecDeque<(M, usize)>,
    /// How many of them are back.
    back: usize,
    /// Of the first that is not back.
    verifier: Verifier,
    write_error: Option<ErrorKind>,
    /// The length of the last echo.
    echoed: usize,
}

impl<M> Default for Pipeline<M> {
    fn default() -> Self {
        let (bytes, out, verifier) = Default::default();
        Self { bytes, done: 0, sent: 0, out, back: 0, verifier, write_error: None, echoed: 0 }
    }
}

impl<M> Pipeline<M> {
    /// Adds a message, which `write` appends to the bytes.
    pub fn push(&mut self, message: M, write: impl FnOnce(&mut Vec<u8>)) {
        // One at a time moves no byte; with many out a few are moved now and then.
        if self.done == self.bytes.len() || self.done > FORGET {
            self.bytes.drain(..self.done);
            self.sent -= self.done;
            self.done = 0;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.out.push_back((message, self.bytes.len() - before));
    }

    /// Whether no message is out.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The first message that is out.
    pub fn first(&self) -> Option<&M> {
        self.out.front().map(|(message, _)| message)
    }

    /// Whether the system has taken all bytes, or takes no more.
    pub fn is_sent(&self) -> bool {
        self.sent == self.bytes.len() || self.write_error.is_some()
    }

    /// Whether the echo of the first message is back.
    pub fn is_back(&self) -> bool {
        self.back > 0
    }

    /// Takes the first message out.
    pub fn pop(&mut self) -> Option<M> {
        self.back = self.back.saturating_sub(1);
        self.out.pop_front().map(|(message, _)| message)
    }

    /// Takes those out of whose echo no byte has come.
    pub fn untouched(&mut self) -> impl DoubleEndedIterator<Item = M> {
        let touched = self.back + usize::from(self.verifier.verified() > 0);
        self.out.split_off(touched.min(self.out.len())).into_iter().map(|(message, _)| message)
    }

    /// The length of the last echo.
    pub fn echoed(&self) -> u64 {
        self.echoed as u64
    }

    /// Sends as much as the stream takes. A failure is kept until there is no more to read: what the server sent before it may
    /// be wrong.
    pub fn poll_send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) {
        while !self.is_sent() {
            match Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(n)) => self.sent += n,
                Poll::Ready(Err(error)) => self.write_error = Some(error.kind()),
                Poll::Pending => return,
            }
        }
    }

    /// Reads once, and verifies what has come. What comes while no message is out is wrong too.
    pub fn poll_receive<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failure>> {
        poll_read(stream, cx, |piece| self.receive(piece))
    }

    fn receive(&mut self, mut piece: &[u8]) -> Result<(), Failure> {
        if piece.is_empty() {
            return Err(self.write_error.map_or(Failure::Lost(Lost::Closed), Failure::of));
        }
        while !piece.is_empty() {
            let Some(&(_, length)) = self.out.get(self.back) else {
                return Err(Failure::Wrong(Difference::surplus(self.echoed(), piece)));
            };
            // The last message takes all the rest: what is behind its echo makes it wrong.
            let is_last = self.out.len() == self.back + 1;
            let share = if is_last { piece.len() } else { piece.len().min(length - self.verifier.verified()) };
            let (own, rest) = piece.split_at(share);
            let sent = &self.bytes[self.done..self.sent.clamp(self.done, self.done + length)];
            self.verifier.receive(sent, own).map_err(Failure::Wrong)?;
            if self.verifier.verified() == length {
                (self.verifier, self.echoed) = (Verifier::default(), length);
                self.done += length;
                self.back += 1;
            }
            piece = rest;
        }
        Ok(())
    }
}

/// Sends one message and waits for its echo.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> Result<(), Failure> {
    let mut pipeline = Pipeline::default();
    pipeline.push((), |bytes| bytes.extend_from_slice(message));
    poll_fn(|cx| {
        pipeline.poll_send(stream, cx);
        while !pipeline.is_back() {
            ready!(pipeline.poll_receive(stream, cx))?;
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Resolves when bytes or an end come while no message is out. The last echo had this many bytes.
pub(crate) async fn unasked<S: AsyncRead + Unpin>(stream: &mut S, echoed: u64) -> Failure {
    let failure = poll_fn(|cx| {
        poll_read(stream, cx, |piece| match piece {
            [] => Err(Failure::Lost(Lost::Closed)),
            piece => Ok(Failure::Wrong(Difference::surplus(echoed, piece))),
        })
    });
    failure.await.unwrap_or_else(|failure| failure)
}

/// Reads into the thread's buffer, so a connection that waits holds none.
fn poll_read<S: AsyncRead + Unpin, T>(
    stream: &mut S,
    cx: &mut Context<'_>,
    take: impl FnOnce(&[u8]) -> Result<T, Failure>,
) -> Poll<Result<T, Failure>> {
    with_buffer(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
        Poll::Ready(read.map_err(|error| Failure::of(error.kind())).and_then(|()| take(buffer.filled())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, duplex};

    /// These messages are out, all of their bytes.
    fn sent(messages: &[&[u8]]) -> Pipeline<usize> {
        let mut pipeline = Pipeline::default();
        for (n, message) in messages.iter().enumerate() {
            pipeline.push(n, |bytes| bytes.extend_from_slice(message));
        }
        pipeline.sent = pipeline.bytes.len();
        pipeline
    }

    fn back(pipeline: &mut Pipeline<usize>) -> Vec<usize> {
        let mut back = Vec::new();
        while pipeline.is_back() {
            back.extend(pipeline.pop());
        }
        back
    }

    #[test]
    fn a_byte_of_an_echo_that_is_another_messages_is_wrong_and_those_before_it_are_back() {
        let mut pipeline = sent(&[b"one", b"two", b"three"]);
        let wrong = Difference { offset: 1, expected: "wo".into(), got: "hr".into() };
        assert_eq!(pipeline.receive(b"onethree"), Err(Failure::Wrong(wrong)));
        assert_eq!((back(&mut pipeline), pipeline.first()), (vec![0], Some(&1)));
    }

    #[test]
    fn what_is_behind_the_last_echo_makes_that_one_wrong() {
        let mut pipeline = sent(&[b"one", b"two"]);
        let wrong = Difference { offset: 3, expected: String::new(), got: "!".into() };
        assert_eq!(pipeline.receive(b"onetwo!"), Err(Failure::Wrong(wrong.clone())));
        assert_eq!((back(&mut pipeline), pipeline.first()), (vec![0], Some(&1)));
        let mut pipeline = sent(&[b"two"]);
        assert_eq!((pipeline.receive(b"two"), back(&mut pipeline)), (Ok(()), vec![0]));
        assert_eq!(pipeline.receive(b"!"), Err(Failure::Wrong(wrong)), "what comes unasked too");
    }

    #[test]
    fn a_message_is_untouched_until_a_byte_of_its_echo_has_come() {
        for (came, untouched) in [(&b"one"[..], &[1, 2][..]), (b"onet", &[2]), (b"onetwot", &[])] {
            let mut pipeline = sent(&[b"one", b"two", b"three"]);
            pipeline.receive(came).unwrap();
            back(&mut pipeline);
            assert_eq!(pipeline.untouched().collect::<Vec<_>>(), untouched);
        }
    }

    proptest! {
        #[test]
        fn echoes_in_any_pieces_are_told_apart_while_new_messages_go_out(
            lengths in prop::collection::vec(1..100_000usize, 1..20), pieces in prop::collection::vec(1..150_000usize, 1..50),
        ) {
            let (mut pipeline, mut echo, mut done) = (Pipeline::default(), VecDeque::new(), Vec::new());
            let mut lengths = lengths.into_iter().enumerate();
            for piece in pieces.into_iter().cycle() {
                if let Some((n, length)) = lengths.next() {
                    let message: Vec<u8> = (0..length).map(|at| (at * 31 + n * 7) as u8).collect();
                    pipeline.push((n, length), |bytes| bytes.extend_from_slice(&message));
                    pipeline.sent = pipeline.bytes.len();
                    echo.extend(message);
                } else if echo.is_empty() {
                    break;
                }
                let piece: Vec<u8> = echo.drain(..piece.min(echo.len())).collect();
                if !piece.is_empty() {
                    prop_assert_eq!(pipeline.receive(&piece), Ok(()));
                }
                while pipeline.is_back() {
                    done.extend(pipeline.pop());
                }
            }
            prop_assert!(pipeline.is_empty() && done.is_sorted_by(|one, next| one.0 + 1 == next.0), "{done:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_while_it_takes_the_message_is_an_early_close() {
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(echo(&mut ours, &[0; 1000]).await, Err(Failure::Lost(Lost::Closed)));
    }

    #[test]
    fn only_a_connection_that_had_been_ended_before_it_failed_was_closed() {
        assert_eq!(Failure::of(ErrorKind::BrokenPipe), Failure::Lost(Lost::Closed));
        assert_eq!(Failure::of(ErrorKind::ConnectionReset), Failure::Lost(Lost::Reset));
        assert_eq!(Failure::of(ErrorKind::TimedOut), Failure::Lost(Lost::Reset));
    }

    #[tokio::test]
    async fn what_comes_before_the_message_is_out_is_wrong_though_it_is_the_same() {
        let (mut ours, mut theirs) = duplex(64);
        theirs.write_all(&[0; 64]).await.unwrap();
        let wrong = Difference { offset: 64, expected: String::new(), got: "\\x00".repeat(16) };
        let psychic = async {
            theirs.write_all(&[0; 64]).await.unwrap();
            std::future::pending().await
        };
        tokio::select! {
            echoed = echo(&mut ours, &[0; 1000]) => assert_eq!(echoed, Err(Failure::Wrong(wrong))),
            () = psychic => {}
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_is_not_taken_for_bytes() {
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        assert_eq!(unasked(&mut ours, 5).await, Failure::Lost(Lost::Closed));
    }
}
