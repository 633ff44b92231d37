//! The end of the server, as the Admin hears of it: its clients get what they are owed, and then it goes.

use tokio::sync::watch;

/// Tells of the end when it is dropped.
pub(super) type Ends = watch::Sender<()>;

/// Hears of it.
#[derive(Clone)]
pub(super) struct Ending(watch::Receiver<()>);

pub(super) fn ending() -> (Ends, Ending) {
    let (ends, ending) = watch::channel(());
    (ends, Ending(ending))
}

impl Ending {
    pub async fn comes(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}
