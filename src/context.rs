//! The context of an actor that has its mailbox and one future, and nothing else.
//!
//! [`actix::Context`] can do more, and every connection would pay for it: with room for lists of futures, and with a walk
//! through them at each wake-up. `docs/performance.md` has a figure for this one.

use actix::{
    dev::{
        Envelope, EnvelopeProxy, MessageResponse, OneshotSender, ToEnvelope,
        channel::{AddressReceiver, channel},
    },
    prelude::*,
};
use futures_util::Stream;
use pin_project_lite::pin_project;
use std::{
    marker::PhantomData,
    pin::Pin,
    task::{self, Poll, ready},
};

/// Starts `actor` and polls `life`, its one future. When that ends the actor hears its output and ends too, unless it
/// [stops](ActorContext::stop) first.
pub(crate) fn start<A, F>(actor: A, life: F) -> Addr<A>
where
    A: Live<F::Output>,
    F: Future + 'static,
{
    let (sender, mailbox) = channel(1);
    actix_rt::spawn(Task { actor, mailbox, context: OneFuture { stopped: false, actor: PhantomData }, life });
    Addr::new(sender)
}

/// An actor with one future.
pub(crate) trait Live<T>: Actor<Context = OneFuture<Self>> {
    /// The future has ended with this output, and the actor ends with it.
    fn end(&mut self, output: T);

    /// Whether a message may have come since the last question. Each wake-up asks, and looks into the mailbox only then. An actor may
    /// say no if it is told before each message, and before the last address is dropped: both wake it once, and only the next look
    /// lets it be woken again. The first answer must be yes.
    fn may_have_mail(&self) -> bool {
        true
    }
}

/// The context that the module describes. It calls none of the actor's hooks.
pub(crate) struct OneFuture<A> {
    stopped: bool,
    actor: PhantomData<A>,
}

pin_project! {
    struct Task<A: Actor, F> {
        // Dropped in this order.
        #[pin]
        life: F,
        actor: A,
        mailbox: AddressReceiver<A>,
        context: OneFuture<A>,
    }
}

impl<A: Live<F::Output>, F: Future> Future for Task<A, F> {
    type Output = ();

    /// Messages go before the future: an order outweighs what the client has sent since.
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        let mail = this.actor.may_have_mail();
        while mail
            && !this.context.stopped
            && let Poll::Ready(Some(mut message)) = Pin::new(&mut *this.mailbox).poll_next(cx)
        {
            message.handle(this.actor, this.context);
        }
        if !this.context.stopped {
            this.actor.end(ready!(this.life.poll(cx)));
        }
        Poll::Ready(())
    }
}

impl<A> ActorContext for OneFuture<A> {
    fn stop(&mut self) {
        self.stopped = true;
    }

    fn terminate(&mut self) {
        self.stop();
    }

    fn state(&self) -> ActorState {
        if self.stopped { ActorState::Stopped } else { ActorState::Running }
    }
}

impl<A, M> ToEnvelope<A, M> for OneFuture<A>
where
    A: Actor<Context = Self> + Handler<M>,
    M: Message<Result: Send> + Send + 'static,
{
    fn pack(message: M, reply: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        Envelope::with_proxy(Box::new(Letter { message: Some(message), reply }))
    }
}

struct Letter<M: Message> {
    /// Taken when it is handled.
    message: Option<M>,
    reply: Option<OneshotSender<M::Result>>,
}

impl<A, M> EnvelopeProxy<A> for Letter<M>
where
    A: Actor + Handler<M>,
    M: Message,
{
    fn handle(&mut self, actor: &mut A, context: &mut A::Context) {
        if let Some(message) = self.message.take() {
            actor.handle(message, context).handle(context, self.reply.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::Cell,
        future::{pending, ready},
        rc::Rc,
    };
    use tokio::sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    };

    /// Tells the test what it hears and how its future ended. It looks into its mailbox while the test lets it.
    struct Witness(UnboundedSender<&'static str>, Rc<Cell<bool>>);

    impl Actor for Witness {
        type Context = OneFuture<Self>;
    }

    impl Live<&'static str> for Witness {
        fn end(&mut self, output: &'static str) {
            let _ = self.0.send(output);
        }

        fn may_have_mail(&self) -> bool {
            self.1.get()
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Say(&'static str);

    impl Handler<Say> for Witness {
        type Result = ();

        fn handle(&mut self, Say(word): Say, ctx: &mut Self::Context) {
            let _ = self.0.send(word);
            if word == "stop" {
                ctx.stop();
            }
        }
    }

    fn witness(life: impl Future<Output = &'static str> + 'static) -> (Addr<Witness>, UnboundedReceiver<&'static str>) {
        let (sender, heard) = unbounded_channel();
        (start(Witness(sender, Cell::new(true).into()), life), heard)
    }

    #[actix::test]
    async fn an_order_to_stop_outweighs_an_end_that_comes_with_it_and_all_behind_it() {
        let (actor, mut heard) = witness(ready("over"));
        ["first", "stop", "late"].into_iter().for_each(|word| actor.do_send(Say(word)));
        assert_eq!((heard.recv().await, heard.recv().await, heard.recv().await), (Some("first"), Some("stop"), None));
    }

    #[actix::test]
    async fn it_hears_while_its_future_is_pending_and_lives_on_when_only_a_weak_address_is_left() {
        let (actor, mut heard) = witness(pending());
        let weak = actor.downgrade();
        actor.send(Say("first")).await.unwrap();
        drop(actor);
        weak.upgrade().unwrap().send(Say("second")).await.unwrap();
        assert_eq!((heard.recv().await, heard.recv().await), (Some("first"), Some("second")));
    }

    #[actix::test]
    async fn a_message_waits_until_the_actor_knows_that_it_may_have_one() {
        let (sender, mut heard) = unbounded_channel();
        let (mail, over) = (Rc::new(Cell::new(true)), Rc::new(Notify::new()));
        let life = over.clone();
        let actor = start(Witness(sender, mail.clone()), async move {
            life.notified().await;
            "over"
        });
        actor.send(Say("first")).await.unwrap();
        mail.set(false);
        actor.do_send(Say("second"));
        // It has had its turn when a task that is woken later has had its own.
        actix_rt::spawn(async {}).await.unwrap();
        assert_eq!((heard.recv().await, heard.try_recv().ok()), (Some("first"), None));
        mail.set(true);
        over.notify_one();
        assert_eq!((heard.recv().await, heard.recv().await), (Some("second"), Some("over")));
    }

    #[actix::test]
    async fn it_ends_with_its_future_though_addresses_are_left() {
        let (actor, mut heard) = witness(ready("over"));
        assert_eq!((heard.recv().await, heard.recv().await), (Some("over"), None));
        assert!(actor.send(Say("late")).await.is_err());
    }
}
