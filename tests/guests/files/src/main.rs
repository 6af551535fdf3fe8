//! Exercises std::fs below the directory given (default /tmp): prints "ok", or panics where it differs from Unix.

use std::fs;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match (args.get(1).map(String::as_str), args.get(2)) {
        (Some("cat"), Some(path)) => print!("{}", fs::read_to_string(path).expect("readable file")),
        (Some("write"), Some(path)) => {
            fs::write(path, args.get(3).map(String::as_str).unwrap_or_default()).expect("writable file")
        }
        (Some("fill"), Some(path)) => match fill(Path::new(path)) {
            Ok(bytes) => println!("filled {bytes}"),
            Err((bytes, error)) => println!("full after {bytes}: {error}"),
        },
        (dir, _) => {
            exercise(Path::new(dir.unwrap_or("/tmp")));
            println!("ok");
        }
    }
}

fn fill(path: &Path) -> Result<usize, (usize, std::io::Error)> {
    let mut file = fs::File::create(path).map_err(|error| (0, error))?;
    let block = vec![7; 64 << 10];
    for written in 0..16_384 {
        file.write_all(&block).map_err(|error| (written * block.len(), error))?;
    }
    Ok(16_384 * block.len())
}

fn exercise(root: &Path) {
    let dir = root.join("exercise");
    fs::create_dir_all(dir.join("a/b")).unwrap();
    assert_eq!(fs::create_dir(&dir).unwrap_err().kind(), ErrorKind::AlreadyExists);

    let file = dir.join("a/file");
    fs::write(&file, "hello").unwrap();
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b" world").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello world");
    let mut open = fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    open.seek(SeekFrom::Start(6)).unwrap();
    open.write_all(b"W").unwrap();
    open.seek(SeekFrom::End(-5)).unwrap();
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "World");
    open.set_len(5).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 5);
    drop(open);

    let exclusive = fs::OpenOptions::new().write(true).create_new(true).open(&file);
    assert_eq!(exclusive.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(dir.join("none")).unwrap_err().kind(), ErrorKind::NotFound);

    let moved = dir.join("a/b/moved");
    fs::rename(&file, &moved).unwrap();
    assert!(!file.exists() && moved.exists());
    fs::copy(&moved, dir.join("copy")).unwrap();
    let mut names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a", "copy"]);
    assert!(fs::metadata(dir.join("a")).unwrap().is_dir());
    assert!(fs::remove_dir(dir.join("a")).is_err(), "not empty");
    assert!(fs::read(dir.join("../../../../etc/../exercise-none")).is_err());
    fs::remove_dir_all(&dir).unwrap();
    assert!(!dir.exists());
}
