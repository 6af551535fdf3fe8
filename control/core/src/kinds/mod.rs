//! The built-in kinds: one file each, one line each in [`builtin`].

mod admission_policy;
mod admission_policy_binding;
mod admission_rules;
mod api_service;
pub mod certificate_signing_request;
pub mod component_status;
mod config_map;
mod container_env;
mod container_mounts;
mod container_validation;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device_class;
mod endpoint_slice;
mod endpoints;
mod event;
mod events_event;
mod fields;
mod flow_schema;
mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
pub(crate) mod job_status;
mod job_validation;
mod lease;
mod limit_range;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_affinity;
mod pod_annotations;
mod pod_columns;
mod pod_defaults;
mod pod_disruption_budget;
mod pod_network;
mod pod_os;
mod pod_parts;
mod pod_probes;
mod pod_projected;
mod pod_resources;
mod pod_security;
mod pod_template;
mod pod_update;
mod pod_validation;
mod pod_volumes;
pub mod priority_class;
mod priority_level_configuration;
mod replica_set;
mod replication_controller;
mod resource_claim;
pub mod resource_metrics;
mod resource_quota;
mod resource_slice;
mod reviews;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod service_cidr;
mod service_ports;
mod service_rules;
mod stateful_set;
pub(crate) mod storage_class;
pub(crate) mod value;
mod volume_attachment;
mod volume_attributes_class;
mod volume_defaults;
mod volume_sources;
mod webhook_configuration;
mod workload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use copepod_api::Gvk;

use crate::resource::{Names, Registry, Resource, ScalePaths, Scope, Strategy, Subresources};
use crate::schema::{self, Schema};

/// All built-in resources.
pub fn builtin() -> Registry {
    let kinds = [
        namespace::resource(),
        node::resource(),
        pod::resource(),
        service::resource(),
        endpoints::resource(),
        config_map::resource(),
        secret::resource(),
        event::resource(),
        service_account::resource(),
        component_status::resource(),
        deployment::resource(),
        replica_set::resource(),
        pod_template::resource(),
        replication_controller::resource(),
        resource_quota::resource(),
        limit_range::resource(),
        persistent_volume::resource(),
        persistent_volume_claim::resource(),
        stateful_set::resource(),
        daemon_set::resource(),
        controller_revision::resource(),
        job::resource(),
        cron_job::resource(),
        horizontal_pod_autoscaler::resource(),
        horizontal_pod_autoscaler_v1::resource(),
        pod_disruption_budget::resource(),
        priority_class::resource(),
        runtime_class::resource(),
        storage_class::resource(),
        volume_attachment::resource(),
        csi_driver::resource(),
        csi_node::resource(),
        csi_storage_capacity::resource(),
        volume_attributes_class::resource(),
        lease::resource(),
        endpoint_slice::resource(),
        events_event::resource(),
        // Access, admission, networking, extension and device kinds.
        reviews::token_review(),
        reviews::self_subject_review(),
        reviews::subject_access_review(),
        reviews::local_subject_access_review(),
        reviews::self_subject_access_review(),
        reviews::self_subject_rules_review(),
        role::role(),
        role::cluster_role(),
        role_binding::role_binding(),
        role_binding::cluster_role_binding(),
        certificate_signing_request::resource(),
        ingress::resource(),
        ingress_class::resource(),
        network_policy::resource(),
        service_cidr::resource(),
        ip_address::resource(),
        webhook_configuration::validating(),
        webhook_configuration::mutating(),
        admission_policy::validating(),
        admission_policy_binding::validating(),
        admission_policy::mutating(),
        admission_policy_binding::mutating(),
        custom_resource_definition::resource(),
        api_service::resource(),
        flow_schema::resource(),
        priority_level_configuration::resource(),
        resource_claim::claim(),
        resource_claim::template(),
        device_class::resource(),
        resource_slice::resource(),
        // After the core group's, so that clients take plain `nodes` and `pods` for those.
        resource_metrics::nodes(),
        resource_metrics::pods(),
    ];
    let mut registry = Registry::default();
    kinds.into_iter().flatten().for_each(|kind| registry.add(kind));
    registry
}

/// A resource known from its schema alone: generic rules, Name and Age columns.
pub fn from_schema(names: Names, subresources: Subresources, schema: Arc<Schema>) -> Resource {
    struct Generic;
    impl Strategy for Generic {
        fn allows_unconditional_update(&self) -> bool {
            false
        }
    }
    Resource { names, subresources, schema, strategy: Box::new(Generic), storage: None }
}

/// A kind's names in the short form that the kinds' files use. The singular is the kind in lower case.
fn names(api_version: &str, plural: &str, kind: &str, short: &[&str], scope: Scope) -> Names {
    let gvk = Gvk::from_api_version(api_version, kind);
    Names {
        group: gvk.group,
        version: gvk.version,
        kind: gvk.kind,
        plural: plural.to_string(),
        singular: kind.to_lowercase(),
        short: short.iter().map(ToString::to_string).collect(),
        categories: Vec::new(),
        scope,
    }
}

/// A built-in kind with its schema; `None` if the generated data has no such kind (a test holds that it has all).
fn built_in(names: Names, subresources: Subresources, strategy: impl Strategy + 'static) -> Option<Resource> {
    let schema = schema::builtin(&Gvk::new(&names.group, &names.version, &names.kind))?;
    Some(Resource { names, subresources, schema, strategy: Box::new(strategy), storage: None })
}

/// No generic subresources.
fn plain() -> Subresources {
    Subresources::default()
}

/// `/status` only.
fn with_status() -> Subresources {
    Subresources { status: true, scale: None }
}

/// `/status` and `/scale` as Deployments and ReplicaSets have it.
fn with_scale() -> Subresources {
    let scale = ScalePaths {
        spec_replicas: "spec.replicas".into(),
        status_replicas: "status.replicas".into(),
        selector: "spec.selector".into(),
    };
    Subresources { status: true, scale: Some(scale) }
}

/// The same names in the category `all`, which `kubectl get all` shows.
fn in_all(mut names: Names) -> Names {
    names.categories.push("all".into());
    names
}
