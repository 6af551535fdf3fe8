use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;

fn vfs() -> Vfs {
    Vfs::new(VfsLimits::default())
}

/// A container's view with a small tree: /etc/hosts, /data/a/b, links.
fn view() -> Mounts {
    let view = Mounts::new(vfs().root());
    view.write_file("/etc/hosts", b"hosts").unwrap();
    view.mkdir_all("/data/a/b").unwrap();
    for (path, target) in [
        ("/data/abs", "/etc/hosts"),
        ("/data/rel", "../etc/hosts"),
        ("/data/up", "../../../../etc"),
        ("/data/loop1", "loop2"),
        ("/data/loop2", "loop1"),
        ("/data/gone", "nowhere/at/all"),
        ("/data/new", "/data/made"),
        ("/data/dir", "a"),
    ] {
        symlink(&view, path, target);
    }
    view
}

fn symlink(view: &Mounts, path: &str, target: &str) {
    let found = view.resolve(&view.root(), path, false).unwrap();
    let (dir, name) = found.vacant().unwrap();
    dir.node.create(name, New::Symlink(target)).unwrap();
}

fn rename(view: &Mounts, from: &str, to: &str) -> Result<()> {
    let old = view.resolve(&view.root(), from, false)?;
    let new = view.resolve(&view.root(), to, false)?;
    let (dir, name, _) = old.removable()?;
    dir.node.rename(name, &new.dir.node, new.name.as_deref().unwrap())
}

#[test]
fn resolves_paths_inside_the_root_only() {
    use VfsError::*;
    let view = view();
    let long_name = format!("/{}", "n".repeat(MAX_NAME + 1));
    let long_path = "/a".repeat(MAX_PATH);
    let cases: &[(&str, bool, std::result::Result<NodeKind, VfsError>)] = &[
        ("/", true, Ok(NodeKind::Directory)),
        (".", true, Ok(NodeKind::Directory)),
        ("..", true, Ok(NodeKind::Directory)),
        ("../../../etc/hosts", true, Ok(NodeKind::File)),
        ("data//a/./b/..", true, Ok(NodeKind::Directory)),
        ("data/abs", true, Ok(NodeKind::File)),
        ("data/abs", false, Ok(NodeKind::Symlink)),
        ("data/rel", true, Ok(NodeKind::File)),
        ("data/up/hosts", true, Ok(NodeKind::File)),
        ("data/dir", false, Ok(NodeKind::Symlink)),
        ("data/dir/", false, Ok(NodeKind::Directory)),
        ("data/dir/b/../b", false, Ok(NodeKind::Directory)),
        ("etc/hosts/", true, Err(NotDirectory)),
        ("etc/hosts/x", true, Err(NotDirectory)),
        ("data/loop1", true, Err(Loop)),
        ("data/gone", true, Err(NoEntry)),
        ("missing", true, Err(NoEntry)),
        ("missing/x", true, Err(NoEntry)),
        ("", true, Err(NoEntry)),
        ("a\0b", true, Err(Invalid)),
        (&long_name, true, Err(NameTooLong)),
        (&long_path, true, Err(NameTooLong)),
    ];
    for (path, follow, expected) in cases {
        let found = view.resolve(&view.root(), path, *follow).and_then(Found::existing);
        assert_eq!(found.map(|at| at.node.kind()), *expected, "{path} follow={follow}");
    }
    let base = view.resolve(&view.root(), "data/a", true).unwrap().existing().unwrap();
    for (path, expected) in [("b", None), ("b/..", None), ("..", Some(NotPermitted)), ("b/../../x", Some(NotPermitted))]
    {
        assert_eq!(view.resolve(&base, path, true).err(), expected, "{path} below a directory");
    }
    symlink(&view, "/data/a/out", "/etc/hosts");
    assert_eq!(view.resolve(&base, "out", true).err(), Some(NotPermitted));
    view.write_file("/data/new", b"through a dangling link").unwrap();
    assert_eq!(&view.read_file("/data/made").unwrap()[..], b"through a dangling link");
}

#[test]
fn renames_as_posix_has_it() {
    use VfsError::*;
    let cases = [
        ("/f", "/g", Ok(())),
        ("/f", "/other", Ok(())),
        ("/f", "/d/f", Ok(())),
        ("/f", "/f", Ok(())),
        ("/f", "/same", Ok(())),
        ("/f", "/d", Err(IsDirectory)),
        ("/d", "/f", Err(NotDirectory)),
        ("/d", "/empty", Ok(())),
        ("/empty", "/d", Err(NotEmpty)),
        ("/d", "/d/inner/x", Err(Invalid)),
        ("/d", "/d/inner", Err(Invalid)),
        ("/missing", "/x", Err(NoEntry)),
    ];
    for (from, to, expected) in cases {
        let vfs = vfs();
        let view = Mounts::new(vfs.root());
        view.write_file("/f", b"f").unwrap();
        view.write_file("/other", b"other").unwrap();
        view.mkdir_all("/d/inner").unwrap();
        view.mkdir_all("/empty").unwrap();
        let f = view.resolve(&view.root(), "/f", false).unwrap().existing().unwrap();
        view.root().node.link("same", &f.node).unwrap();
        drop(f);
        let before = vfs.usage();
        assert_eq!(rename(&view, from, to), expected, "{from} -> {to}");
        if expected.is_err() {
            assert_eq!(vfs.usage(), before, "{from} -> {to} charged something");
        } else if from == "/f" && to != "/f" && to != "/same" {
            assert_eq!(&view.read_file(to).unwrap()[..], b"f");
            assert_eq!(view.read_file("/f"), Err(NoEntry));
        }
        for path in ["/f", "/g", "/other", "/d", "/x", "/same", "/empty"] {
            view.remove_all(path).unwrap();
        }
        assert_eq!(vfs.usage(), (0, 0), "{from} -> {to} leaked");
    }
}

#[test]
fn an_open_file_outlives_its_name_and_then_gives_its_space_back() {
    let vfs = vfs();
    vfs.write_file("/f", &[7; 100_000]).unwrap();
    let node = vfs.root().lookup("f").unwrap();
    vfs.root().unlink("f").unwrap();
    assert_eq!(node.stat().unwrap().links, 0);
    assert_eq!(node.read_at(99_999, 10).unwrap()[..], [7]);
    node.append(b"x").unwrap();
    assert_eq!(vfs.root().link("again", &node), Err(VfsError::NoEntry));
    assert!(vfs.usage().0 > 100_000);
    drop(node);
    assert_eq!(vfs.usage(), (0, 0));
}

#[test]
fn limits_hold_and_failures_change_nothing() {
    let vfs = Vfs::new(VfsLimits { bytes: 10_000, inodes: 3 });
    vfs.write_file("/a", b"a").unwrap();
    assert_eq!(vfs.write_file("/a", &[0; 20_000]), Err(VfsError::NoSpace));
    assert_eq!(vfs.read_file("/a").unwrap().len(), 0, "replaced by nothing, as truncate then write does");
    vfs.mkdir_all("/d").unwrap();
    vfs.write_file("/d/b", b"b").unwrap();
    let before = vfs.usage();
    assert_eq!(vfs.write_file("/c", b""), Err(VfsError::NoSpace), "inodes");
    assert_eq!(vfs.usage(), before);
    let mut links = 0;
    let node = vfs.root().lookup("a").unwrap();
    let full = loop {
        match vfs.root().link(&format!("{links:0200}"), &node) {
            Ok(()) => links += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, VfsError::NoSpace, "names are charged");
    assert_eq!(node.stat().unwrap().links, 1 + links);
}

#[test]
fn deep_trees_are_dropped_and_removed_without_recursion() {
    for drop_whole in [true, false] {
        let vfs = Vfs::new(VfsLimits { bytes: 1 << 30, inodes: 200_000 });
        let mut at = vfs.root();
        for _ in 0..100_000 {
            at = at.create("d", New::Directory).unwrap();
        }
        drop(at);
        if !drop_whole {
            vfs.remove_all("/d").unwrap();
            assert_eq!(vfs.usage(), (0, 0));
        }
    }
}

#[test]
fn listing_survives_changes_under_way() {
    let vfs = vfs();
    for i in 0..100 {
        vfs.write_file(&format!("/{i:03}"), b"").unwrap();
    }
    let mut seen: Vec<String> = Vec::new();
    loop {
        let batch = vfs.root().list(seen.last().map(String::as_str), 7).unwrap();
        if batch.is_empty() {
            break;
        }
        seen.extend(batch.into_iter().map(|entry| entry.name));
        vfs.root().unlink(seen.last().unwrap()).unwrap();
    }
    assert_eq!(seen.len(), 100);
    assert!(seen.is_sorted());
}

#[test]
fn mounts_share_hide_protect_and_stay_busy() {
    let pod = vfs();
    let shared = pod.mkdir_all("/volumes/shared").unwrap();
    let [first, second] = ["one", "two"].map(|name| {
        let view = Mounts::new(pod.mkdir_all(&format!("/containers/{name}")).unwrap());
        let mount = |read_only| Mount { source: Source::Node(shared.clone()), sub_path: String::new(), read_only };
        view.mount("/data/shared", mount(name == "two")).unwrap();
        assert_eq!(view.mount("/data/shared", mount(false)), Err(VfsError::Busy));
        view
    });
    first.write_file("/data/shared/f", b"hello").unwrap();
    assert_eq!(&second.read_file("/data/shared/f").unwrap()[..], b"hello");
    assert_eq!(second.write_file("/data/shared/f", b"no"), Err(VfsError::ReadOnly));
    assert_eq!(second.remove_all("/data/shared/f"), Err(VfsError::ReadOnly));
    assert_eq!(first.remove_all("/data/shared"), Err(VfsError::Busy));
    first.write_file("/own", b"mine").unwrap();
    assert_eq!(second.read_file("/own"), Err(VfsError::NoEntry));
    assert_eq!(second.read_file("/data/shared/../../../../containers/one/own"), Err(VfsError::NoEntry));
    let old = first.resolve(&first.root(), "/own", false).unwrap().existing().unwrap();
    let new = first.resolve(&first.root(), "/data/shared/x", false).unwrap();
    assert_eq!(old.same_mount(&new.dir).err(), Some(VfsError::CrossDevice));
    // A mount point moves with its directory.
    rename(&first, "/data", "/moved").unwrap();
    assert_eq!(&first.read_file("/moved/shared/f").unwrap()[..], b"hello");
}

#[test]
fn sub_paths_and_single_files() {
    let pod = vfs();
    let volume = pod.mkdir_all("/volume").unwrap();
    pod.write_file("/volume/conf/app.toml", b"x=1").unwrap();
    pod.write_file("/secret", b"not yours").unwrap();
    let inside = Mounts::new(volume.clone());
    symlink(&inside, "/escape", "../../secret");
    let view = Mounts::new(pod.mkdir_all("/root").unwrap());
    let mount = |sub: &str| Mount { source: Source::Node(volume.clone()), sub_path: sub.into(), read_only: false };
    view.mount("/etc/app.toml", mount("conf/app.toml")).unwrap();
    assert_eq!(&view.read_file("/etc/app.toml").unwrap()[..], b"x=1");
    view.mount("/made", mount("new/dir")).unwrap();
    view.write_file("/made/f", b"f").unwrap();
    assert_eq!(&pod.read_file("/volume/new/dir/f").unwrap()[..], b"f");
    view.mount("/escape", mount("escape")).unwrap();
    assert!(view.read_file("/escape").is_err(), "a link cannot lead a sub path out of its volume");
    assert!(pod.root().lookup("volume").unwrap().lookup("secret").is_ok(), "it stays inside");
    view.mkdir_all("/dir").unwrap();
    assert_eq!(view.mount("/dir", mount("conf/app.toml")), Err(VfsError::IsDirectory));
}

#[test]
fn snapshots_change_as_a_whole() {
    let files = |version: &str| {
        let file = SnapshotFile { data: Bytes::from(version.to_owned()), mode: 0o400 };
        BTreeMap::from([("a".to_owned(), file.clone()), ("sub/b".to_owned(), file)])
    };
    let limits = VfsLimits { bytes: 10_000, inodes: 10 };
    let snapshot = Snapshot::new(&files("one"), limits).unwrap();
    let view = Mounts::new(vfs().root());
    view.mount(
        "/etc/config",
        Mount { source: Source::Snapshot(snapshot.clone()), sub_path: String::new(), read_only: false },
    )
    .unwrap();
    let open = view.resolve(&view.root(), "/etc/config/sub/b", true).unwrap().existing().unwrap();
    assert_eq!(open.node.stat().unwrap().mode, 0o400);
    assert_eq!(view.write_file("/etc/config/a", b"no"), Err(VfsError::ReadOnly));
    snapshot.replace(&files("two")).unwrap();
    assert_eq!(&view.read_file("/etc/config/sub/b").unwrap()[..], b"two");
    assert_eq!(&open.node.read_at(0, 10).unwrap()[..], b"one", "an open file keeps its content");
    assert_eq!(snapshot.replace(&files(&"x".repeat(20_000))), Err(VfsError::NoSpace));
    assert_eq!(&view.read_file("/etc/config/a").unwrap()[..], b"two");
}

#[test]
fn concurrent_changes_lose_nothing() {
    let vfs = Vfs::new(VfsLimits { bytes: 64 << 20, inodes: 10_000 });
    vfs.mkdir_all("/a").unwrap();
    vfs.mkdir_all("/b").unwrap();
    vfs.write_file("/log", b"").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let vfs = vfs.clone();
            scope.spawn(move || {
                let view = Mounts::new(vfs.root());
                let log = vfs.root().lookup("log").unwrap();
                for i in 0..200 {
                    let (from, to) = (format!("/a/{thread}-{i}"), format!("/b/{thread}-{i}"));
                    view.write_file(&from, b"x").unwrap();
                    rename(&view, &from, &to).unwrap();
                    log.append(b"0123456789").unwrap();
                    // Directories that every thread moves into one another: at most one way can win.
                    let _ = vfs.mkdir_all("/p/q");
                    let _ = rename(&view, "/p", "/a/p");
                    let _ = rename(&view, "/a/p", "/p");
                    let _ = vfs.root().create("race", New::Directory).and_then(|_| vfs.root().remove_dir("race"));
                }
            });
        }
    });
    assert_eq!(vfs.root().lookup("b").unwrap().stat().unwrap().size, 800);
    assert_eq!(vfs.read_file("/log").unwrap().len(), 4 * 200 * 10);
    assert_eq!(&vfs.read_file("/log").unwrap()[..20], b"01234567890123456789");
    for path in ["/a", "/b", "/p", "/log"] {
        vfs.remove_all(path).unwrap();
    }
    assert_eq!(vfs.usage(), (0, 0));
}

#[test]
fn only_one_exclusive_creation_wins() {
    let vfs = vfs();
    let wins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let root: Arc<dyn Node> = vfs.root();
                scope.spawn(move || (0..100).filter(|i| root.create(&i.to_string(), New::File(0o600)).is_ok()).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(wins, 100);
}

#[test]
fn snapshots_are_charged_to_their_pod() {
    let files = |bytes: usize| -> BTreeMap<String, SnapshotFile> {
        [("a".to_owned(), SnapshotFile { data: vec![7; bytes].into(), mode: 0o644 })].into()
    };
    let memory = crate::limits::MemoryBudget::of_pod(Some(1 << 20));
    let snapshot = Snapshot::charged(&files(300 << 10), VfsLimits::default(), &memory).unwrap();
    let used = memory.used();
    assert!(used > 300 << 10);
    snapshot.replace(&files(400 << 10)).unwrap();
    assert!(memory.used() > used && memory.used() < 600 << 10, "the old files are given back: {}", memory.used());
    let used = memory.used();
    assert_eq!(snapshot.replace(&files(900 << 10)), Err(VfsError::NoSpace));
    assert_eq!(memory.used(), used, "the old files stay");
    assert!(Snapshot::charged(&files(900 << 10), VfsLimits::default(), &memory).is_err());
    drop(snapshot);
    assert_eq!(memory.used(), 0);
}

#[test]
fn open_files_are_counted() {
    let view = Mounts::new(Vfs::new(VfsLimits::default()).root());
    let mut open: Vec<_> = (0..MAX_OPEN_FILES).map(|_| view.open_file().unwrap()).collect();
    assert_eq!(view.open_file().err(), Some(VfsError::TooManyOpen));
    open.pop();
    assert!(view.open_file().is_ok());
}
