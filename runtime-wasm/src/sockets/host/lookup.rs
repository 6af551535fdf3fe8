//! wasi:sockets/ip-name-lookup of WASI 0.2.

use std::net::IpAddr;
use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::generated::wasi::sockets::ip_name_lookup::{Host, HostResolveAddressStream, IpAddress};
use super::generated::wasi::sockets::network::ErrorCode;
use super::task::Task;
use super::{Network, SocketResult, SocketsCtxView, address};
use crate::network::NetError;
use crate::sockets::podnet::PodNet;

/// Longest name a guest may ask for, in bytes; longer ones are invalid.
const MAX_NAME: usize = 255;

/// A lookup under way, then its answers.
pub struct Lookup {
    task: Option<Task<Result<Vec<IpAddr>, NetError>>>,
    answers: Result<std::vec::IntoIter<IpAddr>, NetError>,
}

/// Looks a name up.
pub(super) fn resolve(net: &Arc<PodNet>, name: String) -> Result<Task<Result<Vec<IpAddr>, NetError>>, ErrorCode> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(ErrorCode::InvalidArgument);
    }
    let net = net.clone();
    Ok(Task::start(async move { net.resolve(&name).await }))
}

impl Host for SocketsCtxView<'_> {
    fn resolve_addresses(&mut self, network: Resource<Network>, name: String) -> SocketResult<Resource<Lookup>> {
        self.table.get(&network)?;
        let task = resolve(self.net, name)?;
        Ok(self.table.push(Lookup { task: Some(task), answers: Ok(Vec::new().into_iter()) })?)
    }
}

impl HostResolveAddressStream for SocketsCtxView<'_> {
    fn resolve_next_address(&mut self, lookup: Resource<Lookup>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&lookup)?;
        if let Some(task) = &mut lookup.task {
            let answer = task.take().ok_or(ErrorCode::WouldBlock)?;
            lookup.task = None;
            lookup.answers = answer.flatten().map(Vec::into_iter);
        }
        match &mut lookup.answers {
            Ok(answers) => Ok(answers.next().map(address::ip)),
            Err(error) => Err(error.clone().into()),
        }
    }

    fn subscribe(&mut self, lookup: Resource<Lookup>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, lookup)
    }

    fn drop(&mut self, lookup: Resource<Lookup>) -> wasmtime::Result<()> {
        self.table.delete(lookup)?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        if let Some(task) = &mut self.task {
            task.ready().await;
        }
    }
}
