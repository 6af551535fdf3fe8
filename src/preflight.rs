//! Checks of the command line's networks, ranges, names and addresses.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use copepod_api::Cidr;

/// Parses a network of 4 to 16 million addresses; `flag` names the option in errors.
pub fn network(text: &str, flag: &str) -> Result<Cidr> {
    let cidr: Cidr = text.parse().with_context(|| flag.to_string())?;
    ensure!((8..=30).contains(&cidr.bits()), "{flag} {text}: the prefix must be 8 to 30");
    Ok(cidr)
}

/// Parses `30000-32767`.
pub fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let bad = || format!("--node-port-range {text}: expected FIRST-LAST, such as 30000-32767");
    let (first, last) = text.split_once('-').with_context(bad)?;
    let (first, last): (u16, u16) = (first.trim().parse().with_context(bad)?, last.trim().parse().with_context(bad)?);
    if first == 0 || first > last {
        bail!(bad());
    }
    Ok(first..=last)
}

/// Checks a value of `--tls-san`: an address, a DNS name, or `*.` and a DNS name.
pub fn certificate_name(text: &str) -> Result<()> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    copepod_core::validate::dns1123_subdomain(name)
        .map_err(|why| anyhow::anyhow!("--tls-san {text:?} is neither an address nor a DNS name: {why}"))
}

/// Checks that this machine has the address, so that node ports can listen there.
pub fn own_address(address: IpAddr) -> Result<()> {
    std::net::TcpListener::bind((address, 0)).map(drop).with_context(|| {
        format!("--node-port-address {address}: node ports cannot listen there; give an address of this machine")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for good in ["10.0.0.1", "::1", "node.example.org", "*.example.org"] {
            certificate_name(good).unwrap();
        }
        for bad in ["", "%%", "a b", "*"] {
            let error = certificate_name(bad).unwrap_err().to_string();
            assert!(error.contains("--tls-san"), "{error}");
        }
        own_address("127.0.0.1".parse().unwrap()).unwrap();
        // An address for documentation (RFC 5737), which no machine has.
        let error = format!("{:#}", own_address("203.0.113.1".parse().unwrap()).unwrap_err());
        assert!(error.contains("--node-port-address 203.0.113.1"), "{error}");
    }

    #[test]
    fn networks() {
        assert_eq!(network("10.64.0.0/10", "").unwrap().to_string(), "10.64.0.0/10");
        for bad in ["", "10.0.0.0/33", "::/8", "10.0.0.0/7", "10.0.0.0/31"] {
            let error = format!("{:#}", network(bad, "--service-cidr").unwrap_err());
            assert!(error.starts_with("--service-cidr") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767").unwrap(), 30000..=32767);
        for bad in ["", "1", "5-4", "0-9", "1-70000", "a-b"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
