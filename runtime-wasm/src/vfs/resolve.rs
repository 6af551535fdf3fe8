//! Path resolution, confined to a base directory.

use super::mounts::{Location, Mounts};
use super::node::{MAX_LINKS, MAX_NAME, MAX_PATH, NodeKind, Result, VfsError};

/// Where a path leads.
#[derive(Clone)]
pub struct Found {
    /// The directory that holds the last component.
    pub dir: Location,
    /// The last component's name; `None` if the path ends in a directory already walked through (`.`, `..`, `/`).
    pub name: Option<String>,
    /// What is there, or `None` if only the last component does not exist.
    pub at: Option<Location>,
    /// The path ended in a slash, so it can only name a directory.
    pub wants_directory: bool,
}

impl Found {
    /// What is there, or [`VfsError::NoEntry`].
    pub fn existing(self) -> Result<Location> {
        self.at.ok_or(VfsError::NoEntry)
    }

    /// Directory and name for making a new entry: it must not exist yet and must not be read-only.
    pub fn vacant(&self) -> Result<(&Location, &str)> {
        match (&self.at, &self.name) {
            (None, Some(name)) => Ok((self.dir.writable()?, name)),
            _ => Err(VfsError::Exist),
        }
    }

    /// Directory, name and node of an entry that is to be removed or moved: not a mount point, not `.`, not read-only.
    pub fn removable(&self) -> Result<(&Location, &str, &Location)> {
        let at = self.at.as_ref().ok_or(VfsError::NoEntry)?;
        let name = self.name.as_ref().ok_or(VfsError::Busy)?;
        if at.mount != self.dir.mount {
            return Err(VfsError::Busy);
        }
        Ok((self.dir.writable()?, name, at))
    }
}

impl Mounts {
    /// Resolves `path` from `base`. With `follow`, a symbolic link at the end is followed too. Absolute paths and links
    /// start at the container's root if `base` is the root; from any other base, leaving it is
    /// [`VfsError::NotPermitted`].
    pub fn resolve(&self, base: &Location, path: &str, follow: bool) -> Result<Found> {
        if path.is_empty() {
            return Err(VfsError::NoEntry);
        }
        let rooted = self.is_root(base);
        let mut walk = Walk { rooted, trail: vec![base.clone()], rest: Vec::new(), wants_directory: false };
        walk.push_path(path)?;
        let mut links = 0;
        while let Some(part) = walk.rest.pop() {
            let dir = walk.trail.last().unwrap_or(base).clone();
            if part == ".." {
                walk.up()?;
                continue;
            }
            let at = match dir.node.lookup(&part) {
                Ok(node) => self.cross(&dir, node)?,
                Err(VfsError::NoEntry) if walk.rest.is_empty() => {
                    return Ok(Found { dir, name: Some(part), at: None, wants_directory: walk.wants_directory });
                }
                Err(error) => return Err(error),
            };
            let last = walk.rest.is_empty();
            match at.node.kind() {
                NodeKind::Symlink if !last || follow || walk.wants_directory => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(VfsError::Loop);
                    }
                    walk.push_path(&at.node.target()?)?;
                }
                kind if last => {
                    if walk.wants_directory && kind != NodeKind::Directory {
                        return Err(VfsError::NotDirectory);
                    }
                    let wants_directory = walk.wants_directory;
                    return Ok(Found { dir, name: Some(part), at: Some(at), wants_directory });
                }
                NodeKind::Directory => walk.trail.push(at),
                _ => return Err(VfsError::NotDirectory),
            }
        }
        let dir = walk.trail.last().unwrap_or(base).clone();
        Ok(Found { dir: dir.clone(), name: None, at: Some(dir), wants_directory: true })
    }
}

/// A resolution under way.
struct Walk {
    /// The base is the container's root: it may be named by `/`, and `..` stays in it.
    rooted: bool,
    /// Directories from the base to here.
    trail: Vec<Location>,
    /// Components still to walk, the next one last.
    rest: Vec<String>,
    wants_directory: bool,
}

impl Walk {
    /// Puts a path before what is left.
    fn push_path(&mut self, path: &str) -> Result<()> {
        if path.len() > MAX_PATH {
            return Err(VfsError::NameTooLong);
        }
        if path.contains('\0') {
            return Err(VfsError::Invalid);
        }
        if path.starts_with('/') {
            if !self.rooted {
                return Err(VfsError::NotPermitted);
            }
            self.trail.truncate(1);
        }
        if self.rest.is_empty() {
            self.wants_directory |= path.ends_with('/') || path.ends_with("/.") || path == ".";
        }
        for part in path.rsplit('/').filter(|part| !part.is_empty() && *part != ".") {
            if part.len() > MAX_NAME {
                return Err(VfsError::NameTooLong);
            }
            self.rest.push(part.to_owned());
        }
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        if self.trail.len() > 1 {
            self.trail.pop();
        } else if !self.rooted {
            return Err(VfsError::NotPermitted);
        }
        Ok(())
    }
}
