"""The Python client: typed, dynamic, watch and server-side apply. Prints a line per step that worked."""

import sys

from kubernetes import client, config, dynamic, watch

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()

made = core.create_namespaced_config_map(
    "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="py", labels={"by": "python"}), data={"a": "1"})
)
assert made.metadata.uid
core.patch_namespaced_config_map("py", "default", {"data": {"b": "2"}})
assert core.read_namespaced_config_map("py", "default").data == {"a": "1", "b": "2"}
made.data = {"c": "3"}
try:
    core.replace_namespaced_config_map("py", "default", made)
    raise SystemExit("a stale replace was taken")
except client.ApiException as error:
    assert error.status == 409, error
print("typed")

seen = []
start = core.list_namespaced_config_map("default", label_selector="by=python")
assert [o.metadata.name for o in start.items] == ["py"]
watcher = watch.Watch()
core.patch_namespaced_config_map("py", "default", {"data": {"b": None}})
core.delete_namespaced_config_map("py", "default")
for event in watcher.stream(
    core.list_namespaced_config_map,
    "default",
    label_selector="by=python",
    resource_version=start.metadata.resource_version,
    timeout_seconds=60,
):
    seen.append((event["type"], event["object"].metadata.name))
    if event["type"] == "DELETED":
        watcher.stop()
assert seen == [("MODIFIED", "py"), ("DELETED", "py")], seen
print("watch")

resources = dynamic.DynamicClient(client.ApiClient())
deployments = resources.resources.get(api_version="apps/v1", kind="Deployment")
body = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "py"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"app": "py"}},
        "template": {
            "metadata": {"labels": {"app": "py"}},
            "spec": {"containers": [{"name": "c", "image": "hello:1"}]},
        },
    },
}
applied = deployments.server_side_apply(body=body, name="py", namespace="default", field_manager="python")
assert applied.spec.replicas == 0 and applied.metadata.managedFields[0].manager == "python"
assert apps.read_namespaced_deployment_scale("py", "default").spec.replicas == 0
deployments.delete(name="py", namespace="default")
# To apply the same again changes nothing; of a kind that no controller writes to meanwhile.
maps = resources.resources.get(api_version="v1", kind="ConfigMap")
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "same"}, "data": {"a": "b"}}
applied, again = (
    maps.server_side_apply(body=body, name="same", namespace="default", field_manager="python") for _ in range(2)
)
assert again.metadata.resourceVersion == applied.metadata.resourceVersion
print("dynamic")

pages, token = 0, None
for i in range(5):
    core.create_namespaced_secret("default", client.V1Secret(metadata=client.V1ObjectMeta(name=f"s{i}")))
while True:
    page = core.list_namespaced_secret("default", limit=2, _continue=token)
    pages, token = pages + 1, page.metadata._continue
    if not token:
        break
assert pages == 3, pages
core.delete_collection_namespaced_secret("default")
assert not core.list_namespaced_secret("default").items
print("pages")
