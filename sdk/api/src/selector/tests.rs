use super::*;
use proptest::prelude::*;
use serde_json::json;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn label_selectors_match() {
    let a = [("app", "web"), ("tier", "front"), ("n", "5")];
    // selector, canonical form, matches `a`
    let table = [
        ("", "", true),
        ("app=web", "app=web", true),
        (" app == web , tier ", "app=web,tier", true),
        ("app=db", "app=db", false),
        ("app!=db", "app!=db", true),
        ("app!=web", "app!=web", false),
        ("gone!=x", "gone!=x", true),
        ("app in (web,db)", "app in (db,web)", true),
        ("app in (db)", "app in (db)", false),
        ("gone in (db)", "gone in (db)", false),
        ("app notin (db,cache)", "app notin (cache,db)", true),
        ("gone notin (db)", "gone notin (db)", true),
        ("tier", "tier", true),
        ("gone", "gone", false),
        ("!gone", "!gone", true),
        ("!app", "!app", false),
        ("n>4,n<6", "n>4,n<6", true),
        ("n>5", "n>5", false),
        ("app>5", "app>5", false),
        ("app=", "app=", false),
        ("app in (web,)", "app in (,web)", true),
        ("tier=front,app=web", "app=web,tier=front", true),
        ("in in (in,notin)", "in in (in,notin)", false),
        ("example.com/app=x", "example.com/app=x", false),
    ];
    for (text, canonical, matches) in table {
        let s = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(s.to_string(), canonical, "{text}");
        assert_eq!(s.matches(&labels(&a)), matches, "{text}");
        assert_eq!(LabelSelector::parse(canonical).unwrap(), s, "{text} does not survive printing");
    }
}

#[test]
fn label_selector_errors() {
    let table = [
        ("a in", "unable to parse requirement: found '' expected: '('"),
        (
            "a in ()",
            "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
        ),
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        (
            "a>x",
            "unable to parse requirement: values: Invalid value: [\"x\"]: for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, message) in table {
        assert_eq!(LabelSelector::parse(text).unwrap_err(), message, "{text}");
    }
    for (text, part) in [
        ("-a=b", "key: Invalid value: \"-a\": name part must consist of"),
        ("a=-b", "values[0][a]: Invalid value: \"-b\": a valid label must be an empty string"),
        ("/a", "prefix part must be non-empty"),
        ("a/b/c", "a valid label key"),
        ("UP/a", "prefix part a lowercase RFC 1123 subdomain"),
    ] {
        let e = LabelSelector::parse(text).unwrap_err();
        assert!(e.contains(part), "{text}: {e}");
    }
    assert!(LabelSelector::parse(&format!("{}=x", "a".repeat(64))).is_err());
    assert!(LabelSelector::parse(&format!("x={}", "a".repeat(64))).is_err());
}

#[test]
fn label_selectors_from_objects() {
    let s = LabelSelector::from_json(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["back"]},
            {"key": "app", "operator": "Exists"},
        ],
    }))
    .unwrap();
    assert_eq!(s.to_string(), "app=web,app,tier notin (back)");
    assert!(s.matches(&labels(&[("app", "web")])));
    assert!(!s.matches(&labels(&[("app", "web"), ("tier", "back")])));

    let everything = LabelSelector::from_json(&json!({})).unwrap();
    assert!(everything.is_empty() && everything.matches(&labels(&[])));
    let nothing = LabelSelector::from_json(&Value::Null).unwrap();
    assert!(!nothing.is_empty() && !nothing.matches(&labels(&[("app", "web")])));
    assert_eq!(LabelSelector::from_typed(None).unwrap(), nothing);

    let e = LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})).unwrap_err();
    assert_eq!(e, "\"Like\" is not a valid label selector operator");
    assert!(LabelSelector::from_json(&json!({"matchLabels": 3})).is_err());
    assert!(LabelSelector::from_json(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).is_err());

    let map = labels(&[("b", "2"), ("a", "1")]);
    assert_eq!(LabelSelector::from_labels(&map).to_string(), "a=1,b=2");
}

#[test]
fn field_selectors() {
    let field = |path: &str| match path {
        "metadata.name" => Some("x"),
        "status.phase" => Some("Running"),
        "odd" => Some("a,b=c\\"),
        _ => None,
    };
    for (text, matches) in [
        ("", true),
        ("metadata.name=x", true),
        ("metadata.name==x,status.phase!=Failed", true),
        ("metadata.name=y", false),
        ("status.phase!=Running", false),
        ("spec.nodeName=", true),
        ("spec.nodeName!=", false),
        ("odd=a\\,b\\=c\\\\", true),
        (",metadata.name=x,", true),
    ] {
        let s = FieldSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(s.matches(field), matches, "{text}");
        assert_eq!(FieldSelector::parse(&s.to_string()).unwrap(), s, "{text}");
    }
    assert_eq!(
        FieldSelector::parse("metadata.name").unwrap_err(),
        "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
    );
    assert_eq!(FieldSelector::parse("a=b=c").unwrap_err(), "invalid field selector: unescaped character in value: =");
    assert_eq!(FieldSelector::parse("a=\\x").unwrap_err(), "invalid field selector: invalid escape sequence: \\x");
    assert_eq!(FieldSelector::parse("metadata.name=x,b!=c").unwrap().exact("metadata.name"), Some("x"));
}

proptest! {
    #[test]
    fn selectors_never_panic(text in ".{0,40}") {
        if let Ok(s) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
        }
        if let Ok(s) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&s.to_string()).unwrap(), s);
        }
    }
    #[test]
    fn selector_like_text_never_panics(text in "[a-c!=(), <>in\\\\]{0,24}") {
        if let Ok(s) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
        }
        if let Ok(s) = FieldSelector::parse(&text) {
            prop_assert_eq!(FieldSelector::parse(&s.to_string()).unwrap(), s);
        }
    }
}
