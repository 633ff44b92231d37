//! A service that blocks its thread on demand.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
};
use supervised_echo::{Service, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Echoes. On a `#` it blocks its thread.
pub struct Blocking {
    blocked: Sender<Sender<()>>,
}

/// The service, and what it tells when it blocks: its thread goes on when that is dropped.
pub fn blocking() -> (Blocking, Receiver<Sender<()>>) {
    let (blocked, blocks) = channel();
    (Blocking { blocked }, blocks)
}

impl Service for Blocking {
    async fn serve(&self, socket: &mut Socket) -> io::Result<()> {
        let mut bytes = [0; 64];
        loop {
            match socket.read(&mut bytes).await? {
                0 => return Ok(()),
                n if bytes[..n].contains(&b'#') => {
                    let (go_on, may_go_on) = channel();
                    let _ = self.blocked.send(go_on);
                    let _ = may_go_on.recv();
                }
                n => socket.write_all(&bytes[..n]).await?,
            }
        }
    }
}
