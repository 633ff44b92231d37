//! What a program must have of the system before it can serve: descriptors, memory and threads.
//!
//! Where a limit leaves too little of them, the runtime below panics and an allocation aborts. So they are asked for here first,
//! by taking them and giving them back: that is exact whatever the program has inherited.

use crate::error::Error;
use actix::SystemRunner;
use rlimit::Resource;
use std::{io, os::unix::net::UnixDatagram, ptr, thread};

/// Descriptors that a program takes to start: a runtime's epoll instance, its waker and the three ends of the signal pipe; then
/// one connection, and two to look a name up.
const DESCRIPTORS: usize = 8;
/// Memory that is free before each step of a start, and after the last: a thread's stack of 2 MiB, and what is needed to say
/// why a start fails or to stop well.
const MEMORY: usize = 8 << 20;

/// Makes sure of the memory for the next step of a start.
///
/// # Errors
/// [`Error::Memory`] if there is none.
pub fn memory() -> Result<(), Error> {
    #[expect(unsafe_code, reason = "nothing is read or written in the memory")]
    // SAFETY: it is a mapping that nothing else knows of, and it is gone when this is over.
    let had = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let mapped = libc::mmap(ptr::null_mut(), MEMORY, protection, flags, -1, 0);
        mapped != libc::MAP_FAILED && libc::munmap(mapped, MEMORY) == 0
    };
    let limit = || [Resource::AS, Resource::DATA].into_iter().filter_map(limit_of).min();
    if had { Ok(()) } else { Err(Error::Memory { needed: MEMORY as u64, limit: limit() }) }
}

/// Raises the soft limit of file descriptors to the hard one, and gives it.
pub(crate) fn raise_descriptors() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| Resource::NOFILE.get_soft());
    // Without a readable limit the system's own answer at run time (EMFILE) is what is left.
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// An actix [`System`](actix::System) for a program, or what keeps it from one: where `System::new` panics, this tells the limit.
///
/// # Errors
/// [`Error::Descriptors`] or [`Error::Memory`] if a limit leaves too little; [`Error::Runtime`] for what else the system says.
pub fn system() -> Result<SystemRunner, Error> {
    memory()?;
    let limit = raise_descriptors();
    let free = (0..DESCRIPTORS).map_while(|_| UnixDatagram::unbound().ok()).collect::<Vec<_>>().len();
    if free < DESCRIPTORS {
        return Err(Error::Descriptors { limit, reserved: limit.saturating_sub(free) + DESCRIPTORS - 1 });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(actix::System::with_tokio_rt(|| runtime))
}

#[cfg(feature = "cli")]
/// Starts a thread by this name.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, Error> {
    memory()?;
    thread::Builder::new().name(name.into()).spawn(run).map_err(no_thread)
}

/// The error of a thread that could not be started, or not the runtime in it.
pub(crate) fn no_thread(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::WouldBlock => Error::Thread { source, limit: limit_of(Resource::NPROC) },
        _ => Error::Runtime(source),
    }
}

/// `None` if it is not limited.
fn limit_of(resource: Resource) -> Option<u64> {
    resource.get_soft().ok().filter(|limit| *limit != rlimit::INFINITY)
}
