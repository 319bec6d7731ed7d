//! Which network addresses an upstream may have. Loopback, private, link-local and other special
//! addresses are refused unless the operator allows them, because a caller of the API could
//! otherwise reach services of our own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address belongs to the public internet. Source: the IANA registries of special-purpose
/// addresses (RFC 6890). An IPv6 address that embeds an IPv4 address is judged by both.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // NAT64 and 6to4 lead to the IPv4 address that they embed.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            is_public_v4(of_segments(high, low))
        }
        // Documentation, benchmarking, ORCHID, and Teredo, which embeds two addresses.
        [0x2001, 0xdb8 | 0 | 0x2 | 0x10..=0x2f, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Only 2000::/3 is assigned to the public. Mapped and compatible addresses, `::`, `::1`,
        // fc00::/7, fe80::/10, fec0::/10, ff00::/8 and 64:ff9b:1::/48 are outside of it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn of_segments(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

/// Whether the host of a URL is certain not to be public: a special address, or a name that is
/// reserved for the local machine or network (RFC 6761, RFC 6762). Other names are only known when
/// they are resolved.
pub fn is_private_host(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Ipv4(address) => !is_public_v4(*address),
        url::Host::Ipv6(address) => !is_public_v6(*address),
        url::Host::Domain(name) => {
            let last = name.rsplit('.').next().unwrap_or_default();
            matches!(last, "localhost" | "local" | "internal") || !name.contains('.')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "169.253.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn names_of_the_local_network_are_private() {
        for (host, is_private) in [
            ("localhost", true),
            ("a.localhost", true),
            ("printer.local", true),
            ("intranet", true),
            ("metadata.google.internal", true),
            ("relay.example.com", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(is_private_host(&url::Host::Domain(host)), is_private, "{host}");
        }
    }
}
