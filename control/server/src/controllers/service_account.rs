//! Gives every namespace its `default` ServiceAccount and the cluster's CA.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::service_account::{self, ROOT_CA};
use copepod_core::controllers::{Action, Plan, meta};

use super::context::{Context, Running, about, add_all};

/// Runs the ServiceAccount controller.
pub(super) fn run_accounts(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.namespaces.on_change(move |change| add_all(&q, change.new.as_ref().map(|n| Key::of(&**n))));
    let q = queue.clone();
    caches.accounts.on_change(move |change| {
        let (None, Some(gone)) = (&change.new, &change.old) else { return };
        if meta::text(&gone.metadata.name) == "default" {
            q.add(Key::new("", meta::text(&gone.metadata.namespace)));
        }
    });
    context.work(queue, |context, key| async move {
        let exists = context.caches.accounts.get(&Key::new(&key.name, "default")).is_some();
        let action = context.caches.namespaces.get(&key).and_then(|n| service_account::default_account(&n, exists));
        write(&context, &key, action).await
    })
}

/// Runs the CA publisher.
pub(super) fn run_root_ca(context: Context, ca_pem: String) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.namespaces.on_change(move |change| add_all(&q, change.new.as_ref().map(|n| Key::of(&**n))));
    let q = queue.clone();
    caches.root_cas.on_change(move |change| {
        add_all(&q, change.last().map(|c| Key::new("", meta::text(&c.metadata.namespace))));
    });
    let ca_pem: std::sync::Arc<str> = ca_pem.into();
    context.work(queue, move |context, key| {
        let ca_pem = ca_pem.clone();
        async move {
            let current = context.caches.root_cas.get(&Key::new(&key.name, ROOT_CA));
            let data = current.as_ref().map(|c| c.data.clone().unwrap_or_default());
            let action =
                context.caches.namespaces.get(&key).and_then(|n| service_account::root_ca(&n, data.as_ref(), &ca_pem));
            write(&context, &key, action).await
        }
    })
}

async fn write(context: &Context, key: &Key, action: Option<Action>) -> Outcome {
    let Some(namespace) = context.caches.namespaces.get(key) else { return Outcome::Done };
    let plan = Plan { actions: action.into_iter().collect(), ..Plan::default() };
    context.apply(&plan, &about("v1", "Namespace", &namespace.metadata), "").await.1
}
