//! Streams of a process over a WebSocket, as kubectl speaks them (`v5.channel.k8s.io`, `v4.channel.k8s.io`): binary
//! messages whose first byte is the channel.
//! Source: <https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/4006-transition-spdy-to-websockets>.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::runtime::{ContainerExit, Piece, Stream};

/// Subprotocols in order of preference.
pub const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Largest message taken from a client, in bytes; kubectl sends 32 KiB.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Pieces of output on their way to a client.
pub const MAX_PIECES: usize = 64;

/// How long a client may take to answer the first ping.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after that a client is given to set up its streams.
const READY_MARGIN: Duration = Duration::from_millis(20);

/// How often a client is pinged.
const PING: Duration = Duration::from_secs(30);
/// How long a client may take to read what waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Of v5: the channel in the next byte has ended.
const CLOSE: u8 = 255;

/// What a client's message means.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Data(Bytes),
    End,
    /// A terminal's size: WASI has no use for it.
    Ignored,
    Malformed(String),
}

fn input(message: &Message) -> Option<Input> {
    let Message::Binary(data) = message else {
        return match message {
            Message::Close(_) => None,
            Message::Text(_) => Some(Input::Malformed("text messages have no channel: send binary ones".into())),
            _ => Some(Input::Ignored),
        };
    };
    Some(match data.split_first() {
        Some((&STDIN, rest)) => Input::Data(data.slice_ref(rest)),
        Some((&CLOSE, [STDIN])) => Input::End,
        Some((&RESIZE, _)) | None => Input::Ignored,
        Some((channel, _)) => Input::Malformed(format!("channel {channel} is not for clients to write")),
    })
}

fn output(channel: u8, data: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(channel);
    message.put_slice(data);
    Message::Binary(message.freeze())
}

/// The last word on the error channel: how the process ended.
fn verdict(exit: &ContainerExit) -> Value {
    if exit.code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    let why = if exit.message.is_empty() { String::new() } else { format!(": {}", exit.message) };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit code {}{why}", exit.code),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": exit.code.to_string()}]},
    })
}

fn failure(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})
}

/// The two ends of a process's streams.
pub struct Streams {
    /// Its standard input, if the client wants to write there.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// Its output.
    pub output: mpsc::Receiver<Piece>,
    /// The client wants the standard output.
    pub stdout: bool,
    /// The client wants the standard error apart; a terminal has but one output.
    pub stderr: bool,
    /// The streams are a terminal's.
    pub tty: bool,
}

/// Carries streams between a client and a process until the process ends, or the client is gone. `ended` is the
/// process's end; once it is there, all output has been handed over.
pub async fn carry(socket: WebSocket, mut streams: Streams, ended: impl Future<Output = ContainerExit>) {
    let (mut to_client, mut from_client) = socket.split();
    let mut ended = std::pin::pin!(ended);
    let first = settle(&mut to_client, &mut from_client).await;
    let mut unread = first.into_iter().collect::<VecDeque<_>>();
    let mut waiting: Option<Bytes> = None;
    let mut pings = tokio::time::interval(PING);
    pings.reset();
    let last = loop {
        tokio::select! {
            Some(piece) = streams.output.recv() => {
                if send(&mut to_client, &streams, piece).await.is_err() {
                    return;
                }
            }
            exit = &mut ended => {
                while let Ok(piece) = streams.output.try_recv() {
                    if send(&mut to_client, &streams, piece).await.is_err() {
                        return;
                    }
                }
                break verdict(&exit);
            }
            () = deliver(streams.stdin.as_ref(), &mut waiting), if waiting.is_some() => {}
            // A client that went while its input waits is noticed by writing to it.
            _ = pings.tick() => {
                if in_time(to_client.send(Message::Ping(Bytes::new()))).await.is_err() {
                    return;
                }
            }
            // Input waits for the guest; the next message waits for it.
            message = next(&mut unread, &mut from_client), if waiting.is_none() => {
                let Some(message) = message else { return };
                match input(&message) {
                    Some(Input::Data(data)) if streams.stdin.is_some() && !data.is_empty() => waiting = Some(data),
                    Some(Input::Data(_) | Input::Ignored) => {}
                    Some(Input::End) => streams.stdin = None,
                    Some(Input::Malformed(why)) => break failure(&why),
                    None => return,
                }
            }
        }
    };
    conclude(&mut to_client, &last).await;
}

/// Waits until the client is ready to read, and returns the message that told so, if it was more than that.
///
/// Before 1.34 kubectl throws away what comes before it has set up its streams, which it begins as it begins to read.
/// So it is asked with a ping, and given a moment after its answer.
async fn settle(
    to: &mut (impl futures::Sink<Message> + Unpin),
    from: &mut (impl futures::Stream<Item = Result<Message, axum::Error>> + Unpin),
) -> Option<Message> {
    if to.send(Message::Ping(Bytes::new())).await.is_err() {
        return None;
    }
    let answered = tokio::time::timeout(READY_TIMEOUT, from.next()).await;
    tokio::time::sleep(READY_MARGIN).await;
    answered.ok().flatten().and_then(Result::ok).filter(|message| !matches!(message, Message::Pong(_)))
}

async fn next(
    unread: &mut VecDeque<Message>,
    from: &mut (impl futures::Stream<Item = Result<Message, axum::Error>> + Unpin),
) -> Option<Message> {
    match unread.pop_front() {
        Some(message) => Some(message),
        None => from.next().await?.ok(),
    }
}

/// Tells a client that there is no process. A refused handshake would not do: kubectl takes that for a server that
/// speaks no WebSocket, and tries SPDY.
pub async fn refuse(socket: WebSocket, why: &str) {
    let (mut to_client, mut from_client) = socket.split();
    settle(&mut to_client, &mut from_client).await;
    conclude(&mut to_client, &failure(why)).await;
}

async fn conclude(to: &mut (impl futures::Sink<Message> + Unpin), last: &Value) {
    let done = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    if in_time(to.send(output(ERROR, last.to_string().as_bytes()))).await.is_ok() {
        let _ = in_time(to.send(Message::Close(Some(done)))).await;
    }
}

/// A write to a client that must take it: one that does not must not keep a process, nor a pod that is gone.
async fn in_time<E>(write: impl Future<Output = Result<(), E>>) -> Result<(), ()> {
    tokio::time::timeout(WRITE_TIMEOUT, write).await.map_err(drop)?.map_err(drop)
}

/// Hands input over; a guest that is gone takes it too.
async fn deliver(stdin: Option<&mpsc::Sender<Bytes>>, waiting: &mut Option<Bytes>) {
    let Some(stdin) = stdin else {
        *waiting = None;
        return;
    };
    let place = stdin.reserve().await;
    if let (Ok(place), Some(data)) = (place, waiting.take()) {
        place.send(data);
    }
}

async fn send(
    to: &mut (impl futures::Sink<Message, Error = axum::Error> + Unpin),
    streams: &Streams,
    (stream, data): Piece,
) -> Result<(), ()> {
    let (channel, wanted) = match stream {
        Stream::Stderr if !streams.tty => (STDERR, streams.stderr),
        _ => (STDOUT, streams.stdout),
    };
    if wanted { in_time(to.send(output(channel, &data))).await } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let binary = |data: &'static [u8]| Message::Binary(Bytes::from_static(data));
        for (message, expected) in [
            (binary(b"\0abc"), Some(Input::Data(Bytes::from_static(b"abc")))),
            (binary(b"\xff\0"), Some(Input::End)),
            (binary(b"\x04{\"Width\":80}"), Some(Input::Ignored)),
            (binary(b""), Some(Input::Ignored)),
            (Message::Ping(Bytes::new()), Some(Input::Ignored)),
            (Message::Close(None), None),
        ] {
            assert_eq!(input(&message), expected, "{message:?}");
        }
        for bad in [binary(b"\x01x"), binary(b"\xff\x01"), binary(b"\xff"), Message::Text("x".into())] {
            assert!(matches!(input(&bad), Some(Input::Malformed(_))), "{bad:?}");
        }
        assert_eq!(output(STDERR, b"no"), binary(b"\x02no"));
    }

    #[test]
    fn verdicts() {
        let exit = |code| ContainerExit { code, reason: "Error", message: String::new() };
        assert_eq!(verdict(&exit(0))["status"], "Success");
        let failed = verdict(&exit(3));
        assert_eq!(
            (&failed["reason"], &failed["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("3"))
        );
    }
}
