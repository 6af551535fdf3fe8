//! When to stop: SIGTERM, SIGINT or, for children, the end of the parent.

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// Signals cannot be caught.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = token.clone();
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        stop.cancel();
    });
    Ok(token)
}

/// Cancels the token when standard input ends: the parent holds its other end, so this sees even its kill -9.
pub fn when_stdin_closes(token: CancellationToken) {
    tokio::spawn(async move {
        let mut stdin = tokio::io::stdin();
        let mut buffer = [0; 64];
        while matches!(stdin.read(&mut buffer).await, Ok(n) if n > 0) {}
        token.cancel();
    });
}
