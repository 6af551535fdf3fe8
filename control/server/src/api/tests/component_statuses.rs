//! Component statuses.

use super::*;
use crate::components::{CONTROLLER_MANAGER, SCHEDULER};

const ALL: &str = "/api/v1/componentstatuses";

#[tokio::test]
async fn component_statuses_tell_what_runs() {
    let s = Server::start().await;
    let nothing = s.get(ALL).await.ok();
    let health = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|c| format!("{} {}", c["metadata"]["name"].as_str().unwrap(), c["conditions"][0]["status"])).collect()
    };
    assert_eq!(nothing["kind"], "ComponentStatusList");
    assert_eq!(health(&nothing), ["controller-manager \"False\"", "etcd-0 \"True\"", "scheduler \"False\""]);
    let why = &nothing["items"][0]["conditions"][0]["error"];
    assert_eq!(why, "no controller-manager runs in the API server's process");

    let tasks: Vec<_> = [CONTROLLER_MANAGER, SCHEDULER]
        .map(|part| tokio::spawn(s.components.noted(part, std::future::pending::<()>())))
        .into();
    let running = s.get(ALL).await;
    assert_eq!(running.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    assert_eq!(health(&running.ok()), ["controller-manager \"True\"", "etcd-0 \"True\"", "scheduler \"True\""]);
    let one = s.get(&format!("{ALL}/scheduler")).await.ok();
    assert_eq!(
        one,
        json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "scheduler"}, "conditions": [
            {"type": "Healthy", "status": "True", "message": "ok: runs in the API server's process"}]})
    );
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    for task in tasks {
        assert!(task.await.is_err());
    }
    let table = s.get_as(ALL, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Name", "Status", "Message", "Error"]);
    assert_eq!(table["rows"][2]["cells"], json!(["scheduler", "Unhealthy", "", "it has ended"]));

    let selected = s.get(&format!("{ALL}?fieldSelector=metadata.name%3Detcd-0")).await.ok();
    assert_eq!(health(&selected), ["etcd-0 \"True\""]);
    assert_eq!(health(&s.get(&format!("{ALL}?labelSelector=a")).await.ok()), Vec::<String>::new());
    assert_eq!(s.get_as(ALL, "application/vnd.kubernetes.protobuf").await.code, 200);
    assert_eq!(s.get(&format!("{ALL}/kubelet")).await.err(404), "componentstatuses \"kubelet\" not found");
    s.delete(&format!("{ALL}/scheduler")).await.err(405);
    s.get(&format!("{ALL}?watch=true")).await.err(405);
}
