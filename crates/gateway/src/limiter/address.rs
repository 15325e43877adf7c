//! Requests a minute from one address, counted before anybody knows who asks.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use super::standing::Full;
use super::window::Window;

const MINUTE: u64 = 60_000;
/// Addresses that are remembered at a time.
const MOST: usize = 65_536;

/// The addresses that have asked during the last minute.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: u64,
    windows: Mutex<HashMap<IpAddr, Box<Window>>>,
}

impl Addresses {
    /// At most `limit` requests a minute from each.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, windows: Mutex::default() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// There were too many.
    pub(crate) fn take(&self, address: IpAddr, now: u64) -> Result<(), Full> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if windows.len() >= MOST && !windows.contains_key(&address) {
            windows.retain(|_, window| window.used(now) > 0);
            if windows.len() >= MOST {
                // So many at once are an attack: whoever is new waits.
                return Err(Full::address(self.limit, MINUTE));
            }
        }
        let window = windows.entry(address).or_insert_with(|| Box::new(Window::new(MINUTE)));
        if window.used(now) + 1 > self.limit {
            return Err(Full::address(self.limit, window.wait(now, self.limit, 1).unwrap_or(MINUTE)));
        }
        window.add(now, 1);
        Ok(())
    }
}

/// Whoever has one address of IPv6 has 2^64 of them: they count as one.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        },
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_minute_and_a_network_of_ipv6_is_one() {
        let addresses = Addresses::new(2);
        let ask = |text: &str, now| addresses.take(text.parse().unwrap(), now).is_ok();
        assert!(ask("10.0.0.1", 1_000_000) && ask("10.0.0.1", 1_000_000) && !ask("10.0.0.1", 1_000_000));
        assert!(ask("10.0.0.2", 1_000_000));
        assert!(!ask("::ffff:10.0.0.1", 1_000_000));
        assert!(
            ask("2001:db8::1", 1_000_000) && ask("2001:db8::2", 1_000_000) && !ask("2001:db8::3", 1_000_000)
        );
        assert!(ask("2001:db8:0:1::1", 1_000_000));
        assert!(ask("10.0.0.1", 1_061_000));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_than_is_set() {
        let addresses = Addresses::new(1);
        let of = |i: u32| IpAddr::from(i.to_be_bytes());
        for i in 0..MOST as u32 {
            assert!(addresses.take(of(i), 1_000_000).is_ok());
        }
        assert!(addresses.take(of(u32::MAX), 1_000_000).is_err());
        assert!(addresses.take(of(u32::MAX), 1_062_000).is_ok());
    }
}
