//! Loading: what compiles, what does not, and what is kept.

use super::*;

/// Stands in for the compiler's process: this test binary, told to run this test with the two paths behind it.
#[test]
#[ignore = "run by `compiles_in_a_limited_process`"]
fn compiler_child() {
    let args: Vec<String> = std::env::args().collect();
    if let [.., input, output] = args.as_slice() {
        std::process::exit(compile::child_main(input.as_ref(), output.as_ref()));
    }
}

#[tokio::test]
async fn compiles_in_a_limited_process() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["tests::compiling::compiler_child", "--ignored", "--exact", "--nocapture"].map(String::from).to_vec();
    let compiler = Compiler { program: std::env::current_exe().unwrap(), args };
    let config =
        RuntimeConfig { compiler: Some(compiler), max_instances: 4, ..RuntimeConfig::new(dir.path().join("aot")) };
    let runtime = Runtime::new(config.clone()).unwrap();
    let module = dir.path().join("m.wasm");
    for (bytes, expected) in [
        (wat::parse_str(command("", "(i32.const 0)")).unwrap(), Ok(Kind::Command)),
        (wat::parse_str("(module)").unwrap(), Err(LoadError::CoreModule)),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff".to_vec(), Err(LoadError::Compile(String::new()))),
    ] {
        std::fs::write(&module, &bytes).unwrap();
        let loaded = runtime.load(&digest(&bytes), &module).await.map(|program| program.kind());
        match (loaded, expected) {
            (Err(LoadError::Compile(text)), Err(LoadError::Compile(_))) => assert!(!text.is_empty()),
            (loaded, expected) => assert_eq!(loaded, expected),
        }
    }
    let bytes = wat::parse_str(command("", "(i32.const 1)")).unwrap();
    std::fs::write(&module, &bytes).unwrap();
    let (cache, aside) = (dir.path().join("aot"), dir.path().join("aside"));
    std::fs::rename(&cache, &aside).unwrap();
    let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
    assert!(!error.is_permanent() && error.to_string().contains("writing artifact"), "{error}");
    std::fs::rename(&aside, &cache).unwrap();
    assert!(runtime.load(&digest(&bytes), &module).await.is_ok(), "a fault of the disk is not remembered");
    let gone = Compiler { program: "/nonexistent/compiler".into(), args: Vec::new() };
    let runtime =
        Runtime::new(RuntimeConfig { compiler: Some(gone), cache_dir: dir.path().join("b"), ..config }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    std::fs::write(&module, &bytes).unwrap();
    let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
    assert!(!error.is_permanent() && error.to_string().contains("/nonexistent/compiler"), "{error}");
}

#[tokio::test]
async fn compilations_have_a_budget() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    for (number, (script, words, permanent)) in [
        ("kill -XCPU $$", "compiling was given up: it takes more than 900 s of CPU time", true),
        ("kill -XFSZ $$", "compiling was given up: its code takes more than 2147483648 bytes", true),
        ("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$", "8589934592 bytes of memory", true),
        ("kill -KILL $$", "compiler was killed", false),
    ]
    .into_iter()
    .enumerate()
    {
        let compiler = Compiler { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
        let config = RuntimeConfig::new(dir.path().join(format!("aot-{number}")));
        let runtime = Runtime::new(RuntimeConfig { compiler: Some(compiler), max_instances: 1, ..config }).unwrap();
        let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
        assert!(error.to_string().contains(words), "{error} lacks {words:?}");
        assert_eq!(error.is_permanent(), permanent, "{error}");
    }
}

#[tokio::test]
async fn compiling_is_told_to_all_who_wait() {
    use crate::compile::Progress;
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RuntimeConfig { max_instances: 1, ..RuntimeConfig::new(dir.path()) }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let (module, digest) = (dir.path().join("m.wasm"), digest(&bytes));
    std::fs::write(&module, &bytes).unwrap();
    let told = parking_lot::Mutex::new(Vec::new());
    let load = |who: usize| {
        let (runtime, told, digest, module) = (&runtime, &told, &digest, &module);
        let tell = move |progress| told.lock().push((who, progress));
        async move { runtime.load_telling(digest, module, &tell).await }
    };
    let loaded = futures::future::join_all((0..4).map(load)).await;
    assert!(loaded.iter().all(Result::is_ok));
    let told_to = |who: usize| -> Vec<_> {
        told.lock().iter().filter(|(whom, _)| *whom == who).map(|(_, progress)| *progress).collect()
    };
    assert!(matches!(told_to(0)[..], [Progress::Compiling, Progress::Compiled(_)]), "{:?}", told_to(0));
    assert!((1..4).all(|who| told_to(who) == [Progress::Waiting]), "{:?}", told.lock());
    drop(loaded);
    runtime.load_telling(&digest, &module, &|progress| panic!("{progress:?} of an artifact at hand")).await.unwrap();
}

#[tokio::test]
async fn unloadable_modules_say_why() {
    let import = r#"(component
        (import "acme:db/query@1.0.0" (instance (export "get" (func))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let two = r#"(component
        (import "acme:db/query@1.0.0" (instance (export "get" (func))))
        (import "wasi:keyvalue/store@0.2.0" (instance (export "bucket" (type (sub resource)))))
        (import "acme:db/types" (instance (export "row" (type (eq 0)))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#
        .replace(
            r#"(export "row" (type (eq 0)))"#,
            r#"(type $t (record (field "a" u8))) (export "row" (type (eq $t)))"#,
        );
    let mistyped = r#"(component
        (import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" u32)))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let broken = b"\0asm\x0d\0\x01\0\xff\xff\xff";
    for (bytes, word) in [
        (b"#!/bin/sh\n".to_vec(), "not a WebAssembly module: first bytes are 23 21 2f"),
        (Vec::new(), "the file is empty"),
        (wat::parse_str("(module)").unwrap(), "build a component for wasm32-wasip2"),
        (wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap(), "imports \"env.f\""),
        (wat::parse_str(import).unwrap(), "imports \"acme:db/query@1.0.0\", which this node does not offer"),
        (
            wat::parse_str(two).unwrap(),
            r#"imports "acme:db/query@1.0.0", "wasi:keyvalue/store@0.2.0", which this node does not offer"#,
        ),
        (wat::parse_str(mistyped).unwrap(), "wasi:cli/exit@0.2.0"),
        (wat::parse_str("(component)").unwrap(), "it exports nothing"),
        (broken.to_vec(), "cannot be compiled"),
    ] {
        let error = load_bytes(&bytes).await.err().expect(word);
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
        assert!(error.is_permanent());
        assert_eq!(load_bytes(&bytes).await.err(), Some(error), "remembered");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let wrong = runtime().load("sha256:zz", file.path()).await.err().unwrap();
    assert!(matches!(wrong, LoadError::BadDigest(_)));
    std::fs::write(file.path(), wat::parse_str(command("", SPIN)).unwrap()).unwrap();
    let wrong = runtime().load(&digest(b"something else"), file.path()).await.err().unwrap();
    assert!(matches!(wrong, LoadError::DigestMismatch(_)));
}

#[tokio::test]
async fn artifacts_are_made_once_kept_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("aot");
    let new_runtime = || Runtime::new(RuntimeConfig { max_instances: 4, ..RuntimeConfig::new(&cache) }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    let (first, digest) = (new_runtime(), digest(&bytes));
    let programs = futures::future::join_all((0..8).map(|_| first.load(&digest, &module))).await;
    let programs: Vec<_> = programs.into_iter().map(Result::unwrap).collect();
    assert!(programs.iter().all(|program| Arc::ptr_eq(program, &programs[0])), "one program for all who ask");
    let artifacts = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    assert_eq!(artifacts().len(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

    // The module is gone: only the artifact can have served this.
    std::fs::remove_file(&module).unwrap();
    let second = new_runtime();
    second.load(&digest, &module).await.unwrap();

    // A damaged artifact is not mapped.
    let artifact = artifacts().remove(0);
    let mut damaged = std::fs::read(&artifact).unwrap();
    damaged[4096] ^= 1;
    std::fs::write(&artifact, damaged).unwrap();
    let third = new_runtime();
    assert!(matches!(third.load(&digest, &module).await, Err(LoadError::Io(_))), "it must look for the module again");
    std::fs::write(&module, &bytes).unwrap();
    third.load(&digest, &module).await.unwrap();
    new_runtime().load(&digest, &module).await.unwrap();
}
