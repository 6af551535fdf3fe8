//! Rules of security contexts. Those of Windows and of the operating system as such are in `pod_os`.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::invalid;
use super::pod_os;
use super::pod_volumes::descending_path;
use super::value::{flag, has, int, list, strings, text};
use crate::validate::{report, too_long};

/// The largest id of a user or group.
const MAX_ID: i64 = i32::MAX as i64;
const PROC_MOUNTS: [&str; 2] = ["Default", "Unmasked"];
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// Longest AppArmor profile in bytes.
const MAX_PROFILE_BYTES: usize = 4095;
/// Longest sysctl in bytes.
const MAX_SYSCTL_BYTES: usize = 253;
const SYSCTL_REGEX: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const GROUP_CHANGES: [&str; 2] = ["Always", "OnRootMismatch"];
const EXTRA_GROUPS: [&str; 2] = ["Merge", "Strict"];
const SELINUX_CHANGES: [&str; 2] = ["MountOption", "Recursive"];

/// Whether the pod's users are the node's: unless it says otherwise.
pub(super) fn host_users(spec: &Value) -> bool {
    spec.get("hostUsers").and_then(Value::as_bool).unwrap_or(true)
}

/// Calls `visit` with every container of the pod spec at `field`, and with the container's own field.
pub(super) fn each_container<'a>(spec: &'a Value, field: &str, visit: &mut dyn FnMut(&'a Value, &str)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in list(spec, &format!("/{key}")).iter().enumerate() {
            visit(container, &format!("{field}.{key}[{i}]"));
        }
    }
}

/// The rules of a pod's `securityContext`; its spec stands at `field`.
pub(super) fn pod(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let null = Value::Null;
    let context = spec.get("securityContext").unwrap_or(&null);
    let field = format!("{field}.securityContext");
    ids(errors, context, &field, &["fsGroup", "runAsUser", "runAsGroup"]);
    for (i, group) in list(context, "/supplementalGroups").iter().enumerate() {
        report(errors, format!("{field}.supplementalGroups[{i}]"), group, id(group.as_i64().unwrap_or(0)));
    }
    if flag(spec, "/shareProcessNamespace") && flag(spec, "/hostPID") {
        let message = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(format!("{field}.shareProcessNamespace"), &json!(true), message));
    }
    sysctls(errors, spec, list(context, "/sysctls"), &format!("{field}.sysctls"));
    policy(errors, context, &field, "fsGroupChangePolicy", &GROUP_CHANGES);
    seccomp(errors, context, &format!("{field}.seccompProfile"));
    pod_os::windows_options(errors, context, &format!("{field}.windowsOptions"));
    app_armor(errors, context, &format!("{field}.appArmorProfile"));
    policy(errors, context, &field, "supplementalGroupsPolicy", &EXTRA_GROUPS);
    policy(errors, context, &field, "seLinuxChangePolicy", &SELINUX_CHANGES);
}

fn policy(errors: &mut Vec<FieldError>, context: &Value, field: &str, key: &str, valid: &[&str]) {
    let value = text(context, &format!("/{key}"));
    if has(context, &format!("/{key}")) && !valid.contains(&value) {
        errors.push(FieldError::not_supported(format!("{field}.{key}"), &json!(value), valid));
    }
}

/// The rules of a container's `securityContext` at `field`. `host_users`: the pod's users are the node's.
pub(super) fn container(errors: &mut Vec<FieldError>, context: Option<&Value>, field: &str, host_users: bool) {
    let Some(context) = context.filter(|c| !c.is_null()) else { return };
    ids(errors, context, field, &["runAsUser", "runAsGroup"]);
    if has(context, "/procMount") {
        let (mount, field) = (text(context, "/procMount"), format!("{field}.procMount"));
        if !PROC_MOUNTS.contains(&mount) {
            errors.push(FieldError::not_supported(&field, &json!(mount), &PROC_MOUNTS));
        }
        if host_users && mount == "Unmasked" {
            invalid(errors, &field, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(errors, context, &format!("{field}.seccompProfile"));
    if context.get("allowPrivilegeEscalation") == Some(&json!(false)) {
        let whole = |rule: &str| FieldError {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!(
                "Invalid value: {}: cannot set `allowPrivilegeEscalation` to false and {rule}",
                Shown(context)
            ),
        };
        if flag(context, "/privileged") {
            errors.push(whole("`privileged` to true"));
        }
        for _ in strings(context, "/capabilities/add").filter(|c| *c == "CAP_SYS_ADMIN") {
            errors.push(whole("`capabilities.Add` CAP_SYS_ADMIN"));
        }
    }
    pod_os::windows_options(errors, context, &format!("{field}.windowsOptions"));
    app_armor(errors, context, &format!("{field}.appArmorProfile"));
}

/// A pod whose users are not the node's may share nothing else with it.
pub(super) fn own_users(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    const MESSAGE: &str = "when `hostUsers` is false";
    if host_users(spec) {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, &format!("/{key}")) {
            errors.push(FieldError::forbidden(format!("{field}.{shown}"), MESSAGE));
        }
    }
    each_container(spec, field, &mut |container, field| {
        if !list(container, "/volumeDevices").is_empty() {
            errors.push(FieldError::forbidden(format!("{field}.volumeDevices"), MESSAGE));
        }
    });
}

fn ids(errors: &mut Vec<FieldError>, context: &Value, field: &str, keys: &[&str]) {
    for key in keys {
        if let Some(n) = int(context, &format!("/{key}")) {
            report(errors, format!("{field}.{key}"), &json!(n), id(n));
        }
    }
}

fn id(n: i64) -> Result<(), String> {
    if (0..=MAX_ID).contains(&n) { Ok(()) } else { Err(format!("must be between 0 and {MAX_ID}, inclusive")) }
}

fn seccomp(errors: &mut Vec<FieldError>, context: &Value, field: &str) {
    let Some(profile) = context.get("seccompProfile").filter(|p| !p.is_null()) else { return };
    profile_type(errors, profile, field, "seccompProfile");
    let (kind, path_field) = (text(profile, "/type"), format!("{field}.localhostProfile"));
    match profile.get("localhostProfile").and_then(Value::as_str) {
        None if kind == "Localhost" => {
            errors.push(FieldError::required(path_field, "must be set when seccomp type is Localhost"));
        }
        Some(path) if kind == "Localhost" => descending_path(errors, path, &path_field),
        Some(path) => {
            let message = format!(
                "Invalid value: {{\"Type\":{},\"LocalhostProfile\":{}}}: can only be set when seccomp type is Localhost",
                json!(kind),
                json!(path)
            );
            errors.push(FieldError { field: path_field, reason: "FieldValueInvalid", message });
        }
        None => {}
    }
}

fn profile_type(errors: &mut Vec<FieldError>, profile: &Value, field: &str, key: &str) {
    let (kind, field) = (text(profile, "/type"), format!("{field}.type"));
    if kind.is_empty() {
        errors.push(FieldError::required(field, &format!("type is required when {key} is set")));
    } else if !PROFILE_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(field, &json!(kind), &PROFILE_TYPES));
    }
}

fn app_armor(errors: &mut Vec<FieldError>, context: &Value, field: &str) {
    let Some(profile) = context.get("appArmorProfile").filter(|p| !p.is_null()) else { return };
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let path_field = format!("{field}.localhostProfile");
    let path = profile.get("localhostProfile").and_then(Value::as_str);
    match (text(profile, "/type"), path) {
        ("Localhost", None | Some("")) => errors.push(FieldError::required(path_field, NEEDED)),
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                invalid(errors, &path_field, path, "must not be padded with whitespace");
            }
            if path.len() > MAX_PROFILE_BYTES {
                errors.push(too_long(path_field, MAX_PROFILE_BYTES));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(path)) => {
            invalid(errors, &path_field, path, "can only be set when AppArmor type is Localhost");
        }
        _ => profile_type(errors, profile, field, "appArmorProfile"),
    }
}

fn sysctls(errors: &mut Vec<FieldError>, spec: &Value, sysctls: &[Value], field: &str) {
    let mut seen = HashSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let (name, field) = (text(sysctl, "/name"), format!("{field}[{i}].name"));
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else if !is_sysctl(name) {
            let message = format!("must have at most {MAX_SYSCTL_BYTES} characters and match regex {SYSCTL_REGEX}");
            invalid(errors, &field, name, &message);
        } else if seen.contains(name) {
            errors.push(FieldError::duplicate(&field, &json!(name)));
        }
        seen.insert(name);
        for (key, shared) in [("hostNetwork", of_network as fn(&str) -> bool), ("hostIPC", of_ipc)] {
            if flag(spec, &format!("/{key}")) && shared(&dotted(name)) {
                invalid(errors, &field, name, &format!("may not be specified when '{key}' is true"));
                break;
            }
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let outer = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let segment = |s: &str| {
        let bytes = s.as_bytes();
        outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|b| outer(Some(b)) || *b == b'-' || *b == b'_')
    };
    name.len() <= MAX_SYSCTL_BYTES && name.split(['.', '/']).all(segment)
}

/// A sysctl with dots between its parts; one that is written with slashes has them for dots, and the reverse.
fn dotted(name: &str) -> String {
    if name.find(['.', '/']).is_some_and(|i| name.get(i..).is_some_and(|rest| rest.starts_with('/'))) {
        name.chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect()
    } else {
        name.to_string()
    }
}

fn of_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.")
}

fn of_ipc(sysctl: &str) -> bool {
    sysctl == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| sysctl.starts_with(p))
}

/// A container's security context as upstream shows it in messages: with the names that its own code has for fields,
/// and with all of them.
struct Shown<'a>(&'a Value);

/// Name in the API, name in messages, what stands for none, and the same of its own fields.
struct Part(&'static str, &'static str, &'static str, &'static [Part]);

const CONTEXT: [Part; 12] = [
    Part("capabilities", "Capabilities", "null", &[Part("add", "Add", "null", &[]), Part("drop", "Drop", "null", &[])]),
    Part("privileged", "Privileged", "null", &[]),
    Part(
        "seLinuxOptions",
        "SELinuxOptions",
        "null",
        &[
            Part("user", "User", "\"\"", &[]),
            Part("role", "Role", "\"\"", &[]),
            Part("type", "Type", "\"\"", &[]),
            Part("level", "Level", "\"\"", &[]),
        ],
    ),
    Part(
        "windowsOptions",
        "WindowsOptions",
        "null",
        &[
            Part("gmsaCredentialSpecName", "GMSACredentialSpecName", "null", &[]),
            Part("gmsaCredentialSpec", "GMSACredentialSpec", "null", &[]),
            Part("runAsUserName", "RunAsUserName", "null", &[]),
            Part("hostProcess", "HostProcess", "null", &[]),
        ],
    ),
    Part("runAsUser", "RunAsUser", "null", &[]),
    Part("runAsGroup", "RunAsGroup", "null", &[]),
    Part("runAsNonRoot", "RunAsNonRoot", "null", &[]),
    Part("readOnlyRootFilesystem", "ReadOnlyRootFilesystem", "null", &[]),
    Part("allowPrivilegeEscalation", "AllowPrivilegeEscalation", "null", &[]),
    Part("procMount", "ProcMount", "null", &[]),
    Part("seccompProfile", "SeccompProfile", "null", &PROFILE),
    Part("appArmorProfile", "AppArmorProfile", "null", &PROFILE),
];
const PROFILE: [Part; 2] =
    [Part("type", "Type", "\"\"", &[]), Part("localhostProfile", "LocalhostProfile", "null", &[])];

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        fn object_form(f: &mut std::fmt::Formatter<'_>, object: &Value, parts: &[Part]) -> std::fmt::Result {
            for (i, Part(key, name, none, inner)) in parts.iter().enumerate() {
                write!(f, "{}\"{name}\":", if i == 0 { "{" } else { "," })?;
                match object.get(*key).filter(|v| !v.is_null()) {
                    None => write!(f, "{none}")?,
                    Some(value) if inner.is_empty() => write!(f, "{value}")?,
                    Some(value) => object_form(f, value, inner)?,
                }
            }
            write!(f, "}}")
        }
        object_form(f, self.0, &CONTEXT)
    }
}
