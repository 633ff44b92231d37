//! The bounded queue before a drain, and the thread that empties it into the drain.
//!
//! `slog_async` turns records into values that can be sent. Its own queue panics if no thread can be started; this one
//! returns an error.

use super::threshold::Threshold;
use crate::{error::Error, resources};
use slog::{Drain, Never, OwnedKVList, Record};
use slog_async::AsyncRecord;
use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

/// An entry of the queue.
enum Item {
    Record(AsyncRecord),
    End,
}

/// Puts records into the queue, and waits while it is full.
pub(super) struct Queue(SyncSender<Item>);

/// Writes what is left in the queue when it is dropped. Keep it to the end of the program.
#[derive(Debug)]
pub struct Guard {
    queue: SyncSender<Item>,
    thread: Option<JoinHandle<()>>,
    threshold: Threshold,
}

impl Guard {
    /// The least severe level that is logged, to be changed while the program runs.
    pub fn threshold(&self) -> Threshold {
        self.threshold.clone()
    }
}

/// A queue of `size` records before `drain`, and the thread between them.
pub(super) fn queue<D>(size: usize, threshold: Threshold, drain: D) -> Result<(Queue, Guard), Error>
where
    D: Drain<Ok = (), Err = Never> + Send + 'static,
{
    let (queue, items) = sync_channel(size);
    let thread = resources::spawn("log", move || write(&items, &drain))?;
    Ok((Queue(queue.clone()), Guard { queue, thread: Some(thread), threshold }))
}

fn write(items: &Receiver<Item>, drain: &impl Drain<Ok = (), Err = Never>) {
    while let Ok(Item::Record(record)) = items.recv() {
        let Ok(()) = record.log_to(drain);
    }
}

impl Drain for Queue {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // Once the guard is dropped, the thread is gone and the record is lost.
        let _ = self.0.send(Item::Record(AsyncRecord::from(record, values)));
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.queue.send(Item::End);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
