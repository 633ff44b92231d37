//! What a ConnectionActor was told, for its session to ask for and to wait for.
//!
//! All that waits for it is one task, that of the actor, so there is one waker. To ask costs a comparison, and a session asks
//! at each turn.

use crate::decisions::stop::Stop;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// The strongest order that a ConnectionActor was given.
#[derive(Debug, Default)]
pub(crate) struct Order {
    strongest: Cell<Option<Stop>>,
    waiting: RefCell<Option<Waker>>,
}

impl Order {
    pub fn give(&self, stop: Stop) {
        self.strongest.set(self.strongest.get().max(Some(stop)));
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Whether at least this much was ordered.
    pub fn is(&self, stop: Stop) -> bool {
        self.strongest.get() >= Some(stop)
    }

    /// Resolves when at least this much is ordered.
    pub async fn comes(&self, stop: Stop) {
        poll_fn(|cx| {
            if self.is(stop) {
                return Poll::Ready(());
            }
            match &mut *self.waiting.borrow_mut() {
                Some(waiting) => waiting.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::rc::Rc;

    #[test]
    fn a_weaker_order_takes_nothing_back() {
        let order = Order::default();
        order.give(Stop::Abort);
        order.give(Stop::Drain);
        assert!(order.is(Stop::Abort) && order.comes(Stop::Drain).now_or_never().is_some());
    }

    #[actix::test]
    async fn one_who_waits_for_more_than_comes_first_is_woken_again() {
        let order = Rc::new(Order::default());
        let giving = order.clone();
        actix_rt::spawn(async move {
            for stop in [Stop::Drain, Stop::Abort] {
                giving.give(stop);
                tokio::task::yield_now().await;
            }
        });
        let drain = async {
            order.comes(Stop::Drain).await;
            order.is(Stop::Abort)
        };
        assert_eq!(tokio::join!(order.comes(Stop::Abort), drain), ((), false));
    }
}
