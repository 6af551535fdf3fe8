//! What std::fs reaches of wasi:filesystem beyond the everyday (see `files` for that), below the directory given: links,
//! times, open files without a name, holes, long directories, errors. Prints "ok", or panics where it differs from Unix.

use std::ffi::CString;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

unsafe extern "C" {
    fn symlink(target: *const i8, path: *const i8) -> i32;
}

/// `std::os::wasi::fs::symlink_path` is not stable; the C library that std links is.
fn link_to(target: &str, path: &Path) {
    let (target, path) = (CString::new(target).unwrap(), CString::new(path.to_str().unwrap()).unwrap());
    assert_eq!(
        unsafe { symlink(target.as_ptr().cast(), path.as_ptr().cast()) },
        0,
        "{}",
        std::io::Error::last_os_error()
    );
}

fn main() {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or("/tmp".into())).join("fs");
    fs::create_dir_all(&dir).unwrap();
    links(&dir);
    nameless(&dir);
    holes_and_times(&dir);
    directories(&dir);
    errors(&dir);
    fs::remove_dir_all(&dir).unwrap();
    println!("ok");
}

fn links(dir: &Path) {
    let (file, hard, soft) = (dir.join("file"), dir.join("hard"), dir.join("soft"));
    fs::write(&file, "one").unwrap();
    fs::hard_link(&file, &hard).unwrap();
    fs::write(&hard, "two").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    fs::remove_file(&file).unwrap();
    assert_eq!(fs::read_to_string(&hard).unwrap(), "two");

    link_to("hard", &soft);
    assert!(fs::symlink_metadata(&soft).unwrap().is_symlink());
    assert_eq!(fs::read_link(&soft).unwrap(), Path::new("hard"));
    assert_eq!(fs::read_to_string(&soft).unwrap(), "two");
    let absolute = dir.join("absolute");
    link_to(hard.to_str().unwrap(), &absolute);
    assert_eq!(fs::read_to_string(&absolute).unwrap(), "two");
    // Links cannot leave the root: `..` at `/` is `/`.
    let escape = dir.join("escape");
    link_to("../../../../../../etc/passwd", &escape);
    assert_eq!(fs::read(&escape).unwrap_err().kind(), ErrorKind::NotFound);
    link_to("circle", &dir.join("circle"));
    assert!(fs::read(dir.join("circle")).is_err());
    fs::remove_file(&soft).unwrap();
    assert!(hard.exists(), "removing a link leaves its target");
}

fn nameless(dir: &Path) {
    let path = dir.join("nameless");
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b"still here").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    assert!(!path.exists());
}

fn holes_and_times(dir: &Path) {
    let path = dir.join("holes");
    let mut file = File::create_new(&path).unwrap();
    file.seek(SeekFrom::Start(1 << 30)).unwrap();
    file.write_all(b"end").unwrap();
    let then = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    file.set_times(FileTimes::new().set_modified(then)).unwrap();
    file.sync_all().unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.modified().unwrap()), ((1 << 30) + 3, then));
    let mut file = File::open(&path).unwrap();
    let mut start = [1; 4096];
    file.read_exact(&mut start).unwrap();
    assert_eq!(start, [0; 4096]);
    assert!(file.write_all(b"x").is_err(), "opened for reading");

    let large: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(&path, &large).unwrap();
    assert!(fs::read(&path).unwrap() == large);
}

fn directories(dir: &Path) {
    let many = dir.join("many");
    fs::create_dir(&many).unwrap();
    for i in 0..500 {
        File::create(many.join(i.to_string())).unwrap();
    }
    // Removing while reading: every entry is met exactly once.
    let mut met = 0;
    for entry in fs::read_dir(&many).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
        met += 1;
    }
    assert_eq!(met, 500);
    fs::create_dir(dir.join("empty")).unwrap();
    fs::rename(&many, dir.join("empty")).unwrap();
    assert!(fs::rename(dir.join("empty"), dir.join("empty/inside")).is_err(), "not into itself");
}

fn errors(dir: &Path) {
    let (file, sub) = (dir.join("plain"), dir.join("sub"));
    fs::write(&file, "x").unwrap();
    fs::create_dir_all(sub.join("inner")).unwrap();
    // The standard library names few of WASI's codes, so these are the C library's numbers.
    let (exist, is_dir, name_too_long, not_dir, not_empty) = (20, 31, 37, 54, 55);
    let cases = [
        (fs::remove_dir(&sub).unwrap_err(), not_empty),
        (fs::remove_file(&sub).unwrap_err(), is_dir),
        (fs::remove_dir(&file).unwrap_err(), not_dir),
        (fs::read_dir(&file).err().unwrap(), not_dir),
        (fs::write(&sub, "x").unwrap_err(), is_dir),
        (fs::read(file.join("below")).unwrap_err(), not_dir),
        (fs::rename(&sub, &file).unwrap_err(), not_dir),
        (fs::create_dir(&file).unwrap_err(), exist),
        (fs::write(dir.join("n".repeat(256)), "x").unwrap_err(), name_too_long),
    ];
    for (at, (error, expected)) in cases.into_iter().enumerate() {
        assert_eq!(error.raw_os_error(), Some(expected), "case {at}: {error}");
    }
}
