//! The requests under way of each address, which is all that is known of who needs no key.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use super::concurrency::Concurrency;

/// A count for each address that is connected.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    counts: HashMap<IpAddr, Concurrency>,
    /// So many may be known before those that are gone are forgotten.
    most: usize,
}

impl Peers {
    /// The count of an address; of the whole subnet in IPv6, where a host has as many addresses as it
    /// likes.
    pub(crate) fn count(&self, address: IpAddr) -> Concurrency {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.counts.len() >= known.most {
            known.counts.retain(|_, count| count.is_shared());
            known.most = (known.counts.len() * 2).max(FEW);
        }
        known.counts.entry(subnet(address)).or_default().clone()
    }
}

fn subnet(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::concurrency::ClientLimit;

    #[test]
    fn an_address_is_known_while_it_is_connected_and_forgotten_later() {
        let peers = Peers::default();
        let all = Concurrency::default();
        let is_same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| peers.count(text.parse().unwrap()));
            let permit = all.enter(&one, 9, ClientLimit::Count(1)).unwrap();
            let is_same = all.enter(&other, 9, ClientLimit::Count(1)).is_err();
            drop(permit);
            is_same
        };
        assert!(is_same("10.0.0.1", "::ffff:10.0.0.1") && !is_same("10.0.0.1", "10.0.0.2"));
        assert!(
            is_same("2001:db8::1", "2001:db8::2") && !is_same("2001:db8::1", "2001:db8:0:1::1")
        );
        for host in 0..10_000_u32 {
            peers.count(IpAddr::V4(host.into()));
        }
        assert!(peers.0.lock().unwrap().counts.len() <= FEW);
    }
}
