//! Selectors, quantities and image references: what is parsed is the same once it is printed and parsed again.
#![no_main]

use copepod_api::image::Reference;
use copepod_api::{FieldSelector, LabelSelector, Quantity};
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
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let _ = reference.file_name();
    }
});
