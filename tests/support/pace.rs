//! Deliveries at a pace of their own, however slowly they are answered, and every answer as it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::load::{Ledger, ROUTE};
use super::monotonic;
use super::universe::{about_task, client, post};

/// What became of one delivery; moments are of [`monotonic`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// When it was to be sent.
    pub(crate) due: Duration,
    /// When it was sent.
    pub(crate) sent: Duration,
    /// When it was answered.
    pub(crate) answered: Duration,
    /// `None`: the connection was refused or broke.
    pub(crate) status: Option<u16>,
    /// The answer said when to come again.
    pub(crate) retry_after: bool,
}

impl Answer {
    /// From sending to answer.
    pub(crate) fn took(&self) -> Duration {
        self.answered.saturating_sub(self.sent)
    }

    /// From the moment at which it was to be sent.
    pub(crate) fn since_due(&self) -> Duration {
        self.answered.saturating_sub(self.due)
    }
}

/// A sender at work; it stops when this is dropped.
pub(crate) struct Paced {
    pub(crate) ledger: Ledger,
    answers: Arc<Mutex<Vec<Answer>>>,
    stop: CancellationToken,
    sender: JoinSet<()>,
}

impl Paced {
    /// Sends deliveries about these tasks, each body a new one, `per_second`.
    pub(crate) fn start(port: u16, keys: Vec<String>, per_second: u32) -> Self {
        let (ledger, answers, stop) = (Ledger::default(), Arc::default(), CancellationToken::new());
        let mut sender = JoinSet::new();
        sender.spawn(send(port, keys, Duration::from_secs(1) / per_second, ledger.clone(), Arc::clone(&answers), stop.clone()));
        Self { ledger, answers, stop, sender }
    }

    /// Everything answered so far, in the order of the answers.
    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the answers that are still to come.
    pub(crate) async fn end(mut self) -> (Ledger, Vec<Answer>) {
        self.stop.cancel();
        while self.sender.join_next().await.is_some() {}
        (self.ledger.clone(), self.answers())
    }
}

async fn send(port: u16, keys: Vec<String>, every: Duration, ledger: Ledger, answers: Arc<Mutex<Vec<Answer>>>, stop: CancellationToken) {
    let (client, mut under_way, begin) = (client(), JoinSet::new(), monotonic());
    let mut ticks = tokio::time::interval(every);
    for number in 0_u32.. {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        while under_way.try_join_next().is_some() {}
        let body = about_task(&keys[number as usize % keys.len()], &format!("paced {number}"));
        let (client, ledger, answers) = (client.clone(), ledger.clone(), Arc::clone(&answers));
        under_way.spawn(async move {
            let sent = monotonic();
            let answer = post(&client, port, "pmp", ROUTE, &body).await;
            let (status, retry_after) = match &answer {
                Ok(answer) => (Some(answer.status().as_u16()), answer.headers().contains_key("retry-after")),
                Err(_) => (None, false),
            };
            if status.is_some_and(|status| status < 300) {
                ledger.note(ROUTE, &body);
            }
            let answer = Answer { due: begin + every * number, sent, answered: monotonic(), status, retry_after };
            answers.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
        });
    }
    while under_way.join_next().await.is_some() {}
}
