//! The built-in service: every byte comes back, in order, unchanged.

use crate::{
    link::{READS_IN_A_ROW, with_buffer},
    service::{Service, Socket},
};
use std::io::{self, ErrorKind};
use tokio::io::AsyncWriteExt;

/// Sends back what it receives until the input ends.
///
/// An idle connection holds no buffer. What the client does not read back is held once, bounded by one buffer, and nothing
/// more is read until it is gone: the client feels it as back-pressure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Service for Echo {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut in_a_row = 0;
        loop {
            match echo_once(socket)? {
                Step::Echoed => in_a_row += 1,
                Step::Quiet => {
                    socket.readable().await?;
                    in_a_row = 0;
                }
                Step::Owing(bytes) => socket.write_all(&bytes).await?,
                Step::End => return Ok(()),
            }
            if in_a_row == READS_IN_A_ROW {
                tokio::task::yield_now().await;
                in_a_row = 0;
            }
        }
    }
}

enum Step {
    Echoed,
    Quiet,
    /// What the socket did not take: a copy, since the buffer is the thread's.
    Owing(Box<[u8]>),
    End,
}

fn echo_once(socket: &Socket) -> io::Result<Step> {
    with_buffer(|buffer| {
        let n = match socket.try_read(buffer) {
            Ok(0) => return Ok(Step::End),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Quiet),
            Err(error) => return Err(error),
        };
        let written = match socket.try_write(&buffer[..n]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            written => written?,
        };
        Ok(if written == n { Step::Echoed } else { Step::Owing(buffer[written..n].into()) })
    })
}
