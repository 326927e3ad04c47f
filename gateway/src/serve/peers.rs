//! Requests in flight by address, the only identity of clients without keys.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
};

use super::concurrency::Concurrency;

/// A counter for each connected address.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    counts: HashMap<IpAddr, Concurrency>,
    /// The number of entries at which those without requests are removed.
    most: usize,
}

impl Peers {
    /// The counter of an address; in IPv6, of its whole subnet, since a host can use any address in
    /// it.
    pub(crate) fn count(&self, address: IpAddr) -> Concurrency {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.counts.len() >= known.most {
            known.counts.retain(|_, count| count.is_shared());
            known.most = (known.counts.len() * 2).max(MIN_FORGET_COUNT);
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

const MIN_FORGET_COUNT: usize = 64;

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
        assert!(peers.0.lock().unwrap().counts.len() <= MIN_FORGET_COUNT);
    }
}
