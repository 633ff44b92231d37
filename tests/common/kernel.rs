//! What the kernel tells of a process's descriptors and of what waits in a socket.
#![expect(unsafe_code, reason = "neither std nor rustix asks how much of what was sent is unacknowledged")]

use super::wait_until;
use rustix::{
    ioctl,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::Socket;
use std::{
    fs,
    net::{SocketAddr, TcpStream},
};

/// The numbers of a process's open descriptors, and what they are.
pub fn descriptors(pid: Pid) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    // A descriptor may be closed meanwhile.
    let entries = entries.filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)));
    entries.map(|(fd, is)| (fd.to_str().unwrap().parse().unwrap(), is.to_str().unwrap().to_owned())).collect()
}

/// Duplicates the socket on which a process listens. Gives also its name among the descriptors.
pub fn listener_of(pid: Pid, address: SocketAddr) -> (Socket, String) {
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let sockets = descriptors(pid).into_iter().filter(|(_, is)| is.starts_with("socket:"));
    let mut handles = sockets.filter_map(|(fd, is)| {
        let handle = Socket::from(pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()).ok()?);
        (handle.is_listener().ok()? && handle.local_addr().ok()?.as_socket() == Some(address)).then_some((handle, is))
    });
    handles.next().expect("it listens")
}

/// What waits in a socket of this system: bytes that have not been read. If the socket listens, and so has no remote port, it is
/// clients that have not been accepted.
pub fn receive_queue(local: u16, remote: u16) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row[1].ends_with(&local) && row[2].ends_with(&remote))?;
    Some(u64::from_str_radix(row[4].split_once(':')?.1, 16).unwrap())
}

/// Waits until all that this client has sent has arrived in the server's kernel.
pub fn wait_until_arrived(client: &TcpStream) {
    type SendQueue = ioctl::Getter<{ libc::TIOCOUTQ as ioctl::Opcode }, libc::c_int>;
    wait_until("it has arrived", || {
        // SAFETY: TIOCOUTQ writes one int, which is what this getter reads.
        unsafe { ioctl::ioctl(client, SendQueue::new()) }.unwrap() == 0
    });
}
