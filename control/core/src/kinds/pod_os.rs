//! Rules of a pod's operating system, and of what only Windows has.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::invalid;
use super::pod_security::each_container;
use super::value::{flag, has, text};
use crate::validate::{dns1123_subdomain, report};

const SYSTEMS: [&str; 2] = ["linux", "windows"];
/// Largest credentials in KiB.
const MAX_CREDENTIALS_KIB: usize = 64;
/// The shortest domain of a user that is too long, in bytes.
const MAX_DOMAIN_BYTES: usize = 256;
/// Longest name of a user in bytes.
const MAX_USER_BYTES: usize = 104;
/// Longest NetBIOS name in characters.
const MAX_NETBIOS_CHARS: usize = 15;
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
/// What a pod on Windows may not have in its spec, and in its security context; in upstream's order.
const LINUX_POD: [(&str, bool); 15] = [
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];
/// What a container on Windows may not have in its security context.
const LINUX_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What the operating system that the pod spec at `field` names allows in it.
pub(super) fn validate(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    if !has(spec, "/os") {
        return;
    }
    match text(spec, "/os/name") {
        "" => errors.push(FieldError::required(format!("{field}.os.name"), "")),
        "linux" => linux(errors, spec, field),
        "windows" => windows(errors, spec, field),
        other => errors.push(FieldError::not_supported(format!("{field}.os"), &json!(other), &SYSTEMS)),
    }
}

fn linux(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let mut refuse = |object: &Value, field: &str| {
        if has(object, "/securityContext/windowsOptions") {
            let message = "windows options cannot be set for a linux pod";
            errors.push(FieldError::forbidden(format!("{field}.securityContext.windowsOptions"), message));
        }
    };
    refuse(spec, field);
    each_container(spec, field, &mut refuse);
}

fn windows(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    for (key, in_context) in LINUX_POD {
        let parent = if in_context { "/securityContext" } else { "" };
        let value = spec.pointer(&format!("{parent}/{key}"));
        let set = match (key, value) {
            (_, None | Some(Value::Null)) => false,
            ("hostPID" | "hostIPC", Some(value)) => *value == json!(true),
            ("sysctls", Some(Value::Array(items))) => !items.is_empty(),
            _ => true,
        };
        if set {
            let field = format!("{field}{}.{key}", parent.replace('/', "."));
            errors.push(FieldError::forbidden(field, NOT_ON_WINDOWS));
        }
    }
    each_container(spec, field, &mut |container, field| {
        for key in LINUX_CONTAINER.iter().filter(|k| has(container, &format!("/securityContext/{k}"))) {
            errors.push(FieldError::forbidden(format!("{field}.securityContext.{key}"), NOT_ON_WINDOWS));
        }
    });
}

/// Containers that are processes of the node: all or none of the pod at `field`, and on the node's network.
pub(super) fn host_processes(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    const FLAG: &str = "/securityContext/windowsOptions/hostProcess";
    let of = |object: &Value| object.pointer(FLAG).and_then(Value::as_bool);
    let (pod, mut all, mut on_host) = (of(spec), 0, 0);
    each_container(spec, field, &mut |container, field| {
        all += 1;
        let own = of(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let message = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let field = format!("{field}.securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(field, &json!(own), &message));
        }
        if own.or(pod) == Some(true) {
            on_host += 1;
        }
    });
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let message = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        invalid(errors, field, "", message);
    }
    if !flag(spec, "/hostNetwork") {
        let message = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(format!("{field}.hostNetwork"), &json!(false), message));
    }
}

/// The rules of the `windowsOptions` of a security context, at `field`.
pub(super) fn windows_options(errors: &mut Vec<FieldError>, context: &Value, field: &str) {
    let Some(options) = context.get("windowsOptions").filter(|o| !o.is_null()) else { return };
    let at = |key: &str| options.get(key).and_then(Value::as_str);
    if let Some(name) = at("gmsaCredentialSpecName") {
        report(errors, format!("{field}.gmsaCredentialSpecName"), &json!(name), dns1123_subdomain(name));
    }
    if let Some(credentials) = at("gmsaCredentialSpec") {
        let field = format!("{field}.gmsaCredentialSpec");
        if credentials.is_empty() {
            invalid(errors, &field, "", "gmsaCredentialSpec cannot be an empty string");
        } else if credentials.len() > MAX_CREDENTIALS_KIB * 1024 {
            let message = format!("gmsaCredentialSpec size must be under {MAX_CREDENTIALS_KIB} KiB");
            invalid(errors, &field, credentials, &message);
        }
    }
    if let Some(name) = at("runAsUserName") {
        let field = format!("{field}.runAsUserName");
        for problem in user_problems(name) {
            invalid(errors, &field, name, &format!("runAsUserName{problem}"));
        }
    }
}

fn user_problems(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec![" cannot be an empty string".into()];
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return vec![" cannot contain control characters".into()];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>().as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec![" cannot contain more than one backslash".into()],
    };
    let mut problems: Vec<String> = Vec::new();
    if domain.is_some_and(|d| d.len() >= MAX_DOMAIN_BYTES) {
        problems.push(format!("'s Domain length must be under {MAX_DOMAIN_BYTES} characters"));
    }
    if domain.is_some_and(|d| !is_netbios(d) && dns1123_subdomain(&d.to_ascii_lowercase()).is_err()) {
        problems.push("'s Domain doesn't match the NetBios nor the DNS format".into());
    }
    if user.is_empty() {
        problems.push("'s User cannot be empty".into());
    } else if user.len() > MAX_USER_BYTES {
        problems.push(format!("'s User length must not be longer than {MAX_USER_BYTES} characters"));
    }
    if !user.is_empty() && user.bytes().all(|b| b == b'.' || b == b' ') {
        problems.push("'s User cannot contain only periods or spaces".into());
    }
    if user.bytes().any(|b| br#""/\:;|=,+*?<>@[]"#.contains(&b)) {
        problems.push(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.into());
    }
    problems
}

fn is_netbios(domain: &str) -> bool {
    (1..=MAX_NETBIOS_CHARS).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.bytes().any(|b| br#"\/:*?"<>|"#.contains(&b))
}
