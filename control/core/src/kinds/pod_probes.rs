//! Rules of probes and of hooks on a container's life.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{non_negative, required};
use super::value::{has, int, list, text};
use crate::validate::{http_header_name, port, port_name, report};

const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
const WINDOWS_SIGNALS: [&str; 2] = ["SIGKILL", "SIGTERM"];
/// Signals beside `SIGRTMIN+n` and `SIGRTMAX-n`.
const SIGNALS: [&str; 36] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
/// The largest n of `SIGRTMIN+n` and of `SIGRTMAX-n`.
const MAX_ABOVE_MIN: u8 = 15;
const MAX_BELOW_MAX: u8 = 14;

/// The rules of a probe at `field`. Of others than readiness probes, the first success decides.
pub(super) fn probe(errors: &mut Vec<FieldError>, probe: &Value, field: &str, readiness: bool) {
    handler(errors, probe, field, &["exec", "httpGet", "tcpSocket", "grpc"], None);
    let counts = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    non_negative(errors, probe, field, &counts);
    let grace = int(probe, "/terminationGracePeriodSeconds");
    let grace_field = format!("{field}.terminationGracePeriodSeconds");
    if let Some(grace) = grace.filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(&grace_field, &json!(grace), "must be greater than 0"));
    }
    if readiness {
        if let Some(grace) = grace {
            let message = "must not be set for readinessProbes";
            errors.push(FieldError::invalid(grace_field, &json!(grace), message));
        }
    } else if let Some(n) = int(probe, "/successThreshold").filter(|n| *n != 1) {
        errors.push(FieldError::invalid(format!("{field}.successThreshold"), &json!(n), "must be 1"));
    }
}

/// The rules of the `lifecycle` of a container in a pod with this spec.
pub(super) fn lifecycle(errors: &mut Vec<FieldError>, container: &Value, field: &str, spec: &Value) {
    let Some(lifecycle) = container.get("lifecycle") else { return };
    let grace = int(spec, "/terminationGracePeriodSeconds");
    for key in ["postStart", "preStop"] {
        if let Some(hook) = lifecycle.get(key).filter(|h| !h.is_null()) {
            handler(errors, hook, &format!("{field}.{key}"), &["exec", "httpGet", "tcpSocket", "sleep"], grace);
        }
    }
    if !has(lifecycle, "/stopSignal") {
        return;
    }
    let (signal, field) = (text(lifecycle, "/stopSignal"), format!("{field}.stopSignal"));
    match text(spec, "/os/name") {
        _ if !has(spec, "/os") => {
            let message = "may not be set for containers with empty `spec.os.name`";
            errors.push(FieldError::forbidden(field, message));
        }
        "windows" if !WINDOWS_SIGNALS.contains(&signal) => {
            errors.push(FieldError::not_supported(field, &json!(signal), &WINDOWS_SIGNALS));
        }
        "linux" if !is_signal(signal) => {
            let all = linux_signals();
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(field, &json!(signal), &all));
        }
        _ => {}
    }
}

fn linux_signals() -> Vec<String> {
    let mut all: Vec<String> = SIGNALS.iter().map(ToString::to_string).collect();
    all.extend((1..=MAX_ABOVE_MIN).map(|n| format!("SIGRTMIN+{n}")));
    all.extend((1..=MAX_BELOW_MAX).map(|n| format!("SIGRTMAX-{n}")));
    all.sort();
    all
}

fn is_signal(name: &str) -> bool {
    linux_signals().iter().any(|s| s == name)
}

/// `grace` is the pod's in seconds, for hooks that sleep.
fn handler(errors: &mut Vec<FieldError>, handler: &Value, field: &str, kinds: &[&str], grace: Option<i64>) {
    let mut given = kinds.iter().filter(|k| has(handler, &format!("/{k}")));
    let Some(kind) = given.next() else {
        errors.push(FieldError::required(field, "must specify a handler type"));
        return;
    };
    action(errors, handler.get(kind).unwrap_or(&Value::Null), &format!("{field}.{kind}"), kind, grace);
    for other in given {
        errors.push(FieldError::forbidden(format!("{field}.{other}"), "may not specify more than 1 handler type"));
    }
}

fn action(errors: &mut Vec<FieldError>, action: &Value, field: &str, kind: &str, grace: Option<i64>) {
    match kind {
        "exec" => {
            if list(action, "/command").is_empty() {
                errors.push(FieldError::required(format!("{field}.command"), ""));
            }
        }
        "sleep" => {
            let seconds = int(action, "/seconds").unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(field, &json!(seconds), &message));
            }
        }
        _ => {
            if kind == "httpGet" {
                required(errors, action, field, &["path"]);
            }
            let value = action.get("port").unwrap_or(&Value::Null);
            let check = match value.as_str() {
                Some(name) => port_name(name),
                None => port(value.as_i64().unwrap_or(0)),
            };
            report(errors, format!("{field}.port"), value, check);
            if kind == "httpGet" {
                let scheme = text(action, "/scheme");
                if !SCHEMES.contains(&scheme) {
                    errors.push(FieldError::not_supported(format!("{field}.scheme"), &json!(scheme), &SCHEMES));
                }
                for header in list(action, "/httpHeaders") {
                    let name = text(header, "/name");
                    report(errors, format!("{field}.httpHeaders"), &json!(name), http_header_name(name));
                }
            }
        }
    }
}
