use super::*;
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use std::time::Duration;

fn map(name: &str, revision: u64) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some("default".into());
    map.metadata.name = Some(name.into());
    map.metadata.resource_version = Some(revision.to_string());
    map
}

fn recorder(shared: &Shared<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = log.clone();
    shared.on_change(move |change| {
        let sign = match (&change.old, &change.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        let object = change.last().unwrap();
        sink.lock().push(format!("{sign}{}@{}", object.name_any(), revision_of(&**object)));
    });
    log
}

#[tokio::test]
async fn changes_are_told_once_and_in_order_through_a_relist() {
    let shared = Shared::default();
    let log = recorder(&shared);
    let events = vec![
        Event::Init,
        Event::InitApply(map("a", 1)),
        Event::InitApply(map("b", 2)),
        Event::InitDone,
        Event::Apply(map("c", 3)),
        Event::Apply(map("a", 4)),
        Event::Delete(map("b", 5)),
        // The watch was cut: a is unchanged, c is gone, d is new.
        Event::Init,
        Event::InitApply(map("a", 4)),
        Event::InitApply(map("d", 7)),
        Event::InitDone,
    ];
    shared.follow(stream::iter(events)).await;
    assert_eq!(*log.lock(), ["+a@1", "+b@2", "+c@3", "~a@4", "-b@5", "-c@3", "+d@7"]);
    assert!(shared.is_ready());
    assert_eq!((shared.len(), shared.revision()), (2, 7));
    assert_eq!(*recorder(&shared).lock(), ["+a@4", "+d@7"], "a late handler hears what is there");
}

#[tokio::test(start_paused = true)]
async fn a_writer_waits_for_its_own_write_however_long_it_takes() {
    let shared = Shared::<ConfigMap>::default();
    let (events, watch) = futures::channel::mpsc::unbounded();
    let send = |event| events.unbounded_send(event).unwrap();
    let follower = shared.clone();
    tokio::spawn(async move { follower.follow(watch).await });
    let waits = |revision| {
        let shared = shared.clone();
        tokio::spawn(async move { shared.caught_up(revision).await })
    };
    let (third, fifth) = (waits(3), waits(5));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!third.is_finished());
    send(Event::Apply(map("a", 4)));
    third.await.unwrap();

    // The watch is cut, and the object of revision 5 is gone meanwhile: the list does not show it.
    send(Event::Init);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = waits(6);
    tokio::time::sleep(Duration::from_secs(1)).await;
    send(Event::InitDone);
    fifth.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!late.is_finished(), "that list was begun before its write");
    send(Event::Init);
    send(Event::InitDone);
    late.await.unwrap();
}

#[tokio::test]
async fn objects_are_found_by_terms_through_every_change_and_relist() {
    let labels = |map: &ConfigMap| -> Vec<String> {
        map.metadata.labels.iter().flatten().map(|(k, v)| format!("{k}={v}")).collect()
    };
    let labelled = |name: &str, revision, labels: &[(&str, &str)]| {
        let mut map = map(name, revision);
        map.metadata.labels = Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
        map
    };
    let shared = Shared::indexed(Terms::Each(labels));
    let names = |maps: Vec<Arc<ConfigMap>>| maps.iter().map(|m| m.name_any()).collect::<Vec<_>>();
    // A handler finds what it is told of.
    let (found, cache) = (Arc::new(Mutex::new(Vec::new())), shared.clone());
    let sink = found.clone();
    shared.on_change(move |_| sink.lock().push(names(cache.found_by("app=a")).join(" ")));
    let (a, x) = (("app", "a"), ("tier", "x"));
    let events = vec![
        Event::Init,
        Event::InitApply(labelled("b", 1, &[a])),
        Event::InitDone,
        Event::Apply(labelled("a", 2, &[a, x])),
        Event::Apply(labelled("b", 3, &[x])),
        Event::Delete(labelled("a", 4, &[a, x])),
        Event::Init,
        Event::InitApply(labelled("c", 5, &[a, x])),
        Event::InitApply(labelled("d", 6, &[a])),
        Event::InitDone,
    ];
    shared.follow(stream::iter(events)).await;
    // b is gone, c and d are new: all were there when it was told of each.
    assert_eq!(*found.lock(), ["b", "a b", "a", "", "c d", "c d", "c d"]);
    let terms = |terms: &[&str]| terms.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    assert_eq!(names(shared.found_by_any(&terms(&["tier=x", "app=a", "app=a"]))), ["c", "d"]);
    assert_eq!(names(shared.found_by_rarest(&terms(&["app=a", "tier=x"]))), ["c"]);
    assert!(shared.found_by_rarest(&[]).is_empty() && shared.found_by_any(&terms(&["app=b"])).is_empty());
    assert!(shared.any_in("default") && !shared.any_in("other"));
}

#[tokio::test]
async fn what_may_be_claimed_is_the_controllers_own_and_nobodys() {
    let owned = |name: &str, owner: &str| {
        let mut map = map(name, 1);
        map.metadata.owner_references = Some(vec![OwnerReference {
            kind: "Set".into(),
            name: owner.into(),
            controller: Some(true),
            ..OwnerReference::default()
        }]);
        Event::Apply(map)
    };
    let shared = Shared::default();
    let events = vec![owned("c", "web"), owned("b", "db"), Event::Apply(map("d", 1)), owned("e", "web")];
    shared.follow(stream::iter(events)).await;
    let names = |maps: Vec<Arc<ConfigMap>>| maps.iter().map(|m| m.name_any()).collect::<Vec<_>>();
    assert_eq!(names(shared.controlled("default", "Set", "web")), ["c", "e"]);
    assert_eq!(names(shared.claimable("default", "Set", "web")), ["c", "d", "e"]);
    assert_eq!(names(shared.claimable("default", "Set", "other")), ["d"]);
}
