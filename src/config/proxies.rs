//! The proxies that are trusted to name the address of a client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The networks of trusted proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// An address, and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Proxies {
    /// Parses networks such as `10.0.0.0/8` and addresses, separated by commas. `None` if one is
    /// malformed.
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',').map(|part| Network::parse(part.trim())).collect::<Option<_>>().map(Self)
    }

    /// Whether the address is that of a trusted proxy.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address.to_canonical()))
    }

    /// Returns the address of a client whose connection comes from `peer`, with the values of its
    /// headers `X-Forwarded-For`: the rightmost address that is not a trusted proxy's. A header that
    /// a client has made up stands further left and has no effect.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl Iterator<Item = &'a str>) -> IpAddr {
        let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
        let mut client = peer.to_canonical();
        for hop in hops.into_iter().rev() {
            if !self.contain(client) {
                break;
            }
            let Some(address) = address(hop.trim()) else { break };
            client = address.to_canonical();
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits =
            bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Self { address, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// Reads an address with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|found| found.ip());
    text.trim_matches(['[', ']']).parse().ok().or_else(with_port)
}

/// Returns the part of an address that stands for one client: an IPv4 address, or the first 64 bits of
/// an IPv6 address, because one client has them all.
pub fn network(address: IpAddr) -> IpAddr {
    first_bits(address, 32, 64)
}

/// Returns the part of an address that stands for one site: the first 24 bits of an IPv4 address, or the first 48
/// of an IPv6 address, which a site usually has.
pub fn site(address: IpAddr) -> IpAddr {
    first_bits(address, 24, 48)
}

/// Sets the bits of an address after the first `v4` or `v6` to zero.
fn first_bits(address: IpAddr, v4: u32, v6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - v4).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - v6).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &str, peer: &str, forwarded: &[&str]) -> String {
        let proxies = Proxies::parse(proxies).expect("networks");
        let peer = peer.parse().expect("an address");
        proxies.client(peer, forwarded.iter().copied()).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let proxies = "10.0.0.0/8, 2001:db8:1::/48,192.0.2.7";
        for (peer, forwarded, wanted) in [
            ("203.0.113.9", vec!["198.51.100.1"], "203.0.113.9"), // the peer is no proxy
            ("10.1.2.3", vec!["198.51.100.1"], "198.51.100.1"),
            ("10.1.2.3", vec!["1.1.1.1, 198.51.100.1"], "198.51.100.1"), // made up by the client
            ("10.1.2.3", vec!["1.1.1.1", "198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("10.1.2.3", vec!["198.51.100.1:4711"], "198.51.100.1"),
            ("2001:db8:1::5", vec!["[2001:db8:2::9]:80"], "2001:db8:2::9"),
            ("::ffff:10.1.2.3", vec!["198.51.100.1"], "198.51.100.1"),
            ("192.0.2.7", vec!["not an address"], "192.0.2.7"),
            ("192.0.2.7", vec!["1.1.1.1, unknown"], "192.0.2.7"),
            ("192.0.2.8", vec!["1.1.1.1"], "192.0.2.8"),
            ("10.1.2.3", vec![], "10.1.2.3"),
            ("10.1.2.3", vec!["10.4.4.4"], "10.4.4.4"),
        ] {
            assert_eq!(client(proxies, peer, &forwarded), wanted, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn a_client_and_its_site_are_the_first_bits_of_the_address() {
        let of = |text: &str| text.parse::<IpAddr>().expect("an address");
        let told = |text| (network(of(text)).to_string(), site(of(text)).to_string());
        let pair = |client: &str, site: &str| (client.to_owned(), site.to_owned());
        assert_eq!(told("203.0.113.77"), pair("203.0.113.77", "203.0.113.0"));
        assert_eq!(told("::ffff:203.0.113.77"), pair("203.0.113.77", "203.0.113.0"));
        assert_eq!(told("2001:db8:1:2:3:4:5:6"), pair("2001:db8:1:2::", "2001:db8:1::"));
    }

    #[test]
    fn networks_are_checked() {
        for wrong in ["10.0.0.0/33", "::/129", "host", "10.0.0.0/8,,", "10.0.0.0/-1"] {
            assert_eq!(Proxies::parse(wrong), None, "{wrong}");
        }
        let all = Proxies::parse("0.0.0.0/0,::/0").expect("networks");
        assert!(all.contain(IpAddr::from([8, 8, 8, 8])) && all.contain("::1".parse().expect("v6")));
    }
}
