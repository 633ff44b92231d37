//! What the kernel knows of a connection and neither std nor tokio asks for.
//!
//! The only `unsafe` code of the server is here: two questions whose answers the kernel writes.

use rustix::ioctl;
use std::{io, mem::MaybeUninit, os::fd::AsRawFd, time::Duration};
use tokio::net::TcpStream;

/// A client to which bytes are owed is silent if its system has acknowledged nothing for this long and owes an answer. The
/// answer is to a retransmission, or to a window probe if the client has stopped reading.
const SILENCE: Duration = Duration::from_secs(20);

/// Bytes that the client's system has not acknowledged yet. A FIN counts as one.
#[expect(unsafe_code, reason = "the kernel writes the answer, one int")]
pub(super) fn unacknowledged(tcp: &TcpStream) -> io::Result<u64> {
    type SendQueue = ioctl::Getter<{ libc::TIOCOUTQ as ioctl::Opcode }, libc::c_int>;
    // SAFETY: SIOCOUTQ (also named TIOCOUTQ) writes one int, and this getter reads one.
    let bytes = unsafe { ioctl::ioctl(tcp, SendQueue::new()) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Whether the client, to which bytes are owed, is silent. A client that has stopped reading but answers window probes is
/// not, though the probes are up to two minutes apart. While an answer is on its way the client looks silent, so ask twice.
pub(super) fn is_silent(tcp: &TcpStream) -> bool {
    info(tcp).is_ok_and(|info| {
        let owes_answer = info.tcpi_retransmits > 0 || info.tcpi_probes > 0;
        owes_answer && u128::from(info.tcpi_last_ack_recv) >= SILENCE.as_millis()
    })
}

#[expect(unsafe_code, reason = "the kernel writes the answer, a struct of numbers")]
fn info(tcp: &TcpStream) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which has room for them.
    let got = unsafe {
        libc::getsockopt(tcp.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the struct holds only numbers, so zeroes are as valid as what the kernel has written.
    Ok(unsafe { info.assume_init() })
}
