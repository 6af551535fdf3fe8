//! What WASI 0.3 has of files, below the directory given: streams both ways, links, renaming, long directories, errors,
//! ways out. Prints "ok", or panics where it differs from what the interface promises.

use futures::future::{join, join4};
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{
    Descriptor, DescriptorFlags, DescriptorType, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

const NO_LINKS: PathFlags = PathFlags::empty();
const READ: DescriptorFlags = DescriptorFlags::READ;
const BOTH: DescriptorFlags = DescriptorFlags::READ.union(DescriptorFlags::WRITE);

struct Run;
wasip3::cli::command::export!(Run);

impl wasip3::exports::cli::run::Guest for Run {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        let below = args.get(1).cloned().unwrap_or("tmp".into());
        let roots = get_directories();
        let (root, name) = &roots[0];
        assert_eq!(name, "/");
        let flags = READ | DescriptorFlags::MUTATE_DIRECTORY;
        let _ = root.create_directory_at(format!("{below}/p3")).await;
        let dir = root.open_at(NO_LINKS, format!("{below}/p3"), OpenFlags::DIRECTORY, flags).await.unwrap();
        contents(&dir).await;
        streams(&dir).await;
        names(&dir).await;
        directories(&dir).await;
        errors(&dir).await;
        escapes(&dir).await;
        root.remove_directory_at(format!("{below}/p3")).await.unwrap();
        println!("ok");
        Ok(())
    }
}

async fn create(dir: &Descriptor, name: &str) -> Descriptor {
    dir.open_at(NO_LINKS, name.into(), OpenFlags::CREATE | OpenFlags::TRUNCATE, BOTH).await.unwrap()
}

/// Writes at the offset, or at the end.
async fn write(file: &Descriptor, offset: Option<u64>, data: &[u8]) -> Result<(), ErrorCode> {
    let (mut writer, reader) = wit_stream::new();
    let written = match offset {
        Some(offset) => file.write_via_stream(reader, offset),
        None => file.append_via_stream(reader),
    };
    let send = async {
        writer.write_all(data.to_vec()).await;
        drop(writer);
    };
    join(send, async { written.await }).await.1
}

async fn read(file: &Descriptor, offset: u64) -> Result<Vec<u8>, ErrorCode> {
    let (data, read) = file.read_via_stream(offset);
    let data = data.collect().await;
    read.await.map(|()| data)
}

/// The name of the code that an operation failed with.
fn code<T>(result: Result<T, ErrorCode>) -> String {
    match result {
        Ok(_) => "none".into(),
        Err(code) => format!("{code:?}").trim_start_matches("ErrorCode::").into(),
    }
}

async fn contents(dir: &Descriptor) {
    let file = create(dir, "file").await;
    write(&file, Some(0), b"hello world").await.unwrap();
    write(&file, Some(6), b"there").await.unwrap();
    write(&file, None, b", again").await.unwrap();
    assert_eq!(read(&file, 0).await.unwrap(), b"hello there, again");
    assert_eq!(read(&file, 13).await.unwrap(), b"again");
    assert_eq!(read(&file, 1000).await.unwrap(), b"");
    file.set_size(5).await.unwrap();
    write(&file, Some(70_000), b"end").await.unwrap();
    let data = read(&file, 0).await.unwrap();
    assert_eq!((data.len(), &data[..6], &data[69_999..]), (70_003, &b"hello\0"[..], &b"\0end"[..]));

    let mut at = file.stat().await.unwrap().data_modification_timestamp.unwrap();
    (at.seconds, at.nanoseconds) = (1_000_000_000, 5);
    file.set_times(NewTimestamp::NoChange, NewTimestamp::Timestamp(at)).await.unwrap();
    let stat = dir.stat_at(NO_LINKS, "file".into()).await.unwrap();
    let modified = stat.data_modification_timestamp.unwrap();
    assert_eq!((stat.size, stat.link_count), (70_003, 1));
    assert!(matches!(stat.type_, DescriptorType::RegularFile) && modified.seconds == 1_000_000_000);
    file.sync().await.unwrap();
    file.sync_data().await.unwrap();
    assert_eq!(file.get_flags().await.unwrap(), BOTH);

    let large: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let file = create(dir, "file").await;
    write(&file, Some(0), &large).await.unwrap();
    assert!(read(&file, 0).await.unwrap() == large);
    dir.unlink_file_at("file".into()).await.unwrap();
}

/// Streams that are joined to each other, dropped early, or never asked for anything.
async fn streams(dir: &Descriptor) {
    let (one, two) = (create(dir, "one").await, create(dir, "two").await);
    let data: Vec<u8> = (0..500_000u32).map(|i| (i % 249) as u8).collect();
    write(&one, Some(0), &data).await.unwrap();
    let (reader, read_all) = one.read_via_stream(10);
    two.write_via_stream(reader, 0).await.unwrap();
    read_all.await.unwrap();
    assert!(read(&two, 0).await.unwrap() == data[10..], "copied without this program");

    let (mut reader, read_some) = one.read_via_stream(0);
    let (result, got) = reader.read(Vec::with_capacity(100)).await;
    assert!(matches!(result, StreamResult::Complete(n) if n == got.len()) && data.starts_with(&got));
    drop(reader);
    read_some.await.unwrap();
    let unasked = one.read_via_stream(0);

    let (writer, reader) = wit_stream::new::<u8>();
    let written = two.append_via_stream(reader);
    drop(writer);
    written.await.unwrap();
    assert_eq!(two.stat().await.unwrap().size, 499_990, "nothing was appended");

    // Several at once do not disturb each other.
    let results = join4(read(&one, 0), read(&one, 1000), write(&two, Some(0), &data), read(&one, 499_999)).await;
    assert!(results.0.unwrap() == data && results.1.unwrap() == data[1000..] && results.3.unwrap().len() == 1);
    results.2.unwrap();
    drop(unasked);
    for name in ["one", "two"] {
        dir.unlink_file_at(name.into()).await.unwrap();
    }
}

async fn names(dir: &Descriptor) {
    let file = create(dir, "a").await;
    write(&file, Some(0), b"a's").await.unwrap();
    dir.link_at(NO_LINKS, "a".into(), dir, "hard".into()).await.unwrap();
    assert_eq!(file.stat().await.unwrap().link_count, 2);
    let hard = dir.open_at(NO_LINKS, "hard".into(), OpenFlags::empty(), READ).await.unwrap();
    assert!(hard.is_same_object(&file).await);
    let hashes = join(hard.metadata_hash(), dir.metadata_hash_at(NO_LINKS, "a".into())).await;
    assert_eq!(hashes.0.unwrap().lower, hashes.1.unwrap().lower);
    dir.symlink_at("hard".into(), "soft".into()).await.unwrap();
    assert_eq!(dir.readlink_at("soft".into()).await.unwrap(), "hard");
    let kind = dir.stat_at(NO_LINKS, "soft".into()).await.unwrap().type_;
    assert!(matches!(kind, DescriptorType::SymbolicLink));
    let soft = dir.open_at(PathFlags::SYMLINK_FOLLOW, "soft".into(), OpenFlags::empty(), READ).await.unwrap();
    assert_eq!(read(&soft, 0).await.unwrap(), b"a's");
    let unfollowed = dir.open_at(NO_LINKS, "soft".into(), OpenFlags::empty(), READ).await;
    assert_eq!(code(unfollowed), "Loop");

    // Renamed over, it lives on while it is open.
    let other = create(dir, "b").await;
    write(&other, Some(0), b"b's").await.unwrap();
    dir.rename_at("b".into(), dir, "a".into()).await.unwrap();
    assert_eq!(code(dir.stat_at(NO_LINKS, "b".into()).await), "NoEntry");
    let now = dir.open_at(NO_LINKS, "a".into(), OpenFlags::empty(), READ).await.unwrap();
    assert_eq!(read(&now, 0).await.unwrap(), b"b's");
    for name in ["a", "hard", "soft"] {
        dir.unlink_file_at(name.into()).await.unwrap();
    }
    write(&file, None, b", still").await.unwrap();
    assert_eq!(read(&file, 0).await.unwrap(), b"a's, still");
    assert_eq!(file.stat().await.unwrap().link_count, 0);
}

async fn directories(dir: &Descriptor) {
    dir.create_directory_at("many".into()).await.unwrap();
    let flags = READ | DescriptorFlags::MUTATE_DIRECTORY;
    let many = dir.open_at(NO_LINKS, "many".into(), OpenFlags::DIRECTORY, flags).await.unwrap();
    for i in 0..300 {
        create(&many, &i.to_string()).await;
    }
    let (entries, end) = many.read_directory();
    let entries = entries.collect().await;
    end.await.unwrap();
    let mut names: Vec<u32> = entries.iter().map(|entry| entry.name.parse().unwrap()).collect();
    names.sort_unstable();
    assert!(names.into_iter().eq(0..300), "each once, without . and ..");
    assert!(entries.iter().all(|entry| matches!(entry.type_, DescriptorType::RegularFile)));

    // Read one by one, and given up.
    let (mut entries, end) = many.read_directory();
    for _ in 0..10 {
        assert!(entries.next().await.is_some());
    }
    drop(entries);
    end.await.unwrap();
    assert_eq!(code(dir.remove_directory_at("many".into()).await), "NotEmpty");
    for i in 0..300 {
        many.unlink_file_at(i.to_string()).await.unwrap();
    }
    dir.remove_directory_at("many".into()).await.unwrap();
}

async fn errors(dir: &Descriptor) {
    let file = create(dir, "plain").await;
    dir.create_directory_at("sub".into()).await.unwrap();
    let path = |name: &str| name.to_owned();
    let new = OpenFlags::CREATE | OpenFlags::EXCLUSIVE;
    let (entries, end) = file.read_directory();
    assert_eq!(entries.collect().await.len(), 0);
    let reading = dir.open_at(NO_LINKS, path("plain"), OpenFlags::empty(), READ).await.unwrap();
    let cases = [
        (code(dir.open_at(NO_LINKS, path("none"), OpenFlags::empty(), READ).await), "NoEntry"),
        (code(dir.open_at(NO_LINKS, path("plain"), new, BOTH).await), "Exist"),
        (code(dir.open_at(NO_LINKS, path("plain"), OpenFlags::DIRECTORY, READ).await), "NotDirectory"),
        (code(dir.open_at(NO_LINKS, path("plain/x"), OpenFlags::empty(), READ).await), "NotDirectory"),
        (code(dir.open_at(NO_LINKS, path("sub"), OpenFlags::empty(), BOTH).await), "IsDirectory"),
        (code(dir.open_at(NO_LINKS, "n".repeat(256), OpenFlags::CREATE, BOTH).await), "NameTooLong"),
        (code(dir.create_directory_at(path("sub")).await), "Exist"),
        (code(dir.unlink_file_at(path("none")).await), "NoEntry"),
        (code(dir.unlink_file_at(path("sub")).await), "IsDirectory"),
        (code(dir.remove_directory_at(path("plain")).await), "NotDirectory"),
        (code(dir.link_at(NO_LINKS, path("plain"), dir, path("sub")).await), "Exist"),
        (code(dir.rename_at(path("sub"), dir, path("plain")).await), "NotDirectory"),
        (code(dir.readlink_at(path("plain")).await), "Invalid"),
        (code(read(dir, 0).await), "IsDirectory"),
        (code(end.await), "NotDirectory"),
        (code(write(&file, Some(u64::MAX - 1), b"xyz").await), "FileTooLarge Overflow Invalid"),
        (code(write(&reading, Some(0), b"x").await), "BadDescriptor NotPermitted"),
        (code(write(dir, Some(0), b"x").await), "IsDirectory BadDescriptor"),
        (code(file.set_size(u64::MAX).await), "FileTooLarge Invalid"),
    ];
    for (at, (code, expected)) in cases.iter().enumerate() {
        assert!(expected.split(' ').any(|expected| expected == code), "case {at}: {code}, not {expected}");
    }
    dir.unlink_file_at(path("plain")).await.unwrap();
    dir.remove_directory_at(path("sub")).await.unwrap();
}

/// Nothing above the root is there, however it is asked for.
async fn escapes(dir: &Descriptor) {
    let up = "../".repeat(20) + "etc/passwd";
    let _ = dir.symlink_at(up.clone(), "out".into()).await;
    let _ = dir.symlink_at("/etc/passwd".into(), "absolute".into()).await;
    for path in [up, "/etc/passwd".into(), "out".into(), "absolute".into(), "../../nothing/../../etc/passwd".into()] {
        let flags = PathFlags::SYMLINK_FOLLOW;
        let opened = code(dir.open_at(flags, path.clone(), OpenFlags::empty(), READ).await);
        assert!(opened == "NotPermitted" || opened == "NoEntry", "{path}: {opened}");
        let renamed = code(dir.rename_at(path.clone(), dir, "in".into()).await);
        assert!(renamed == "NotPermitted" || renamed == "NoEntry" || !path.contains('/'), "{path}: {renamed}");
    }
    for name in ["out", "absolute", "in"] {
        let _ = dir.unlink_file_at(name.into()).await;
    }
}
