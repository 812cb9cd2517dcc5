//! A way to a port of ours that a test can cut, as a firewall or a proxy that fails does: the process behind it notices nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// A port that leads to another one until it is cut.
pub(crate) struct Gate {
    /// Where it listens.
    pub(crate) port: u16,
    cut: watch::Sender<bool>,
    refused: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Gate {
    /// Leads to `port` on loopback.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("bound").port();
        let (cut, is_cut) = watch::channel(false);
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refused);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                if *is_cut.borrow() {
                    counted.fetch_add(1, Ordering::AcqRel);
                    continue;
                }
                connections.spawn(lead(stream, port, is_cut.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port: own, cut, refused, _serving: serving }
    }

    /// Every connection ends, and no other leads anywhere.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// It leads on again.
    pub(crate) fn open(&self) {
        self.cut.send_replace(false);
    }

    /// Connections that led nowhere.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Acquire)
    }
}

async fn lead(mut stream: TcpStream, port: u16, mut is_cut: watch::Receiver<bool>) {
    let Ok(mut behind) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    tokio::select! {
        // Whoever of both breaks off ends the other.
        _ = tokio::io::copy_bidirectional(&mut stream, &mut behind) => {}
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
    }
}
