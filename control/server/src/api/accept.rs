//! Content negotiation: which representation and which transformation an `Accept` header asks for.

use copepod_api::ApiError;

/// The wire format of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What the objects of a response are turned into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Full,
    /// `meta.k8s.io` Table, in this version.
    Table(String),
    /// `meta.k8s.io` PartialObjectMetadata (or its list), in this version.
    Metadata(String),
    /// `apidiscovery.k8s.io` APIGroupDiscoveryList, in this version.
    Discovery(String),
}

/// The outcome of negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Accept {
    /// Wire format.
    pub format: Format,
    /// Transformation.
    pub shape: Shape,
}

const MAX_CLAUSES: usize = 32;

impl Accept {
    /// The first clause that we can serve wins, but JSON wins over protobuf when both are offered: stored bytes are JSON.
    pub fn negotiate(header: Option<&str>, discovery: bool) -> Result<Self, ApiError> {
        let Some(header) = header.filter(|h| !h.trim().is_empty()) else {
            return Ok(Self { format: Format::Json, shape: Shape::Full });
        };
        let mut clauses: Vec<(f32, Self)> = header
            .split(',')
            .take(MAX_CLAUSES)
            .filter_map(|c| clause(c, discovery))
            .filter(|(q, _)| *q > 0.0)
            .collect();
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
        let accepted: Vec<Self> = clauses.into_iter().map(|(_, a)| a).collect();
        let first = accepted.first();
        let chosen = match first {
            Some(a) if a.format == Format::Protobuf => accepted.iter().find(|a| a.format == Format::Json).or(first),
            other => other,
        };
        chosen.cloned().ok_or_else(|| {
            ApiError::not_acceptable(
                "only the following media types are accepted: application/json, application/yaml, \
                 application/vnd.kubernetes.protobuf",
            )
        })
    }
}

fn clause(text: &str, discovery: bool) -> Option<(f32, Accept)> {
    let mut parts = text.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        "application/vnd.kubernetes.protobuf" => Format::Protobuf,
        _ => return None,
    };
    let (mut q, mut kind, mut group, mut version) = (1.0_f32, "", "", "");
    for part in parts {
        let (key, value) = part.split_once('=')?;
        match key.trim().to_ascii_lowercase().as_str() {
            "q" => q = value.trim().parse().ok()?,
            "as" => kind = value.trim(),
            "g" => group = value.trim(),
            "v" => version = value.trim(),
            _ => {}
        }
    }
    let meta = group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1");
    let shape = match kind {
        "" => Shape::Full,
        "Table" if meta && !discovery => Shape::Table(version.into()),
        "PartialObjectMetadata" | "PartialObjectMetadataList" if meta && !discovery => Shape::Metadata(version.into()),
        "APIGroupDiscoveryList"
            if discovery
                && format == Format::Json
                && group == "apidiscovery.k8s.io"
                && matches!(version, "v2" | "v2beta1") =>
        {
            Shape::Discovery(version.into())
        }
        _ => return None,
    };
    Some((q, Accept { format, shape }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negotiation() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                       application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (header, want) in [
            (None, "Json Full"),
            (Some("*/*"), "Json Full"),
            (Some(table), "Json Table(\"v1\")"),
            (Some(partial), "Json Metadata(\"v1\")"),
            (Some("application/vnd.kubernetes.protobuf,application/json"), "Json Full"),
            (Some("application/vnd.kubernetes.protobuf"), "Protobuf Full"),
            (Some("application/json;q=0.1, application/yaml"), "Yaml Full"),
            (Some("text/html"), "406"),
            (Some("application/json;as=Nonsense;v=v1;g=meta.k8s.io"), "406"),
            (Some("application/json;q=0"), "406"),
        ] {
            let got = match Accept::negotiate(header, false) {
                Ok(a) => format!("{:?} {:?}", a.format, a.shape),
                Err(e) => e.code.to_string(),
            };
            assert_eq!(got, want, "{header:?}");
        }
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let a = Accept::negotiate(Some(discovery), true).unwrap();
        assert_eq!(a.shape, Shape::Discovery("v2".into()));
    }
}
