//! What a process and all its descendants use, from /proc (proc(5)).

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::program;

/// The numbers of /proc/PID/stat that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: u32,
    /// User and system time, its own and that of children it has waited for, in clock ticks.
    ticks: u64,
}

/// Memory of one process, in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Resident set size.
    pub rss: f64,
    /// Proportional set size, which counts shared pages by the share.
    pub pss: f64,
    /// What is its own and was written to.
    pub dirty: f64,
}

/// The page tables of a process, in MiB; they are in none of the other sizes.
///
/// # Errors
/// The process is gone.
pub fn page_tables(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    mib(&text, "VmPTE:").with_context(|| format!("{path} has no VmPTE"))
}

/// Memory of a process and of each of its descendants, the process first.
///
/// # Errors
/// The process is gone or may not be read.
pub fn memory(pid: u32) -> Result<Vec<Memory>> {
    let mut found = Vec::new();
    for (pid, _) in tree(pid)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        found.push(rollup(&text).with_context(|| format!("{path} has no Rss or Pss"))?);
    }
    Ok(found)
}

/// CPU seconds that a process and its descendants have used so far. Children that ended count with their parent once
/// it has waited for them, so the difference of two readings is what was used between them.
///
/// # Errors
/// The process is gone.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let ticks: u64 = tree(pid)?.iter().map(|(_, s)| s.ticks).sum();
    Ok(ticks as f64 / ticks_per_second())
}

/// The same of a process alone.
///
/// # Errors
/// The process is gone.
pub fn own_cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(stat(&text).with_context(|| format!("{path} is no stat"))?.ticks as f64 / ticks_per_second())
}

/// A process and its descendants, the process first. All of /proc is read, since a process's list of children is kept
/// by the thread that started them.
fn tree(root: u32) -> Result<Vec<(u32, Stat)>> {
    let mut all: HashMap<u32, Stat> = HashMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            && let Ok(text) = std::fs::read_to_string(entry.path().join("stat"))
            && let Some(stat) = stat(&text)
        {
            all.insert(pid, stat);
        }
    }
    let first = all.remove(&root).with_context(|| format!("no process {root}"))?;
    let mut found = vec![(root, first)];
    let mut at = 0;
    while let Some(&(parent, _)) = found.get(at) {
        let mut children: Vec<u32> = all.iter().filter(|(_, s)| s.parent == parent).map(|(&pid, _)| pid).collect();
        children.sort_unstable();
        found.extend(children.into_iter().filter_map(|pid| all.remove(&pid).map(|s| (pid, s))));
        at += 1;
    }
    Ok(found)
}

/// Parses /proc/PID/stat; the name stands in parentheses and may hold any character.
fn stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    // proc(5) counts from 1, and the state, the first one here, is its number 3.
    let ticks = (11..=14).map(number).sum::<Option<u64>>()?;
    Some(Stat { name: name.to_string(), parent: fields.get(1)?.parse().ok()?, ticks })
}

fn rollup(text: &str) -> Option<Memory> {
    Some(Memory { rss: mib(text, "Rss:")?, pss: mib(text, "Pss:")?, dirty: mib(text, "Private_Dirty:")? })
}

/// A size in kB of a file of lines such as `NAME: 12 kB`, in MiB.
fn mib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib / 1024.0)
}

fn ticks_per_second() -> f64 {
    let told = program::output(Command::new("getconf").arg("CLK_TCK")).ok();
    told.and_then(|t| t.trim().parse().ok()).filter(|&t| t > 0.0).unwrap_or(100.0)
}

/// Size of a file in bytes.
///
/// # Errors
/// There is none.
pub fn file_size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("no {}", path.display()))?.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Output, Program};
    use std::time::{Duration, Instant};

    #[test]
    fn stat_is_parsed_whatever_the_name() {
        let text = "42 (a) (b c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7 8";
        assert_eq!(stat(text), Some(Stat { name: "a) (b c".into(), parent: 7, ticks: 127 }));
        assert_eq!(stat("42 (short) S 7"), None);
        assert_eq!(stat(""), None);
    }

    #[test]
    fn memory_is_in_mib() {
        let text =
            "5583 [rollup]\nRss:  896 kB\nPss:                 384 kB\nPss_Dirty:  9 kB\nPrivate_Dirty:  256 kB\n";
        assert_eq!(rollup(text), Some(Memory { rss: 0.875, pss: 0.375, dirty: 0.25 }));
        assert_eq!(rollup("Rss: 1 kB"), None);
    }

    #[test]
    fn a_tree_holds_children_and_what_ended_children_used() {
        let burn = "(i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done)";
        let script = format!("{burn}; trap 'kill $!' TERM; sleep 60 & echo up; wait");
        let program = Program::start("sh", Command::new("sh").args(["-c", &script]), Output::Out).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        program.line(end, "up", |l| (l == "up").then_some(())).unwrap();
        let names = || tree(program.pid()).unwrap().into_iter().map(|(_, stat)| stat.name).collect::<Vec<_>>();
        while names() != ["sh", "sleep"] {
            assert!(Instant::now() < end, "{:?}", names());
        }
        let used = memory(program.pid()).unwrap();
        assert!(used.len() == 2 && used.iter().all(|m| m.pss > 0.0 && m.rss >= m.pss), "{used:?}");
        assert!(page_tables(program.pid()).unwrap() > 0.0);
        assert!(cpu_seconds(program.pid()).unwrap() >= own_cpu_seconds(program.pid()).unwrap());
        assert!(own_cpu_seconds(program.pid()).unwrap() > 0.0);
        assert!(memory(u32::MAX).is_err());
    }
}
