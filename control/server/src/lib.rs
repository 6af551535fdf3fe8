//! The control plane's IO shell: the API server on axum, PKI, authentication, node tunnels, and the controllers' driver.

pub mod api;
pub mod auth;
pub mod authorization;
pub mod bootstrap;
pub mod components;
pub mod controllers;
pub mod dialer;
pub mod identity;
pub mod images;
pub mod pki;
pub mod serve;
pub mod tunnel;
pub mod version;
