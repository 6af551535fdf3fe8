//! A child program whose lines are read with the time at which they came, ended when dropped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Tells the user what happens now.
pub fn step(what: &str) {
    eprintln!("==> {what}");
}

/// Runs a program and returns its standard output.
///
/// # Errors
/// It does not start or does not exit 0; what it said on standard error is told.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    ensure!(out.status.success(), "{command:?} failed: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// How long a program may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// Which of a program's outputs is read.
#[derive(Clone, Copy)]
pub enum Output {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A running child program.
pub struct Program {
    child: Child,
    lines: Receiver<(Instant, String)>,
    name: &'static str,
}

impl Program {
    /// Starts it and reads one of its outputs; the other goes where `command` says.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &'static str, command: &mut Command, read: Output) -> Result<Self> {
        command.stdin(Stdio::null());
        match read {
            Output::Out => command.stdout(Stdio::piped()),
            Output::Err => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stream: Option<Box<dyn Read + Send>> = match read {
            Output::Out => child.stdout.take().map(|s| Box::new(s) as _),
            Output::Err => child.stderr.take().map(|s| Box::new(s) as _),
        };
        let (sender, lines) = channel();
        if let Some(stream) = stream {
            // Ends with the program. It goes on reading when nobody listens, so that the program is never held up.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send((Instant::now(), line));
                }
            });
        }
        Ok(Self { child, lines, name })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("{} has ended", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Reads on until `find` returns a value; gives it with the time at which its line came.
    ///
    /// # Errors
    /// The program ended, or no such line came before `end`.
    pub fn line<T>(&self, end: Instant, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> Result<(Instant, T)> {
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((at, line)) => {
                    if let Some(found) = find(&line) {
                        return Ok((at, found));
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{}: waited in vain for {what}", self.name),
                Err(RecvTimeoutError::Disconnected) => bail!("{} ended before {what}", self.name),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
            let end = Instant::now() + GRACE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        // Neither does anything to a program that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_line_and_ends_the_program() {
        let script = "echo one; echo two: 2; exec sleep 60";
        let program = Program::start("sh", Command::new("sh").args(["-c", script]), Output::Out).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let (_, two) = program.line(end, "two", |l| l.strip_prefix("two: ").map(str::to_string)).unwrap();
        assert_eq!(two, "2");
        let pid = program.pid();
        drop(program);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn an_ended_program_is_an_error() {
        let program = Program::start("sh", Command::new("sh").args(["-c", "echo bye >&2"]), Output::Err).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let error = program.line(end, "hello", |l| (l == "hello").then_some(())).unwrap_err();
        assert_eq!(error.to_string(), "sh ended before hello");
    }
}
