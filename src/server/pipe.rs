//! The one pipe of each thread, for streams in bulk.
//!
//! The kernel moves their bytes from socket to socket through it, and the process copies none. Each use leaves the pipe empty, so
//! all connections of the thread share it.

use crate::buffer::BUFFER;
use rustix::{
    fd::AsFd,
    io::Errno,
    pipe::{SpliceFlags, splice},
};
use std::{
    cell::Cell,
    io::{self, PipeReader, PipeWriter, Read},
};

thread_local! {
    /// Made when it is first needed.
    static SHARED: Cell<Option<Pipe>> = const { Cell::new(None) };
}

pub(crate) struct Pipe {
    output: PipeReader,
    input: PipeWriter,
}

/// Lends the thread's pipe for one use, which leaves it empty or fails. `None` if the system gives no pipe.
pub(crate) fn with_pipe<T>(use_it: impl FnOnce(&Pipe) -> io::Result<T>) -> io::Result<Option<T>> {
    let Some(pipe) = SHARED.take().or_else(|| Pipe::new().ok()) else { return Ok(None) };
    // If the use fails, bytes of its client may be left in the pipe. Then the pipe is closed here.
    let used = use_it(&pipe)?;
    SHARED.set(Some(pipe));
    Ok(Some(used))
}

impl Pipe {
    fn new() -> io::Result<Self> {
        io::pipe().map(|(output, input)| Self { output, input })
    }

    /// Moves in what a socket has received, at most one buffer. Gives 0 if nothing is there, if the input has ended, and where
    /// the system has no such move.
    pub fn move_in(&self, socket: impl AsFd) -> io::Result<usize> {
        match splice(socket, None, &self.input, None, BUFFER, SpliceFlags::NONBLOCK) {
            Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS | Errno::PERM) => Ok(0),
            moved => Ok(moved?),
        }
    }

    /// Moves out as many of `n` bytes as a socket takes. Gives `WouldBlock` if it takes nothing.
    pub fn move_out(&self, socket: impl AsFd, n: usize) -> io::Result<usize> {
        Ok(splice(&self.output, None, socket, None, n, SpliceFlags::NONBLOCK)?)
    }

    /// Copies out `n` bytes, the last ones in it.
    pub fn copy_out(&self, n: usize) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; n].into_boxed_slice();
        (&self.output).read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::connection;
    use rustix::{fd::OwnedFd, io::ioctl_fionread};
    use std::{fs::File, io::ErrorKind};
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    /// The server's end of a connection whose client has sent this.
    async fn received(bytes: &[u8]) -> (TcpStream, TcpStream) {
        let (socket, mut client) = connection().await;
        client.write_all(bytes).await.unwrap();
        socket.readable().await.unwrap();
        (socket, client)
    }

    #[actix::test]
    async fn what_is_not_moved_out_is_copied_out_and_the_pipe_is_empty_then() {
        let (socket, client) = received(b"hello").await;
        let used = with_pipe(|pipe| {
            assert_eq!((pipe.move_in(&socket)?, pipe.move_out(&socket, 2)?), (5, 2));
            assert_eq!(&*pipe.copy_out(3)?, b"llo");
            pipe.move_in(&socket)
        });
        assert_eq!(used.unwrap(), Some(0));
        client.readable().await.unwrap();
        let mut bytes = [0; 9];
        assert_eq!((client.try_read(&mut bytes).unwrap(), &bytes[..2]), (2, &b"he"[..]));
    }

    #[actix::test]
    async fn bytes_that_a_failed_use_leaves_behind_reach_no_other_connection() {
        let (socket, _client) = received(b"secret").await;
        let failed = with_pipe(|pipe| {
            assert_eq!(pipe.move_in(&socket)?, 6);
            Err::<(), _>(ErrorKind::BrokenPipe.into())
        });
        assert!(failed.is_err());
        assert_eq!(with_pipe(|pipe| Ok(ioctl_fionread(&pipe.output)?)).unwrap(), Some(0));
    }

    #[actix::test]
    async fn where_the_system_has_no_such_move_a_read_still_finds_the_bytes() {
        let (socket, _client) = received(b"hello").await;
        // A move into a file that is no pipe is what the system refuses.
        let file = OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
        let pipe = Pipe { input: file.into(), ..Pipe::new().unwrap() };
        assert_eq!(pipe.move_in(&socket).unwrap(), 0);
        assert_eq!(socket.try_read(&mut [0; 9]).unwrap(), 5);
    }
}
