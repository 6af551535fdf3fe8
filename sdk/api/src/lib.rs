//! Wire types shared by every program that talks to a cluster: resource names, object keys, quantities, selectors,
//! networks, images, `Status` errors, and our own names (identities, annotations, condition reasons). No IO.

pub mod cidr;
pub mod gvk;
pub mod image;
pub mod merge;
pub mod names;
pub mod node_selector;
pub mod quantity;
pub mod selector;
pub mod status;

pub use cidr::{Cidr, CidrError};
pub use gvk::{GroupKind, GroupResource, Gvk, Gvr};
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{ApiError, FieldError, MAX_FIELD_ERRORS};
