//! Deliveries without end, and a ledger of those that were acknowledged.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instep::connectors::signature::digest;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::universe::{about_task, deliver};

/// What was answered 2xx, by what the daemon calls the delivery's identity.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    refused: Arc<AtomicU64>,
}

impl Ledger {
    /// How many were acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many were not: refused, or the daemon was dead.
    pub(crate) fn unanswered(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Those of the ledger that are not in `found`.
    pub(crate) fn missing_from(&self, found: &BTreeSet<String>) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).difference(found).count()
    }

    pub(super) fn note(&self, route: &str, body: &str) {
        let identity = digest(&[route.as_bytes(), body.as_bytes()]);
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(identity);
    }
}

/// Senders at work; they stop when this is dropped.
pub(crate) struct Load {
    pub(crate) ledger: Ledger,
    stop: CancellationToken,
    senders: JoinSet<()>,
}

/// Nobody hammers at a dead daemon's port: what starts it again needs the processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Where they go.
pub(super) const ROUTE: &str = "task-updated";

impl Load {
    /// Starts `senders` that send one delivery after the other about these tasks, each body a new one.
    pub(crate) fn start(port: u16, keys: Vec<String>, senders: usize) -> Self {
        let (ledger, stop) = (Ledger::default(), CancellationToken::new());
        let keys = Arc::new(keys);
        let mut set = JoinSet::new();
        for sender in 0..senders {
            set.spawn(send(sender, senders, port, Arc::clone(&keys), ledger.clone(), stop.clone()));
        }
        Self { ledger, stop, senders: set }
    }

    /// Lets every sender finish its delivery; what was acknowledged.
    pub(crate) async fn end(mut self) -> Ledger {
        self.stop.cancel();
        while self.senders.join_next().await.is_some() {}
        self.ledger.clone()
    }
}

async fn send(sender: usize, senders: usize, port: u16, keys: Arc<Vec<String>>, ledger: Ledger, stop: CancellationToken) {
    let client = super::universe::client();
    let mut number = sender;
    while !stop.is_cancelled() {
        let body = about_task(&keys[number % keys.len()], &format!("delivery {number}"));
        match deliver(&client, port, ROUTE, &body).await {
            Ok(200..=299) => ledger.note(ROUTE, &body),
            // Dead or refusing: the others go on, and this one tries the next.
            _ => {
                ledger.refused.fetch_add(1, Ordering::Relaxed);
                // Ends early when the load does.
                let _ = tokio::time::timeout(PAUSE, stop.cancelled()).await;
            }
        }
        number += senders;
    }
}
