//! Names that Copepod's components agree on: identities, groups, well-known labels and annotations.

/// Group that may do everything (the admin's client certificate carries it as its organisation).
pub const GROUP_MASTERS: &str = "system:masters";
/// Group of every node agent.
pub const GROUP_NODES: &str = "system:nodes";
/// Group of every authenticated request.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Group of every anonymous request.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests without credentials.
pub const USER_ANONYMOUS: &str = "system:anonymous";
/// The identity under which the controllers' shared reflectors read.
pub const USER_CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
/// The scheduler's identity.
pub const USER_SCHEDULER: &str = "system:kube-scheduler";
/// The API server's own identity (bootstrap objects, DNS reflectors).
pub const USER_APISERVER: &str = "system:apiserver";

/// A node agent's user name.
pub fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

/// A controller's own user name, under which it writes (upstream's bootstrap service accounts).
pub fn controller_user(controller: &str) -> String {
    format!("system:serviceaccount:kube-system:{controller}")
}

/// ALPN-like name of the upgrade under which an agent offers its tunnel (`Upgrade: copepod-tunnel`).
pub const TUNNEL_UPGRADE: &str = "copepod-tunnel";
/// Where an agent opens its tunnel: the server dials the node through it.
pub const TUNNEL_PATH: &str = "/copepod/v1/tunnel";
/// Content-addressed blobs of the cluster's image store: GET/PUT/HEAD `{IMAGES_PATH}/blobs/sha256:HEX`.
pub const IMAGES_PATH: &str = "/copepod/v1/images";

/// Taint and condition reason of a node whose agent has not renewed its Lease.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a node that reports not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Label with the node's name.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// Label with the zone that a node is in.
pub const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// Label that names the Service an EndpointSlice belongs to.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that names who manages an EndpointSlice.
pub const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Annotation with a Deployment's revision.
pub const ANNOTATION_REVISION: &str = "deployment.kubernetes.io/revision";

/// Provisioner of the StorageClass `local-path`, and driver of its volumes: directories that nodes make.
pub const LOCAL_PATH: &str = "local-path.copepod";
/// Finalizer of such a volume: the node removes it once it has seen to the directory.
pub const FINALIZER_LOCAL_PATH: &str = "local-path.copepod/directory";
/// Finalizer of a claim: removed when no pod uses it.
pub const FINALIZER_CLAIM: &str = "kubernetes.io/pvc-protection";
/// Finalizer of a volume: removed when it is not bound.
pub const FINALIZER_VOLUME: &str = "kubernetes.io/pv-protection";
