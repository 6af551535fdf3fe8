use super::*;

fn names() -> ServerNames {
    ServerNames {
        service_ip: "10.43.0.1".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        extra: vec!["edge.example.com".into(), "192.0.2.7".into(), "  ".into()],
    }
}
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
fn server_cert(pki: &Pki) -> Vec<u8> {
    std::fs::read(pki.dir.join("server.crt")).unwrap()
}
fn refusal(dir: &Path) -> String {
    Pki::open(dir).err().expect("must be refused").to_string()
}

#[test]
fn the_first_start_makes_a_private_ca_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    pki.server_config(&names()).unwrap();
    assert_eq!(mode(&dir.path().join("pki")), 0o700);
    for key in ["ca.key", "server.key"] {
        assert_eq!(mode(&dir.path().join("pki").join(key)), 0o600, "{key}");
    }
    let again = Pki::open(dir.path()).unwrap();
    assert_eq!(again.ca_pem(), pki.ca_pem());
    assert_eq!(std::fs::read_to_string(again.ca_path()).unwrap(), pki.ca_pem());
}

#[test]
fn the_server_certificate_has_its_names_and_is_kept_until_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    pki.server_config(&names()).unwrap();
    let first = server_cert(&pki);
    let der = CertificateDer::from_pem_slice(&first).unwrap();
    let (_, cert) = X509Certificate::from_der(&der).unwrap();
    let found = alternative_names(&cert).unwrap();
    for name in [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.43.0.1",
        "edge.example.com",
        "192.0.2.7",
    ] {
        assert!(found.contains(name), "{name} is not in {found:?}");
    }
    assert!((i64::from(LEAF_DAYS) - 2..=i64::from(LEAF_DAYS)).contains(&days_left(&cert)));

    Pki::open(dir.path()).unwrap().server_config(&names()).unwrap();
    assert_eq!(server_cert(&pki), first, "kept");
    let other = ServerNames { extra: vec!["new.example.com".into()], ..names() };
    pki.server_config(&other).unwrap();
    let second = server_cert(&pki);
    assert_ne!(second, first, "names changed");
    std::fs::write(pki.dir.join("server.key"), "damaged").unwrap();
    pki.server_config(&other).unwrap();
    assert_ne!(server_cert(&pki), second, "a damaged key is replaced");
}

#[test]
fn a_certificate_near_its_end_is_not_good() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let wanted = BTreeSet::from(["localhost".to_string()]);
    let key = KeyPair::generate().unwrap();
    for (days, good) in [(RENEW_DAYS + 2, true), (RENEW_DAYS - 2, false), (-1, false)] {
        let mut params = leaf_params("x", days, ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = CertificateParams::new(vec!["localhost".to_string()]).unwrap().subject_alt_names;
        let pem = params.signed_by(&key, &pki.ca).unwrap().pem();
        assert_eq!(pki.still_good(&pem, &key, &wanted), good, "{days} days");
    }
}

#[test]
fn bad_names_and_damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let bad = ServerNames { extra: vec!["gr\u{fc}n".into()], ..names() };
    assert!(pki.server_config(&bad).unwrap_err().to_string().contains("cannot make the server's certificate"));

    let (key, cert) = (pki.dir.join("ca.key"), pki.dir.join("ca.crt"));
    let whole = std::fs::read(&key).unwrap();
    std::fs::write(&key, "x").unwrap();
    let e = refusal(dir.path());
    assert!(e.contains("ca.key is damaged") && e.contains("restore the pki directory"), "{e}");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(refusal(dir.path()).contains("ca.crt does not belong to ca.key"), "{}", refusal(dir.path()));
    std::fs::remove_file(&key).unwrap();
    assert!(refusal(dir.path()).contains("ca.key is missing"), "{}", refusal(dir.path()));
    std::fs::write(&key, whole).unwrap();
    std::fs::write(&cert, "x").unwrap();
    assert!(refusal(dir.path()).contains("ca.crt is damaged"), "{}", refusal(dir.path()));

    std::fs::write(dir.path().join("file"), "").unwrap();
    let e = refusal(&dir.path().join("file"));
    assert!(e.starts_with("cannot make") && e.contains("file/pki"), "{e}");
}

#[test]
fn kubeconfigs_are_secret_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let path = dir.path().join("admin.kubeconfig");
    std::fs::write(&path, "old").unwrap();
    pki.write_admin_kubeconfig(&path, "https://127.0.0.1:6443").unwrap();
    assert_eq!(mode(&path), 0o600);
    let config = kube::config::Kubeconfig::read_from(&path).unwrap();
    assert_eq!(config.current_context.as_deref(), Some("copepod"));
    assert_eq!(config.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:6443"));

    let node = dir.path().join("node.kubeconfig");
    pki.write_node_kubeconfig(&node, "https://192.0.2.1:7", "n1").unwrap();
    let config = kube::config::Kubeconfig::read_from(&node).unwrap();
    assert_eq!(config.auth_infos[0].name, "system:node:n1");
    let missing = pki.write_admin_kubeconfig(&dir.path().join("no/dir/x"), "https://x").unwrap_err().to_string();
    assert!(missing.starts_with("cannot write") && missing.contains("no/dir/x"), "{missing}");
}
