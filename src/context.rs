//! The context of an actor that has its mailbox and one future, and nothing else.
//!
//! [`actix::Context`] can do more, and every connection pays for it: room for lists of futures, and a walk through them
//! whenever anything wakes it. For this one there is a figure in `docs/performance.md`.

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

/// Starts `actor`, which lives as long as `life` and is then told what came out, unless it [stops](ActorContext::stop) first.
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
    /// The future has come to its end, and with it the actor.
    fn end(&mut self, output: T);
}

/// See the module's description. None of the actor's hooks is called.
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

    /// What is in the mailbox goes first: an order outweighs what the client has sent since.
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.project();
        while !this.context.stopped
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
