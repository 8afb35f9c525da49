//! Which addresses a request may make the service connect to.
//!
//! A URL of a request is foreign. Without this check, the URL reads what only the service reaches: its own machine, the network that it is
//! in, the metadata of its cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds answer questions about the machine, its credentials among them. Never allowed.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // Amazon's, for containers.
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    // Alibaba's.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's, a public address.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Amazon's.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Networks of IPv4 that are not of the public internet, as IANA's registry of special addresses has them: network, length of the prefix.
const SPECIAL_V4: [(Ipv4Addr, u32); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Networks within 2000::/3, IPv6's public addresses, that are not public all the same: first 32 bits, length of the prefix. 6to4
/// (2002::/16) has an IPv4 address within.
const SPECIAL_V6: [(u32, u32); 3] = [(0x2001_0000, 23), (0x2001_0db8, 32), (0x3fff_0000, 20)];

/// Whether the service may connect to an address.
pub(super) fn is_allowed(address: IpAddr, with_private: bool) -> bool {
    let address = embedded(address);
    if METADATA.contains(&address) || address.is_unspecified() || address.is_multicast() {
        return false;
    }
    with_private || is_public(address)
}

/// The IPv4 address that a translator or a tunnel reaches by an IPv6 address; otherwise the address itself.
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let words = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match words {
        // ::ffff:a.b.c.d, and ::a.b.c.d beside the two addresses :: and ::1 of IPv6's own.
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4(high, low),
        // ::ffff:0:a.b.c.d, 64:ff9b::a.b.c.d
        [0, 0, 0, 0, 0xffff, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn is_public(address: IpAddr) -> bool {
    let is_within = |bits: u32, network: u32, length: u32| (bits ^ network) >> (32 - length) == 0;
    match address {
        IpAddr::V4(v4) => {
            !SPECIAL_V4.iter().any(|(network, length)| is_within(v4.into(), (*network).into(), *length))
        }
        IpAddr::V6(v6) => {
            let words = v6.segments();
            let first = u32::from(words[0]) << 16 | u32::from(words[1]);
            words[0] >> 13 == 1
                && !SPECIAL_V6.iter().any(|(network, length)| is_within(first, *network, *length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    /// Protects: no form of an address that is not public is taken for a public one.
    #[test]
    fn addresses_that_are_not_public() {
        let private = [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.0.2.1",
            "203.0.113.9",
            "240.0.0.1",
            "0.1.2.3",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:c0a8:101::1",
            "2001::1",
            "2001:db8::1",
            "2001:10::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ];
        for address in private {
            let address = address.parse().unwrap();
            assert!(!is_allowed(address, false), "{address}");
            assert!(is_allowed(address, true), "{address}");
        }
        let never = [
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fd00:ec2::254",
            "168.63.129.16",
            "100.100.100.200",
            "224.0.0.1",
            "ff02::1",
        ];
        for address in never {
            assert!(!is_allowed(address.parse().unwrap(), true), "{address}");
        }
    }

    /// Protects: the neighbours of special networks are public.
    #[test]
    fn public_addresses() {
        let public = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2002:101:101::1",
        ];
        for address in public {
            assert!(is_allowed(address.parse().unwrap(), false), "{address}");
        }
    }
}
