use std::os::unix::fs::symlink;

use super::*;
use crate::vfs::{Mount, Mounts, Source, Vfs};

fn mounted(path: &Path, sub_path: &str, hidden: &[&Path]) -> Mounts {
    let view = Mounts::new(Vfs::new(Default::default()).root());
    let source = Source::Node(HostDir::open(path, hidden).unwrap());
    view.mount("/data", Mount { source, sub_path: sub_path.into(), read_only: false }).unwrap();
    view
}

#[test]
fn nothing_leads_out() {
    let outer = tempfile::tempdir().unwrap();
    let (secret, inside) = (outer.path().join("secret"), outer.path().join("inside"));
    std::fs::write(&secret, "outside").unwrap();
    std::fs::create_dir_all(inside.join("private/code")).unwrap();
    std::fs::write(inside.join("private/code/x"), "trusted").unwrap();
    std::fs::write(inside.join("own"), "mine").unwrap();
    symlink(&secret, inside.join("absolute")).unwrap();
    symlink("../secret", inside.join("relative")).unwrap();
    symlink(outer.path(), inside.join("up")).unwrap();
    symlink("own", inside.join("fine")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let view = mounted(&inside, "", &[&inside.join("private")]);
    for (path, expected) in [
        ("/data/own", Ok("mine")),
        ("/data/fine", Ok("mine")),
        ("/data/../data/./own", Ok("mine")),
        ("/data/absolute", Err(VfsError::NoEntry)),
        ("/data/relative", Err(VfsError::NoEntry)),
        ("/data/../secret", Err(VfsError::NoEntry)),
        ("/data/up/secret", Err(VfsError::NoEntry)),
        ("/data/pipe", Err(VfsError::Unsupported)),
        ("/data/private/code/x", Err(VfsError::Access)),
    ] {
        let got = view.read_file(path).map(|data| String::from_utf8(data.to_vec()).unwrap());
        assert_eq!(got, expected.map(str::to_owned), "{path}");
    }
    assert_eq!(view.write_file("/data/absolute", b"no"), Err(VfsError::NoEntry));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "outside");
    for path in ["private", "private/code", "up/inside/private"] {
        assert!(HostDir::open(&inside.join(path), &[&inside.join("private")]).is_err(), "{path}");
    }
    // Held open while it is swapped for a link: the old directory is still meant.
    std::fs::create_dir(inside.join("swap")).unwrap();
    let held = view.resolve(&view.root(), "/data/swap", true).unwrap().existing().unwrap();
    std::fs::rename(inside.join("swap"), inside.join("swapped")).unwrap();
    symlink(outer.path(), inside.join("swap")).unwrap();
    assert_eq!(held.node.lookup("secret").err(), Some(VfsError::NoEntry));
    held.node.create("made", New::File(0o600)).unwrap();
    assert!(inside.join("swapped/made").exists());
}

#[test]
fn directories_swapped_for_links_while_paths_are_walked() {
    let outer = tempfile::tempdir().unwrap();
    let inside = outer.path().join("inside");
    std::fs::create_dir_all(inside.join("real")).unwrap();
    std::fs::write(inside.join("real/f"), "inside").unwrap();
    std::fs::write(outer.path().join("f"), "outside").unwrap();
    let view = mounted(&inside, "", &[]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                std::fs::rename(inside.join("real"), inside.join("aside")).unwrap();
                symlink(outer.path(), inside.join("real")).unwrap();
                std::fs::remove_file(inside.join("real")).unwrap();
                std::fs::rename(inside.join("aside"), inside.join("real")).unwrap();
            }
        });
        let (mut met, mut missed, mut escaped) = (0, 0, None);
        let started = std::time::Instant::now();
        while (met < 20 || missed < 20) && escaped.is_none() && started.elapsed() < Duration::from_secs(30) {
            match view.read_file("/data/real/f") {
                Ok(data) if &data[..] == b"inside" => met += 1,
                Err(VfsError::NoEntry | VfsError::NotDirectory | VfsError::Loop | VfsError::Invalid) => missed += 1,
                other => escaped = Some(other),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(escaped, None);
        assert!(met > 0, "the directory is there now and then");
    });
}

#[test]
fn changes_are_the_machines() {
    let dir = tempfile::tempdir().unwrap();
    let view = mounted(dir.path(), "sub/path", &[]);
    let sub = dir.path().join("sub/path");
    view.write_file("/data/a", b"one").unwrap();
    assert_eq!(std::fs::read(sub.join("a")).unwrap(), b"one");
    let at = |path: &str| view.resolve(&view.root(), path, false).unwrap();
    let file = at("/data/a").existing().unwrap();
    file.node.append(b" two").unwrap();
    file.node.write_at(10, b"x").unwrap();
    file.node.set_len(9).unwrap();
    let then = UNIX_EPOCH + Duration::from_secs(1_000_000);
    file.node.set_times(None, Some(then)).unwrap();
    let root = at("/data").existing().unwrap();
    root.node.set_times(Some(then), Some(then)).unwrap();
    assert_eq!(root.node.stat().unwrap().modified, then);
    assert_eq!(std::fs::read(sub.join("a")).unwrap(), b"one two\0\0");
    assert_eq!(file.node.stat().unwrap().modified, then);
    root.node.link("b", &file.node).unwrap();
    assert_eq!(file.node.stat().unwrap().links, 2);
    root.node.rename("a", &root.node, "c").unwrap();
    root.node.create("dir", New::Directory).unwrap();
    root.node.create("link", New::Symlink("c")).unwrap();
    let names = |after, max| -> Vec<String> {
        root.node.list(after, max).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(None, 10), ["b", "c", "dir", "link"]);
    assert_eq!(names(None, 2), ["b", "c"]);
    assert_eq!(names(Some("c"), 10), ["dir", "link"]);
    assert_eq!(root.node.unlink("dir"), Err(VfsError::IsDirectory));
    root.node.unlink("c").unwrap();
    root.node.unlink("b").unwrap();
    assert_eq!(&file.node.read_at(0, 3).unwrap()[..], b"one", "open without a name");
    root.node.remove_dir("dir").unwrap();
    assert_eq!(root.node.create("link", New::File(0o600)).err(), Some(VfsError::Exist));
    view.remove_all("/data/link").unwrap();
    assert_eq!(std::fs::read_dir(&sub).unwrap().count(), 0);
}

#[test]
fn open_files_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "").unwrap();
    let root = HostDir::open(dir.path(), &[]).unwrap();
    let mut held: Vec<_> = (1..MAX_OPEN).map(|_| root.lookup("f").unwrap()).collect();
    assert_eq!(root.lookup("f").err(), Some(VfsError::TooManyOpen));
    held.pop();
    assert!(root.lookup("f").is_ok());
    assert_eq!(HostDir::open_file(&dir.path().join("f"), &[]).unwrap().kind(), NodeKind::File);
    assert!(HostDir::open_file(dir.path(), &[]).is_err());
}
