//! PURE: how a container's HTTP component is served, as its pod's annotations say.
//!
//! `SETTING.http.copepod/CONTAINER: "VALUE"`, for instance `requests-at-once.http.copepod/web: "16"`.

use std::time::Duration;

use copepod_api::Quantity;
use copepod_runtime::HttpLimits;
use k8s_openapi::api::core::v1::Pod;

/// What an annotation's prefix ends with, behind the setting's name.
const SUFFIX: &str = ".http.copepod";

/// A setting: its name, the values it may have, and how it is set.
type Setting = (&'static str, std::ops::RangeInclusive<u64>, fn(&mut HttpLimits, u64));

const SETTINGS: [Setting; 7] = [
    ("requests-per-instance", 1..=u32::MAX as u64, |limits, value| limits.requests_per_instance = narrow(value)),
    ("requests-at-once", 1..=10_000, |limits, value| limits.requests_at_once = narrow(value)),
    ("max-concurrency", 1..=10_000, |limits, value| limits.max_concurrency = narrow(value) as usize),
    ("max-queued", 0..=100_000, |limits, value| limits.max_queued = narrow(value) as usize),
    ("max-body", 0..=i64::MAX as u64, |limits, value| limits.max_body = value),
    ("timeout-seconds", 1..=86_400, |limits, value| limits.timeout = Duration::from_secs(value)),
    ("idle-seconds", 1..=86_400, |limits, value| limits.idle = Duration::from_secs(value)),
];

fn narrow(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A container's settings; [`HttpLimits::default`] where the pod says nothing. An instance that may serve several
/// requests at once may serve as many altogether, if nothing else is said.
pub fn http_limits(pod: &Pod, container: &str) -> Result<HttpLimits, String> {
    let mut limits = HttpLimits::default();
    let mut is_reuse_said = false;
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        let Some((prefix, name)) = key.split_once('/') else { continue };
        let Some(setting) = prefix.strip_suffix(SUFFIX).filter(|_| name == container) else { continue };
        let known = SETTINGS.iter().find(|(name, ..)| *name == setting);
        let (_, range, set) = known.ok_or_else(|| format!("annotation {key:?}: there is no such setting"))?;
        let bad = || format!("annotation {key:?}: {value:?} is not a number from {} to {}", range.start(), range.end());
        let quantity = Quantity::parse(value).ok().filter(|quantity| !quantity.is_negative()).ok_or_else(bad)?;
        let number = Some(quantity.as_bytes()).filter(|number| range.contains(number)).ok_or_else(bad)?;
        set(&mut limits, number);
        is_reuse_said |= setting == "requests-per-instance";
    }
    if !is_reuse_said {
        limits.requests_per_instance = limits.requests_per_instance.max(limits.requests_at_once);
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limits(annotations: serde_json::Value) -> Result<HttpLimits, String> {
        http_limits(&serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap(), "web")
    }

    #[test]
    fn settings_are_read() {
        let defaults = limits(json!({"other": "x", "example.com/web": "y"})).unwrap();
        assert_eq!((defaults.requests_per_instance, defaults.requests_at_once), (1, 1));
        let set = limits(json!({
            "requests-per-instance.http.copepod/web": "128",
            "requests-at-once.http.copepod/web": "16",
            "max-concurrency.http.copepod/web": "1k",
            "max-queued.http.copepod/web": "0",
            "max-body.http.copepod/web": "10Mi",
            "timeout-seconds.http.copepod/web": "5",
            "idle-seconds.http.copepod/web": "7",
            "requests-at-once.http.copepod/other": "nothing for this container",
        }))
        .unwrap();
        assert_eq!((set.requests_per_instance, set.requests_at_once), (128, 16));
        assert_eq!((set.max_concurrency, set.max_queued, set.max_body), (1000, 0, 10 << 20));
        assert_eq!((set.timeout, set.idle), (Duration::from_secs(5), Duration::from_secs(7)));
        let set = limits(json!({"requests-at-once.http.copepod/web": "16"})).unwrap();
        assert_eq!((set.requests_per_instance, set.requests_at_once), (16, 16));
    }

    #[test]
    fn bad_settings_are_named() {
        for (key, value, expected) in [
            ("requests-at-once.http.copepod/web", "0", "\"0\" is not a number from 1 to 10000"),
            ("requests-at-once.http.copepod/web", "many", "\"many\" is not a number"),
            ("timeout-seconds.http.copepod/web", "-1", "\"-1\" is not a number"),
            ("timeouts.http.copepod/web", "1", "there is no such setting"),
        ] {
            let error = limits(json!({ key: value })).unwrap_err();
            assert!(error.contains(key) && error.contains(expected), "{error}");
        }
    }
}
