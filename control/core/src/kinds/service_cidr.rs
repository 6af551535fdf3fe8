//! ServiceCIDR.

use std::net::IpAddr;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{list, set, strings};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, IMMUTABLE};

/// ServiceCIDRs.
pub fn resource() -> Option<Resource> {
    let names = names("networking.k8s.io/v1", "servicecidrs", "ServiceCIDR", &[], Scope::Cluster);
    super::built_in(names, with_status(), ServiceCidr)
}

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        const FIELD: &str = "spec.cidrs";
        let given = list(object, "/spec/cidrs");
        if given.is_empty() {
            return vec![FieldError::required(FIELD, "at least one CIDR required")];
        }
        if given.len() > 2 {
            return vec![FieldError::invalid(FIELD, &json!(given), "may only hold up to 2 values")];
        }
        let mut errors = Vec::new();
        let mut families = Vec::new();
        for (i, text) in strings(object, "/spec/cidrs").enumerate() {
            match network(text) {
                Ok(address) => families.push(address.is_ipv4()),
                Err(message) => {
                    errors.push(FieldError::invalid(format!("{FIELD}[{i}]"), &json!(text), &message));
                }
            }
        }
        if families.len() == 2 && families.first() == families.last() {
            let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(FieldError::invalid(FIELD, &json!(given), message));
        }
        errors
    }
    /// A second family may be added; all else stays.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let (after, before) = (list(new, "/spec/cidrs"), list(old, "/spec/cidrs"));
        if after.len() != before.len() && !(before.len() == 1 && after.len() == 2) {
            return vec![FieldError::invalid("spec.cidrs", &json!(after), IMMUTABLE)];
        }
        let pairs = after.iter().zip(before).enumerate().filter(|(_, (a, b))| a != b);
        pairs.map(|(i, (a, _))| FieldError::invalid(format!("spec.cidrs[{i}]"), a, IMMUTABLE)).collect()
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("CIDRs", "string", "Ranges of cluster IPs."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let cidrs: Vec<&str> = strings(object, "/spec/cidrs").collect();
        vec![table::name(object), json!(cidrs.join(",")), table::age(object, now)]
    }
}

/// A CIDR that names its network, not an address in it.
fn network(text: &str) -> Result<IpAddr, String> {
    let (address, bits) = validate::cidr(text)?;
    let host_bits = match address {
        IpAddr::V4(a) => a.to_bits().checked_shl(u32::from(bits)).unwrap_or(0) != 0,
        IpAddr::V6(a) => a.to_bits().checked_shl(u32::from(bits)).unwrap_or(0) != 0,
    };
    if host_bits {
        return Err("must not have bits set beyond the prefix length".into());
    }
    Ok(address)
}
