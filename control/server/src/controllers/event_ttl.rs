//! Deletes Events that are old.

use std::time::Duration;

use copepod_core::controllers::event_ttl::expired;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::context::{Context, Running, now};

/// How often to look.
const EVERY: Duration = Duration::from_secs(60);
/// Events read at once.
const PAGE: u32 = 500;

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    Box::pin(async move {
        loop {
            tokio::select! {
                () = context.token.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = sweep(&context).await {
                tracing::debug!(%error, "events not swept");
            }
        }
    })
}

async fn sweep(context: &Context) -> Result<(), kube::Error> {
    let client = context.executor.client();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = Api::<Event>::all(client.clone()).list(&page).await?;
        for event in list.items.iter().filter(|e| expired(e, now())) {
            let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
            let name = event.metadata.name.as_deref().unwrap_or_default();
            let api: Api<Event> = Api::namespaced(client.clone(), namespace);
            match api.delete(name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        match list.metadata.continue_.filter(|c| !c.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(()),
        }
    }
}
