//! The defaults in `docs/limits.md` are those of the code.

use std::collections::BTreeMap;
use std::time::Duration;

use copepod_runtime::rate::LOG_RATE;
use copepod_runtime::sockets::NetLimits;
use copepod_runtime::vfs::{self, VfsLimits};
use copepod_runtime::{
    HttpLimits, RuntimeConfig, buffers, compile, engine, fair, handles, instance, limits, outgoing, sockets,
};

const LIMITS: &str = include_str!("../../docs/limits.md");

/// `| name | default |` of all tables.
fn documented() -> BTreeMap<String, String> {
    let rows = LIMITS.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    let cells = rows.map(|row| row.split('|').map(str::trim).skip(1).collect::<Vec<_>>());
    let mut found = BTreeMap::new();
    for row in cells.filter(|row| row[0] != "name") {
        assert_eq!(row.len(), 5, "{row:?} has four cells and an end");
        assert!(!row[3].is_empty(), "{row:?} says what is seen");
        assert_eq!(found.insert(row[0].to_owned(), row[1].to_owned()), None, "{} is there twice", row[0]);
    }
    found
}

fn bytes(n: impl TryInto<u64>) -> String {
    let n = n.try_into().ok().unwrap();
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| n >= 1 << shift && n % (1 << shift) == 0 && n != 4096);
    unit.map_or_else(|| format!("{n} B"), |(shift, unit)| format!("{} {unit}", n >> shift))
}

fn time(t: Duration) -> String {
    if t.subsec_millis() > 0 { format!("{} ms", t.as_millis()) } else { format!("{} s", t.as_secs()) }
}

#[test]
fn the_documented_defaults_are_the_codes() {
    let net = NetLimits::default();
    let files = VfsLimits::default();
    let http = HttpLimits::default();
    let runtime = RuntimeConfig::new("");
    let count = |n: usize| n.to_string();
    let expected = [
        ("container memory", bytes(crate::wasm::DEFAULT_MEMORY)),
        ("shared memory", bytes(crate::wasm::SHARED_MEMORY)),
        ("buffers", bytes(net.buffer_bytes)),
        ("instance", bytes(limits::INSTANCE_BYTES)),
        ("handle", bytes(limits::HANDLE_BYTES)),
        ("handles", count(instance::MAX_HANDLES)),
        ("table elements", count(engine::MAX_TABLE_ELEMENTS)),
        ("wasm stack", bytes(engine::MAX_WASM_STACK as u64)),
        ("host call", bytes(instance::MAX_HOSTCALL_BYTES as u64)),
        ("random bytes", bytes(instance::MAX_RANDOM_BYTES)),
        ("root files", bytes(files.bytes)),
        ("inodes", files.inodes.to_string()),
        ("emptyDir", bytes(files.bytes)),
        ("volume files", bytes(crate::volumes::MAX_FILES_BYTES as u64)),
        ("open files", count(vfs::MAX_OPEN_FILES)),
        ("open hostPath files", count(vfs::MAX_OPEN_HOST_FILES)),
        ("file name", bytes(vfs::MAX_NAME as u64)),
        ("path", bytes(vfs::MAX_PATH as u64)),
        ("symbolic links in a path", count(vfs::MAX_LINKS)),
        ("sockets", count(net.sockets)),
        ("socket", bytes(sockets::SOCKET_BYTES)),
        ("backlog", count(net.backlog)),
        ("connection buffer", bytes(sockets::PIPE_BYTES as u64)),
        ("least connection buffer", format!("{} KiB", sockets::PIPE_MIN_BYTES >> 10)),
        ("datagrams of a socket", count(net.datagrams)),
        ("datagram bytes", bytes(net.datagram_bytes as u64)),
        ("datagram", bytes(sockets::MAX_DATAGRAM as u64)),
        ("datagram cost", bytes(sockets::DATAGRAM_COST as u64)),
        ("lookups at once", count(net.lookups)),
        ("lookups per second", net.lookup_rate.per_second.to_string()),
        ("outside lookups per second", crate::fabric::OUTSIDE_LOOKUPS.per_second.to_string()),
        ("node port connections", count(crate::node_ports::MAX_CONNECTIONS)),
        ("requests at once", count(http.max_concurrency)),
        ("requests waiting", count(http.max_queued)),
        ("request timeout", time(http.timeout)),
        ("message head", bytes(copepod_runtime::MAX_HEADER_BYTES)),
        ("header fields", count(copepod_runtime::MAX_HEADERS)),
        ("body", bytes(http.max_body)),
        ("body idle", time(http.idle)),
        ("connection idle", time(copepod_runtime::HEADER_TIMEOUT)),
        ("read timeout", time(outgoing::READ_TIMEOUT)),
        ("headers made by a guest", bytes(handles::MAX_FIELDS_BYTES as u64)),
        ("body part", bytes(outgoing::BODY_CHUNK as u64)),
        ("exchange", bytes(sockets::EXCHANGE_BYTES)),
        ("HTTP connection", bytes(sockets::HTTP_CONNECTION_BYTES)),
        ("connect timeout", time(outgoing::CONNECT_TIMEOUT)),
        ("response timeout", time(outgoing::RESPONSE_TIMEOUT)),
        ("tick", time(copepod_runtime::TICK)),
        ("CPU period", time(fair::CPU_PERIOD)),
        ("start-up CPU", time(runtime.start_cpu)),
        ("start-up timeout", time(runtime.start_timeout)),
        ("compilations at once", count(compile::MAX_COMPILES)),
        ("compile timeout", time(compile::COMPILE_TIMEOUT)),
        ("compile CPU", time(Duration::from_secs(compile::COMPILE_CPU_SECONDS))),
        ("compile memory", bytes(compile::COMPILE_MEMORY)),
        ("module", bytes(compile::MAX_MODULE_BYTES)),
        ("log bytes per second", bytes(LOG_RATE.per_second)),
        ("log line", bytes(crate::logs::MAX_LINE_BYTES as u64)),
        ("pods", count(crate::agent::MAX_PODS)),
        ("instances", runtime.max_instances.to_string()),
        ("mappings per instance", engine::MAPS_PER_INSTANCE.to_string()),
    ];
    let expected: BTreeMap<_, _> = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(documented(), expected);
    let said = [
        format!("a burst of {}", bytes(LOG_RATE.burst)),
        format!("a burst of {}", crate::fabric::OUTSIDE_LOOKUPS.burst),
        format!("at most {}", bytes(net.buffer_bytes)),
    ];
    for words in said {
        assert!(LIMITS.contains(&words), "{words:?}");
    }
    assert_eq!(buffers::BUFFER_SHARE, 8, "an eighth");
}
