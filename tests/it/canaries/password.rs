//! A PostgreSQL server that wants the password, is given it, and says no.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Stage, secret_file};

/// Asks for encryption before anything else; the answer is a single letter.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// The daemon ends with the server's reason, and neither says the password.
pub(crate) async fn refused(stage: &mut Stage) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let given = Arc::<Mutex<Vec<u8>>>::default();
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, Arc::clone(&given)));
    let text = format!(
        "[store]\nurl = \"postgresql://instep@127.0.0.1:{port}/pmp\"\npassword = {{ file = {:?} }}\n\
         [listen]\nhooks = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:{}\"\n",
        secret_file(&stage.universe, "store.password"),
        crate::support::process::free_port(),
    );
    let config = stage.universe.folder("wrong/password.toml");
    std::fs::write(&config, text).expect("our own folder");
    for verb in ["migrate", "run"] {
        let output = stage.verb_of(&[verb], &config);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("password authentication failed"), "{verb}: {said}");
    }
    drop(serving);
    let given = given.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let given = String::from_utf8_lossy(&given).into_owned();
    assert!(given.contains(&stage.secret("store.password")), "the server was given {given:?}");
}

async fn serve(listener: TcpListener, given: Arc<Mutex<Vec<u8>>>) {
    let mut refusing = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let given = Arc::clone(&given);
        refusing.spawn(async move {
            // A caller that hangs up early has said enough.
            let _ = refuse(stream, &given).await;
        });
    }
}

async fn refuse(mut stream: TcpStream, given: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let mut start = message(&mut stream).await?;
    while start.starts_with(&SSL_REQUEST) {
        stream.write_all(b"N").await?;
        start = message(&mut stream).await?;
    }
    // The password, in the clear.
    stream.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 3]).await?;
    stream.read_u8().await?;
    let password = message(&mut stream).await?;
    given.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&password);
    let told = String::from_utf8_lossy(&password).trim_end_matches('\0').to_owned();
    let fields = format!("SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"instep\"\0DThe password was {told}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    stream.write_all(&[b"E", length.as_slice(), fields.as_bytes()].concat()).await
}

/// A length, itself included, and so many bytes.
async fn message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut bytes = vec![0; (length as usize).saturating_sub(4).min(10_000)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
