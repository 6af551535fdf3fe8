//! Directories that outlived their volumes: the node was away, or its Node object gone, when they were deleted.
//!
//! A directory goes only if it is marked as one that is to go with its volume, and all PersistentVolumes of the cluster
//! were read and none names it. It stays if the mark is another cluster's, or if the cluster knows less than when the
//! mark was made, as one that was set back to an old copy: then nobody can tell whether it is needed.

use std::collections::HashSet;

use copepod_api::names::LOCAL_PATH;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::local::{LocalVolumes, Mark, blocking};

/// PersistentVolumes that are read at once.
const PAGE: u32 = 500;
/// The namespace by whose UID a cluster is known.
const CLUSTER: &str = "kube-system";

/// What becomes of a marked directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A volume names it.
    Named,
    /// Nobody can tell: it stays, whatever comes, and its mark goes.
    Disowned,
    /// Nobody needs it.
    Stray,
}

/// All volumes of a cluster, as far as they matter here.
struct Listed {
    cluster: String,
    /// The revision at which they were listed.
    revision: u64,
    /// The directories that they name.
    named: HashSet<String>,
}

/// PURE: decides about one directory.
fn fate(name: &str, mark: &Mark, listed: &Listed) -> Fate {
    if listed.named.contains(name) {
        Fate::Named
    } else if mark.cluster != listed.cluster || mark.revision > listed.revision {
        Fate::Disowned
    } else {
        Fate::Stray
    }
}

/// By what a cluster is told from others: the UID of a namespace that every cluster has.
pub(super) async fn cluster(client: &kube::Client) -> Result<String, kube::Error> {
    let namespace = Api::<Namespace>::all(client.clone()).get(CLUSTER).await?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}

/// Takes away the directories that no volume names any more; none unless all volumes could be read.
///
/// # Errors
/// What was not read or removed, and why; to be tried again.
pub(super) async fn remove(client: &kube::Client, local: &LocalVolumes) -> Result<(), String> {
    // The marks first: a volume whose mark is seen was there before the list.
    let place = local.clone();
    let marks = blocking(move || place.marks().map_err(|e| format!("marks not read: {e}"))).await?;
    if marks.is_empty() {
        return Ok(());
    }
    let listed = list(client).await.map_err(|e| format!("volumes not read: {e}"))?;
    let mut failed = Vec::new();
    for (name, mark) in marks {
        let (fate, place, directory) = (fate(&name, &mark, &listed), local.clone(), name.clone());
        let done = match fate {
            Fate::Named => continue,
            Fate::Disowned => {
                tracing::warn!(volume = name, "its directory stays: it is of another cluster, or of an older copy");
                blocking(move || place.unmark(&directory)).await
            }
            Fate::Stray => {
                tracing::info!(volume = name, "no PersistentVolume names its directory any more; taking it away");
                blocking(move || place.remove(&directory)).await
            }
        };
        failed.extend(done.err());
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

async fn list(client: &kube::Client) -> Result<Listed, kube::Error> {
    let api = Api::<PersistentVolume>::all(client.clone());
    let mut listed = Listed { cluster: cluster(client).await?, revision: 0, named: HashSet::new() };
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        listed.revision = page.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0);
        for volume in &page.items {
            // Its own name counts, too: nothing is taken away because somebody changed what it leads to.
            listed.named.insert(volume.name_any());
            let csi = volume.spec.as_ref().and_then(|s| s.csi.as_ref()).filter(|csi| csi.driver == LOCAL_PATH);
            listed.named.extend(csi.map(|csi| csi.volume_handle.clone()));
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(listed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use axum::extract::{Query, State};
    use axum::http::StatusCode;
    use axum::response::{IntoResponse, Response};
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_becomes_of_marked_directories() {
        let listed = Listed { cluster: "c1".into(), revision: 50, named: ["named".into()].into() };
        for (name, cluster, revision, expected) in [
            ("named", "c1", 10, Fate::Named),
            ("named", "c2", 99, Fate::Named),
            ("gone", "c1", 10, Fate::Stray),
            ("gone", "c1", 50, Fate::Stray),
            ("gone", "c1", 51, Fate::Disowned),
            ("gone", "c2", 10, Fate::Disowned),
        ] {
            let mark = Mark { cluster: cluster.into(), revision };
            assert_eq!(fate(name, &mark, &listed), expected, "{name} {cluster} {revision}");
        }
    }

    async fn volumes(
        State((pages, fails)): State<(Vec<Value>, bool)>,
        Query(ask): Query<BTreeMap<String, String>>,
    ) -> Response {
        let at = ask.get("continue").map_or(0, |token| token.parse::<usize>().unwrap());
        let last = at + 1 == pages.len();
        if last && fails {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let next = if last { String::new() } else { (at + 1).to_string() };
        let metadata = json!({"resourceVersion": "50", "continue": next});
        let list =
            json!({"apiVersion": "v1", "kind": "PersistentVolumeList", "items": pages[at], "metadata": metadata});
        Json(list).into_response()
    }

    /// An API server with these volumes on pages, the last of which may fail.
    fn server(pages: Vec<Value>, fails: bool) -> kube::Client {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CLUSTER, "uid": "c1"}});
        let router = Router::new()
            .route(&format!("/api/v1/namespaces/{CLUSTER}"), get(move || async move { Json(namespace) }))
            .route("/api/v1/persistentvolumes", get(volumes))
            .with_state((pages, fails));
        copepod_client::in_process(router, (), "test")
    }

    #[tokio::test]
    async fn only_marked_directories_that_nobody_names_go_and_only_if_all_volumes_were_read() {
        let volume = |name: &str, driver: &str, handle: &str| json!({"metadata": {"name": name}, "spec": {"csi": {"driver": driver, "volumeHandle": handle}}});
        let first = json!([volume("pv", LOCAL_PATH, "named"), volume("other", "example.com", "stray")]);
        let second = json!([volume("by-its-name", "example.com", "x"), volume("late", LOCAL_PATH, "last-page")]);
        let all = ["stray", "named", "last-page", "by-its-name", "foreign", "newer", "unmarked"];
        for (fails, gone) in [(false, &["stray"][..]), (true, &[])] {
            let root = tempfile::tempdir().unwrap();
            let local = LocalVolumes::new(root.path());
            for name in all {
                local.open(name).unwrap();
                std::fs::write(root.path().join("volumes").join(name).join("data"), "x").unwrap();
                let mark = match name {
                    "unmarked" => continue,
                    "foreign" => Mark { cluster: "c0".into(), revision: 1 },
                    "newer" => Mark { cluster: "c1".into(), revision: 51 },
                    _ => Mark { cluster: "c1".into(), revision: 50 },
                };
                local.mark(name, &mark).unwrap();
            }
            let client = server(vec![first.clone(), second.clone()], fails);
            assert_eq!(remove(&client, &local).await.is_err(), fails);
            let there = |name: &&str| root.path().join("volumes").join(name).join("data").exists();
            let left: BTreeSet<&str> = all.into_iter().filter(there).collect();
            assert_eq!(left, all.into_iter().filter(|name| !gone.contains(name)).collect(), "{fails}");
            // What was disowned stays for good.
            assert_eq!(local.is_marked("foreign") || local.is_marked("newer"), fails);
        }
    }
}
