//! Wakes connections when their messages are due, to some microseconds.
//!
//! The runtime's own timers tick in milliseconds. That is good enough for timeouts and pauses, which stay with it. Here the
//! kernel has one timer, armed for the earliest of all due times.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
    time::Instant,
};

/// One timer for any number of waiters.
pub(crate) struct Alarm {
    waiting: Rc<Waiting>,
    ringing: JoinHandle<()>,
}

struct Waiting {
    timer: AsyncFd<OwnedFd>,
    /// Who waits, by time; the number tells those of the same time apart.
    wakers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    /// For when the timer is armed.
    armed: Cell<Option<Instant>>,
    last: Cell<u64>,
}

impl Alarm {
    /// Needs a runtime.
    ///
    /// # Errors
    /// No descriptor or no memory is left.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(unsafe_code, reason = "the runtime's registration of a descriptor is unsafe")]
        // SAFETY: an `OwnedFd` always gives the same descriptor, and keeps it open as long as it lives.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        let (wakers, armed, last) = Default::default();
        let waiting = Rc::new(Waiting { timer, wakers, armed, last });
        let ringing = actix_rt::spawn(ring(waiting.clone()));
        Ok(Self { waiting, ringing })
    }

    /// Resolves at this time.
    pub fn until(&self, at: Instant) -> Until {
        self.waiting.last.set(self.waiting.last.get() + 1);
        Until { waiting: self.waiting.clone(), key: (at, self.waiting.last.get()) }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.ringing.abort();
    }
}

impl Waiting {
    /// Arms the timer if someone waits for an earlier time than it is armed for.
    fn arm(&self) {
        let Some(first) = self.wakers.borrow().first_key_value().map(|((at, _), _)| *at) else { return };
        if self.armed.get().is_none_or(|armed| first < armed) {
            self.armed.set(Some(first));
            // Zero would disarm it.
            let wait = first.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).expect("the timer and the time are valid");
        }
    }
}

/// Wakes those whose time has come, whenever the timer goes off.
async fn ring(waiting: Rc<Waiting>) {
    while let Ok(mut ready) = waiting.timer.readable().await {
        // The next setting of the timer resets it, so its count need not be read.
        ready.clear_ready();
        waiting.armed.set(None);
        let now = Instant::now();
        let mut wakers = waiting.wakers.borrow_mut();
        while let Some(first) = wakers.first_entry().filter(|first| first.key().0 <= now) {
            first.remove().wake();
        }
        drop(wakers);
        waiting.arm();
    }
}

/// A wait for a time.
pub(crate) struct Until {
    waiting: Rc<Waiting>,
    key: (Instant, u64),
}

impl Until {
    pub fn at(&self) -> Instant {
        self.key.0
    }
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.key.0 <= Instant::now() {
            return Poll::Ready(());
        }
        self.waiting.wakers.borrow_mut().insert(self.key, cx.waker().clone());
        self.waiting.arm();
        Poll::Pending
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        self.waiting.wakers.borrow_mut().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::hash::{BuildHasher, RandomState};

    /// Times to come, to some microseconds: some together, some close to others, and some over when the wait begins.
    #[actix::test]
    async fn everyone_is_woken_and_never_before_the_time() {
        let (alarm, begun, random) = (Alarm::new().unwrap(), Instant::now(), RandomState::new());
        let waits = (0..100).map(async |n| {
            let mut early = Duration::ZERO;
            for turn in 0..100 {
                let from = if random.hash_one((n, turn)) % 3 > 0 { Instant::now() } else { begun };
                let at = from + Duration::from_micros(random.hash_one((turn, n)) % 200 * 10);
                alarm.until(at).await;
                early = early.max(at.saturating_duration_since(Instant::now()));
            }
            early
        });
        assert_eq!(join_all(waits).await, [Duration::ZERO; 100]);
    }

    #[actix::test]
    async fn one_who_waits_no_more_is_forgotten_and_the_others_are_woken() {
        let alarm = Alarm::new().unwrap();
        let soon = Instant::now() + Duration::from_millis(1);
        tokio::select! {
            biased;
            () = alarm.until(soon + Duration::from_secs(600)) => {}
            () = alarm.until(soon) => {}
        }
        assert!(alarm.waiting.wakers.borrow().is_empty());
        alarm.until(Instant::now() + Duration::from_millis(1)).await;
    }
}
