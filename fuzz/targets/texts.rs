//! Selectors, quantities, image references and ranges of addresses: what is parsed is the same once it is printed and
//! parsed again.
#![no_main]

use copepod_api::image::Reference;
use copepod_api::{Cidr, FieldSelector, LabelSelector, Quantity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        assert_eq!(LabelSelector::parse(&selector.to_string()).as_ref(), Ok(&selector));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        assert_eq!(FieldSelector::parse(&selector.to_string()).as_ref(), Ok(&selector));
    }
    if let Ok(quantity) = Quantity::parse(text) {
        assert_eq!(Quantity::parse(&quantity.to_string()).as_ref(), Ok(&quantity));
        let _ = (quantity.value(), quantity.milli(), quantity.as_bytes());
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let name = reference.file_name();
        assert!(!name.contains('/') && name != "." && name != "..", "{name}");
    }
    if let Ok(range) = text.parse::<Cidr>() {
        assert_eq!(range.to_string().parse().as_ref(), Ok(&range));
        assert!(range.at(0).is_some_and(|first| range.contains(first)));
    }
});
