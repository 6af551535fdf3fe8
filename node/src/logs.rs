//! Container logs on disk, in the CRI format (`TIME STREAM TAG TEXT`), rotated; one [`ContainerLog`] per instance.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::runtime::{Output, Stream};

/// A file this long is rotated.
pub const MAX_FILE_BYTES: u64 = 10 << 20;
/// Files kept per instance, the current one included.
pub const MAX_FILES: u32 = 5;
/// A longer line is written in parts (tag `P`), of which the last has tag `F`.
pub const MAX_LINE_BYTES: usize = 16 << 10;

/// How far a log has come; followers wait for changes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rotations so far.
    pub rotations: u64,
    /// Bytes in the current file.
    pub bytes: u64,
    /// Nothing more will come.
    pub closed: bool,
}

struct State {
    file: Option<File>,
    progress: Progress,
    /// Unfinished lines of stdout and stderr.
    partial: [Vec<u8>; 2],
}

/// The log of one instance of a container.
pub struct ContainerLog {
    path: PathBuf,
    max_file_bytes: u64,
    state: Mutex<State>,
    changed: watch::Sender<Progress>,
}

/// The path of an instance's log, or of its `rotation`-th older file.
pub fn log_path(dir: &Path, instance: u32, rotation: u32) -> PathBuf {
    if rotation == 0 { dir.join(format!("{instance}.log")) } else { dir.join(format!("{instance}.log.{rotation}")) }
}

impl ContainerLog {
    /// Makes the log of an instance; an old file of that name is replaced.
    pub fn create(dir: &Path, instance: u32) -> std::io::Result<Arc<Self>> {
        Self::with_limit(dir, instance, MAX_FILE_BYTES)
    }

    pub(crate) fn with_limit(dir: &Path, instance: u32, max_file_bytes: u64) -> std::io::Result<Arc<Self>> {
        std::fs::create_dir_all(dir)?;
        let path = log_path(dir, instance, 0);
        let file = File::create(&path)?;
        let state = State { file: Some(file), progress: Progress::default(), partial: [Vec::new(), Vec::new()] };
        let changed = watch::channel(Progress::default()).0;
        Ok(Arc::new(Self { path, max_file_bytes, state: Mutex::new(state), changed }))
    }

    /// Watches the log grow.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.changed.subscribe()
    }

    /// Writes unfinished lines and tells followers that no more comes.
    pub fn close(&self) {
        let mut state = self.state.lock();
        let mut out = Vec::new();
        for (i, name) in ["stdout", "stderr"].into_iter().enumerate() {
            if let Some(rest) = state.partial.get_mut(i).map(std::mem::take).filter(|r| !r.is_empty()) {
                format_line(&mut out, Timestamp::now(), name, 'F', &rest);
            }
        }
        self.append(&mut state, &out);
        state.progress.closed = true;
        state.file = None;
        self.changed.send_replace(state.progress);
    }

    fn append(&self, state: &mut State, data: &[u8]) {
        let Some(file) = state.file.as_mut().filter(|_| !data.is_empty()) else { return };
        if let Err(error) = file.write_all(data) {
            // A full disk must not end the guest: its output is lost until there is room.
            tracing::debug!(path = %self.path.display(), "log write failed: {error}");
            return;
        }
        state.progress.bytes += data.len() as u64;
        if state.progress.bytes >= self.max_file_bytes
            && let Err(error) = self.rotate(state)
        {
            tracing::warn!(path = %self.path.display(), "log rotation failed: {error}");
        }
        self.changed.send_replace(state.progress);
    }

    /// Rotates while holding the watched value: a reader that holds it sees names and count agree.
    fn rotate(&self, state: &mut State) -> std::io::Result<()> {
        let numbered = |n: u32| PathBuf::from(format!("{}.{n}", self.path.display()));
        let mut result = Ok(());
        self.changed.send_modify(|shown| {
            let rotated = (|| {
                for n in (1..MAX_FILES - 1).rev() {
                    if numbered(n).exists() {
                        std::fs::rename(numbered(n), numbered(n + 1))?;
                    }
                }
                std::fs::rename(&self.path, numbered(1))?;
                File::create(&self.path)
            })();
            match rotated {
                Ok(file) => {
                    state.file = Some(file);
                    state.progress.rotations += 1;
                    state.progress.bytes = 0;
                    *shown = state.progress;
                }
                Err(error) => result = Err(error),
            }
        });
        result
    }
}

impl Output for ContainerLog {
    fn write(&self, stream: Stream, data: &[u8]) {
        let now = Timestamp::now();
        let (index, name) = match stream {
            Stream::Stdout => (0, "stdout"),
            Stream::Stderr => (1, "stderr"),
        };
        let mut state = self.state.lock();
        let Some(mut line) = state.partial.get_mut(index).map(std::mem::take) else { return };
        let mut out = Vec::with_capacity(data.len() + 64);
        for piece in data.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while line.len() + text.len() > MAX_LINE_BYTES {
                let (now_fits, rest) = text.split_at((MAX_LINE_BYTES - line.len()).min(text.len()));
                line.extend_from_slice(now_fits);
                format_line(&mut out, now, name, 'P', &line);
                line.clear();
                text = rest;
            }
            line.extend_from_slice(text);
            if ended {
                format_line(&mut out, now, name, 'F', &line);
                line.clear();
            }
        }
        if let Some(slot) = state.partial.get_mut(index) {
            *slot = line;
        }
        self.append(&mut state, &out);
    }
}

fn format_line(out: &mut Vec<u8>, at: Timestamp, stream: &str, tag: char, text: &[u8]) {
    // Nine digits always, so that lines sort and align.
    out.extend_from_slice(format!("{at:.9} {stream} {tag} ").as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_string()).collect()
    }

    #[test]
    fn cri_lines_from_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let log = ContainerLog::create(dir.path(), 0).unwrap();
        log.write(Stream::Stdout, b"hel");
        log.write(Stream::Stderr, b"oops\n");
        log.write(Stream::Stdout, b"lo\n\nwor");
        log.close();
        assert_eq!(
            lines(&log_path(dir.path(), 0, 0)),
            ["stderr F oops", "stdout F hello", "stdout F ", "stdout F wor"]
        );
    }

    #[test]
    fn long_lines_are_cut_into_bounded_parts() {
        let dir = tempfile::tempdir().unwrap();
        let log = ContainerLog::create(dir.path(), 0).unwrap();
        let long = "x".repeat(MAX_LINE_BYTES * 2 + 5);
        log.write(Stream::Stdout, format!("{long}\n").as_bytes());
        let got = lines(&log_path(dir.path(), 0, 0));
        let tags: Vec<_> = got.iter().map(|l| (&l[7..8], l.len() - 9)).collect();
        assert_eq!(tags, [("P", MAX_LINE_BYTES), ("P", MAX_LINE_BYTES), ("F", 5)]);
    }

    #[test]
    fn rotation_keeps_a_bounded_number_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let log = ContainerLog::with_limit(dir.path(), 3, 200).unwrap();
        for n in 0..100 {
            log.write(Stream::Stdout, format!("line {n}\n").as_bytes());
        }
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, MAX_FILES as usize);
        assert!(lines(&log_path(dir.path(), 3, 1)).len() >= 3);
    }
}
