//! What a program must have of the system before it can serve: descriptors, memory and threads.
//!
//! If a limit leaves too little of them, the runtime panics and an allocation aborts. So this module takes them first and
//! gives them back. That is exact, because it counts what the program has inherited too.

use crate::error::Error;
use actix::SystemRunner;
use rlimit::Resource;
use std::{io, os::unix::net::UnixDatagram, ptr};

/// Descriptors that a program takes to start: a runtime's epoll instance, its waker and the three ends of the signal pipe; then
/// one connection, and two to look a name up.
const DESCRIPTORS: usize = 8;
/// Memory that must be free before each step of a start, and after the last. It holds a thread's stack of 2 MiB, and what
/// the program needs to say why a start fails, or to stop well.
const MEMORY: usize = 8 << 20;
/// Stack that a program takes at its start. The system gives the stack of the main thread page by page. A program that
/// lacks a page is ended by SIGSEGV, without a word. The stacks of the other threads are whole from their start.
const STACK: usize = 512 << 10;

/// Checks that there is memory for the next step of a start.
///
/// # Errors
/// [`Error::Memory`] if there is none.
pub fn memory() -> Result<(), Error> {
    #[expect(unsafe_code, reason = "nothing is read or written in the memory")]
    // SAFETY: the mapping is private to this call, which unmaps it again.
    let had = unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let mapped = libc::mmap(ptr::null_mut(), MEMORY, protection, flags, -1, 0);
        mapped != libc::MAP_FAILED && libc::munmap(mapped, MEMORY) == 0
    };
    let limit = || [Resource::AS, Resource::DATA].into_iter().filter_map(limit_of).min();
    if had { Ok(()) } else { Err(Error::Memory { needed: MEMORY as u64, limit: limit() }) }
}

/// Grows the stack of this thread, unless its limit is so small that this would end the program.
#[inline(never)]
fn take_stack() {
    if limit_of(Resource::STACK).is_none_or(|limit| limit >= 4 * STACK as u64) {
        let taken = [0_u8; STACK];
        std::hint::black_box(&taken);
    }
}

/// Raises the soft limit of file descriptors to the hard one, and gives it.
pub(crate) fn raise_descriptors() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| Resource::NOFILE.get_soft());
    // If the limit cannot be read, the system's own error at run time (EMFILE) has to do.
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Starts an actix [`System`](actix::System) for a program. Where `System::new` panics, this returns an error that names
/// the limit.
///
/// # Errors
/// [`Error::Descriptors`] or [`Error::Memory`] if a limit leaves too little; [`Error::Runtime`] for any other error of the
/// system.
pub fn system() -> Result<SystemRunner, Error> {
    memory()?;
    take_stack();
    let limit = raise_descriptors();
    let free = (0..DESCRIPTORS).map_while(|_| UnixDatagram::unbound().ok()).collect::<Vec<_>>().len();
    if free < DESCRIPTORS {
        return Err(Error::Descriptors { limit, reserved: limit.saturating_sub(free) + DESCRIPTORS - 1 });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
    Ok(actix::System::with_tokio_rt(|| runtime))
}

#[cfg(any(feature = "cli", feature = "client"))]
/// Starts a thread by this name.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Error> {
    memory()?;
    std::thread::Builder::new().name(name.into()).spawn(run).map_err(no_thread)
}

/// The error if a thread, or the runtime in it, could not be started.
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
