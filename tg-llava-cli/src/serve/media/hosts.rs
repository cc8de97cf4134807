//! Whom pictures may be fetched from.

use std::net::IpAddr;

/// Hosts that pictures may be fetched from.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Names and addresses, `*` for every public one.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| bare(name).to_ascii_lowercase()).collect() }
    }

    /// Whether `host`, a name or an address, may be asked at all.
    pub fn allows(&self, host: &str) -> bool {
        self.names(host) || self.names("*")
    }

    /// Whether a connection for `host` may go to `address`. Addresses that lead back to this machine or its network must
    /// be named themselves, or be those of `localhost` where that is named: a public name may lead there too.
    pub fn allows_address(&self, host: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let local = bare(host).eq_ignore_ascii_case("localhost") && self.names(host) && address.is_loopback();
        is_public(address) || local || self.names(&address.to_string())
    }

    fn names(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.eq_ignore_ascii_case(bare(host)))
    }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether an address is one of the open internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a == 0 || a >= 240 || (a == 192 && b == 0) || (a == 198 && (18..20).contains(&b));
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                || shared
                || reserved)
        }
        // What is assigned to the internet at large begins with 2000::/3; tunnels through it lead to any IPv4 address.
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            first & 0xe000 == 0x2000
                && first != 0x2002
                && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Hosts {
        Hosts::new(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn nobody_is_allowed_unless_named() {
        assert!(!hosts(&[]).allows("example.org"));
        assert!(hosts(&["Example.org"]).allows("example.ORG"));
        assert!(!hosts(&["example.org"]).allows("evil.example.org"));
        assert!(hosts(&["*"]).allows("anything"));
        assert!(hosts(&["::1"]).allows("[::1]"));
    }

    #[test]
    fn local_addresses_must_be_named_themselves() {
        let all = hosts(&["*", "example.org"]);
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:0:1::",
            "ff02::1",
        ] {
            let address: IpAddr = local.parse().unwrap();
            assert!(!all.allows_address("example.org", address), "{local}");
            let named = hosts(&["example.org", &address.to_canonical().to_string()]);
            assert!(named.allows_address("example.org", address), "{local}");
        }
        for public in ["93.184.216.34", "2606:2800:220:1::1"] {
            assert!(all.allows_address("example.org", public.parse().unwrap()), "{public}");
        }
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(hosts(&["localhost"]).allows_address("localhost", loopback));
        assert!(!hosts(&["localhost"]).allows_address("localhost", "10.0.0.1".parse().unwrap()));
        assert!(!all.allows_address("localhost", loopback));
    }
}
