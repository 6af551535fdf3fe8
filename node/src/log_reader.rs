//! Reads container logs back: tail, since, limit, timestamps, follow.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::logs::{MAX_FILES, MAX_LINE_BYTES, Progress, log_path};

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// What to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as the log grows, until the instance ends.
    pub follow: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines not older.
    pub since: Option<Timestamp>,
    /// Put each line's time before it.
    pub timestamps: bool,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// Sends an instance's log in pieces until its end, or until nobody listens. Runs on a blocking thread's time only
/// for single chunks; waiting for more is asynchronous.
pub async fn read(
    dir: PathBuf,
    instance: u32,
    options: LogOptions,
    live: Option<watch::Receiver<Progress>>,
    to: mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let mut live = live.filter(|_| options.follow);
    let (mut files, mut rotation) = open_newest(&dir, instance, live.as_ref(), |_| MAX_FILES);
    if let Some(tail) = options.tail {
        files = run(move || seek_to_tail(files, tail)).await??;
    }
    let mut filter = Filter::new(options);
    loop {
        // Taken before reading, so that what comes while reading wakes this task again.
        let progress = live.as_mut().map(|l| *l.borrow_and_update());
        while let Some(file) = files.first_mut() {
            let Ok(mut handle) = file.try_clone() else { break };
            let (read, chunk) = run(move || read_chunk(&mut handle)).await??;
            if read == 0 {
                if files.len() == 1 && live.is_some() {
                    break;
                }
                files.remove(0);
                continue;
            }
            let out = filter.take(&chunk);
            if !out.is_empty() && to.send(out.into()).await.is_err() {
                return Ok(());
            }
            if filter.exhausted() {
                return Ok(());
            }
        }
        let (Some(live), Some(progress)) = (&mut live, progress) else { return Ok(()) };
        if progress.rotations > rotation {
            // The file held was moved away and is read to its end: the next ones, oldest first.
            let held = rotation;
            let behind = |now: u64| u32::try_from(now - held).unwrap_or(MAX_FILES).min(MAX_FILES);
            (files, rotation) = open_newest(&dir, instance, Some(live), behind);
            continue;
        }
        if progress.closed {
            return Ok(());
        }
        tokio::select! {
            changed = live.changed() => if changed.is_err() { return Ok(()) },
            () = to.closed() => return Ok(()),
        }
    }
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)
}

fn read_chunk(file: &mut File) -> std::io::Result<(usize, Vec<u8>)> {
    let mut chunk = vec![0; CHUNK];
    let n = file.read(&mut chunk)?;
    chunk.truncate(n);
    Ok((n, chunk))
}

/// Opens the newest files of an instance, oldest first, as many as `count` says for the number of rotations, which is
/// returned too. No rotation happens in between: the writer rotates while it holds the watched value.
fn open_newest(
    dir: &Path,
    instance: u32,
    live: Option<&watch::Receiver<Progress>>,
    count: impl Fn(u64) -> u32,
) -> (Vec<File>, u64) {
    let held = live.map(|l| l.borrow());
    let rotations = held.as_ref().map_or(0, |p| p.rotations);
    let names = (0..count(rotations)).rev().map(|n| log_path(dir, instance, n));
    (names.filter_map(|path| File::open(path).ok()).collect(), rotations)
}

/// Places files, oldest first, so that only the last `tail` lines follow.
fn seek_to_tail(mut files: Vec<File>, tail: u64) -> std::io::Result<Vec<File>> {
    let (mut keep, mut wanted) = (0, tail);
    for file in files.iter_mut().rev() {
        keep += 1;
        wanted = seek_back(file, wanted)?;
        if wanted == 0 {
            break;
        }
    }
    Ok(files.split_off(files.len() - keep))
}

/// Places a file before its last `lines` lines; returns how many lines it lacked.
fn seek_back(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(0);
    }
    let (mut position, mut found) = (end, 0);
    while position > 0 {
        let length = position.min(CHUNK as u64);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let mut chunk = vec![0; usize::try_from(length).unwrap_or(CHUNK)];
        file.read_exact(&mut chunk)?;
        for (i, byte) in chunk.iter().enumerate().rev() {
            let at = position + i as u64;
            if *byte == b'\n' && at + 1 != end {
                found += 1;
                if found == lines {
                    file.seek(SeekFrom::Start(at + 1))?;
                    return Ok(0);
                }
            }
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(if end == 0 { lines } else { lines - found - 1 })
}

/// Turns CRI lines into what users read.
struct Filter {
    options: LogOptions,
    left: Option<u64>,
    line: Vec<u8>,
    /// The text so far ended in the middle of a line (tag `P`).
    in_line: bool,
}

impl Filter {
    fn new(options: LogOptions) -> Self {
        Self { left: options.limit_bytes, options, line: Vec::new(), in_line: false }
    }
    fn exhausted(&self) -> bool {
        self.left == Some(0)
    }

    fn take(&mut self, chunk: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(chunk.len());
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.emit(&line, &mut out);
            } else if self.line.len() > 2 * MAX_LINE_BYTES {
                // Not a line of ours: somebody wrote to the file.
                self.line.clear();
            }
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }

    fn emit(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut fields = line.splitn(4, |b| *b == b' ');
        let (Some(time), Some(_), Some(tag), Some(text)) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        if let Some(since) = self.options.since {
            let at = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
            if at.is_none_or(|at| at < since) {
                return;
            }
        }
        if self.options.timestamps && !self.in_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        self.in_line = tag == b"P";
        out.extend_from_slice(if self.in_line { text.strip_suffix(b"\n").unwrap_or(text) } else { text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::ContainerLog;
    use crate::runtime::{Output, Stream};

    async fn collect(dir: &Path, instance: u32, options: LogOptions) -> String {
        let (to, mut from) = mpsc::channel(1);
        let reading = tokio::spawn(read(dir.to_path_buf(), instance, options, None, to));
        let mut all = Vec::new();
        while let Some(piece) = from.recv().await {
            all.extend_from_slice(&piece);
        }
        reading.await.unwrap().unwrap();
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn options() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            "2026-01-01T00:00:01.000000000Z stdout F one\n2026-01-01T00:00:02.000000000Z stderr F two\n",
            "2026-01-01T00:00:03.000000000Z stdout P thr\n2026-01-01T00:00:03.000000000Z stdout F ee\n2026-01-01T00:00:04.000000000Z stdout F four\n",
        ];
        std::fs::write(log_path(dir.path(), 0, 1), files[0]).unwrap();
        std::fs::write(log_path(dir.path(), 0, 0), files[1]).unwrap();
        let d = LogOptions::default();
        let cases = [
            (d.clone(), "one\ntwo\nthree\nfour\n"),
            (LogOptions { tail: Some(1), ..d.clone() }, "four\n"),
            (LogOptions { tail: Some(0), ..d.clone() }, ""),
            (LogOptions { tail: Some(4), ..d.clone() }, "two\nthree\nfour\n"),
            (LogOptions { tail: Some(99), ..d.clone() }, "one\ntwo\nthree\nfour\n"),
            (LogOptions { since: Some("2026-01-01T00:00:03Z".parse().unwrap()), ..d.clone() }, "three\nfour\n"),
            (LogOptions { limit_bytes: Some(6), ..d.clone() }, "one\ntw"),
            (LogOptions { tail: Some(1), timestamps: true, ..d.clone() }, "2026-01-01T00:00:04.000000000Z four\n"),
        ];
        for (options, expected) in cases {
            assert_eq!(collect(dir.path(), 0, options.clone()).await, expected, "{options:?}");
        }
        assert_eq!(collect(dir.path(), 7, d).await, "", "no such log");
    }

    #[tokio::test]
    async fn following_sees_every_line_over_rotations_and_ends_with_the_instance() {
        let dir = tempfile::tempdir().unwrap();
        let log = ContainerLog::with_limit(dir.path(), 0, 2000).unwrap();
        log.write(Stream::Stdout, b"line 0\n");
        let (to, mut from) = mpsc::channel(1);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let reading = tokio::spawn(read(dir.path().to_path_buf(), 0, options, Some(log.subscribe()), to));
        let mut all = Vec::new();
        for n in 1..200 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
            // Read up to this line before writing the next, so that no rotation is missed.
            while !String::from_utf8_lossy(&all).contains(&format!("line {n}\n")) {
                all.extend_from_slice(&from.recv().await.unwrap());
            }
        }
        log.write(Stream::Stdout, b"last");
        log.close();
        while let Some(piece) = from.recv().await {
            all.extend_from_slice(&piece);
        }
        reading.await.unwrap().unwrap();
        let expected: String = (0..200).map(|n| format!("line {n}\n")).chain(["last\n".to_string()]).collect();
        assert_eq!(String::from_utf8(all).unwrap(), expected);
    }
}
