//! One user's flood does not keep another out.

use axum::Extension;

use super::*;
use crate::api::MAX_INFLIGHT;
use crate::identity::Identity;

#[tokio::test]
async fn a_flood_of_one_user_does_not_starve_another() {
    const FLOOD: usize = 200;
    let s = Server::start().await;
    let ended: Arc<Mutex<Vec<(&str, u16)>>> = Arc::default();
    let send = |user: &'static str| {
        let (router, ended) = (s.router.clone().layer(Extension(Identity::new(user, &[]))), ended.clone());
        let request = Request::get("/api/v1/namespaces/default").body(Body::empty()).unwrap();
        tokio::spawn(async move {
            let code = router.oneshot(request).await.unwrap().status().as_u16();
            ended.lock().push((user, code));
        })
    };
    let settled = async |waiting: usize| {
        while s.state.inflight.waiting() != waiting {
            tokio::task::yield_now().await;
        }
    };
    // All places are taken, and a flood waits for them before the other user comes.
    let mut held = Vec::new();
    for _ in 0..MAX_INFLIGHT {
        held.push(s.state.inflight.enter("someone", 1).await.unwrap());
    }
    let mut tasks: Vec<_> = (0..FLOOD).map(|_| send("noisy")).collect();
    settled(FLOOD).await;
    tasks.push(send("quiet"));
    settled(FLOOD + 1).await;
    // The control plane's own have places of their own.
    send("system:kube-scheduler").await.unwrap();
    assert_eq!(*ended.lock(), [("system:kube-scheduler", 200)]);

    held.pop();
    for task in tasks {
        task.await.unwrap();
    }
    let ended = ended.lock();
    assert_eq!((ended.len(), ended.iter().filter(|(_, code)| *code == 200).count()), (FLOOD + 2, FLOOD + 2));
    let at = ended.iter().position(|(user, _)| *user == "quiet").unwrap();
    assert!(at <= 3, "the other user is the second in turn, but was the {at}th to be answered");
}
