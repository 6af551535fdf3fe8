//! Which of the control plane's parts run in this process: each task of a part notes that it runs, and the API server
//! tells clients (`kubectl get componentstatuses`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;

/// The part with the controllers.
pub const CONTROLLER_MANAGER: &str = "controller-manager";
/// The part that places pods.
pub const SCHEDULER: &str = "scheduler";

/// The parts' tasks, by part.
#[derive(Debug, Default)]
pub struct Components(Mutex<BTreeMap<&'static str, Tasks>>);

#[derive(Debug, Default)]
struct Tasks {
    started: usize,
    ended: usize,
}

/// Notes the end of a task, however it ends.
struct Running {
    components: Arc<Components>,
    part: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.components.0.lock().entry(self.part).or_default().ended += 1;
    }
}

impl Components {
    /// The task, noted as one of a part from now until it ends.
    pub fn noted<F: Future>(self: &Arc<Self>, part: &'static str, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.lock().entry(part).or_default().started += 1;
        let running = Running { components: self.clone(), part };
        async move {
            let _running = running;
            task.await
        }
    }

    /// What a part says of itself.
    ///
    /// # Errors
    /// Why it is not healthy: it was never started here, or some of its tasks have ended.
    pub fn health(&self, part: &str) -> Result<&'static str, String> {
        match self.0.lock().get(part) {
            None => Err(format!("no {part} runs in the API server's process")),
            Some(Tasks { started, ended: 1.. }) if *started == 1 => Err("it has ended".into()),
            Some(Tasks { started, ended: ended @ 1.. }) => Err(format!("{ended} of its {started} tasks have ended")),
            Some(_) => Ok("ok: runs in the API server's process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parts_are_healthy_while_all_of_their_tasks_run() {
        let components = Arc::new(Components::default());
        assert_eq!(components.health("a"), Err("no a runs in the API server's process".into()));
        let ends = tokio::spawn(components.noted("a", async {}));
        let stays = tokio::spawn(components.noted("b", std::future::pending::<()>()));
        let breaks = tokio::spawn(components.noted("b", async { panic!("as meant") }));
        assert!(components.health("a").is_ok() && components.health("b").is_ok());
        ends.await.unwrap();
        assert_eq!(components.health("a"), Err("it has ended".into()));
        assert!(breaks.await.is_err());
        assert_eq!(components.health("b"), Err("1 of its 2 tasks have ended".into()));
        stays.abort();
        assert!(stays.await.is_err());
        assert_eq!(components.health("b"), Err("2 of its 2 tasks have ended".into()));
    }
}
