//! Who is next: users get equal shares of the tokens.
//!
//! Each user has a counter of the tokens that were computed for it, and the waiting user with the lowest goes first (the
//! virtual token counter of Sheng et al., arXiv 2401.00588). Within a user the order is that of arrival. A user that
//! comes back from idleness starts at the lowest counter of those who are there: nobody saves up.

use std::collections::{HashMap, VecDeque};

/// A queue that knows when it is full, fair between users.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    capacity: usize,
    len: usize,
    users: HashMap<u64, User<T>>,
}

#[derive(Debug)]
struct User<T> {
    served: u64,
    running: usize,
    waiting: VecDeque<T>,
}

impl<T> FairQueue<T> {
    /// A queue for `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, len: 0, users: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether another entry would have to wait where there is no room, when `free` of those here need not wait at all.
    pub(super) fn is_full(&self, free: usize) -> bool {
        self.len >= self.capacity.saturating_add(free)
    }

    /// Adds an entry at the end of its user's, whether there is room for it or not.
    pub(super) fn push(&mut self, user: u64, entry: T) {
        self.user(user).waiting.push_back(entry);
        self.len += 1;
    }

    /// Puts an entry that had been taken back to the front of its user's.
    pub(super) fn put_back(&mut self, user: u64, entry: T) {
        let entry_of = self.user(user);
        entry_of.running = entry_of.running.saturating_sub(1);
        entry_of.waiting.push_front(entry);
        self.len += 1;
    }

    /// The entry that is next and its user.
    pub(super) fn peek(&self) -> Option<(u64, &T)> {
        let user = self.next_user()?;
        Some((user, self.users.get(&user)?.waiting.front()?))
    }

    /// Takes the entry that is next; its user counts as running one until [`FairQueue::ended`].
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let id = self.next_user()?;
        let user = self.users.get_mut(&id)?;
        let entry = user.waiting.pop_front()?;
        user.running += 1;
        self.len -= 1;
        Some((id, entry))
    }

    /// `tokens` were computed for `user`.
    pub(super) fn served(&mut self, user: u64, tokens: usize) {
        if let Some(user) = self.users.get_mut(&user) {
            user.served += tokens as u64;
        }
    }

    /// One that was taken for `user` has ended.
    pub(super) fn ended(&mut self, id: u64) {
        if let Some(user) = self.users.get_mut(&id) {
            user.running = user.running.saturating_sub(1);
            if user.running == 0 && user.waiting.is_empty() {
                self.users.remove(&id);
            }
        }
    }

    /// Takes all waiting entries for which `leaves` is true.
    pub(super) fn remove(&mut self, mut leaves: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for user in self.users.values_mut() {
            let (gone, stay) = user.waiting.drain(..).partition(|entry| leaves(entry));
            user.waiting = stay;
            removed.extend::<VecDeque<T>>(gone);
        }
        self.len -= removed.len();
        self.users.retain(|_, user| user.running > 0 || !user.waiting.is_empty());
        removed
    }

    fn user(&mut self, id: u64) -> &mut User<T> {
        let floor = self.users.values().map(|user| user.served).min().unwrap_or(0);
        self.users.entry(id).or_insert_with(|| User { served: floor, running: 0, waiting: VecDeque::new() })
    }

    fn next_user(&self) -> Option<u64> {
        let waiting = self.users.iter().filter(|(_, user)| !user.waiting.is_empty());
        waiting.min_by_key(|(id, user)| (user.served, user.running, **id)).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_served_goes_first() {
        let mut queue = FairQueue::new(10);
        for i in 0..3 {
            queue.push(1, (1, i));
        }
        queue.push(2, (2, 0));
        assert_eq!(queue.pop(), Some((1, (1, 0))));
        queue.served(1, 10);
        assert_eq!(queue.pop(), Some((2, (2, 0))));
        queue.served(2, 20);
        assert_eq!(queue.pop(), Some((1, (1, 1))));
        // A newcomer starts with those who are there and cannot take all.
        queue.push(3, (3, 0));
        queue.served(3, 1);
        assert_eq!(queue.pop(), Some((1, (1, 2))));
        assert_eq!(queue.pop(), Some((3, (3, 0))));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn what_was_taken_can_be_put_back_and_removed() {
        let mut queue = FairQueue::new(1);
        assert!(!queue.is_full(0));
        queue.push(1, "a");
        assert!(queue.is_full(0) && !queue.is_full(1));
        assert_eq!(queue.pop(), Some((1, "a")));
        queue.put_back(1, "a");
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.remove(|_| true), ["a"]);
        assert!(queue.users.is_empty());
    }

    proptest! {
        /// While users have work waiting, no two differ in tokens served by more than one entry's tokens.
        #[test]
        fn shares_differ_by_one_entry_at_most(costs in prop::collection::vec(1usize..50, 4..40), users in 2u64..5) {
            let mut queue = FairQueue::new(1000);
            let mut left = HashMap::new();
            for (i, &cost) in costs.iter().cycle().take(costs.len() * users as usize).enumerate() {
                let user = i as u64 % users;
                queue.push(user, cost);
                *left.entry(user).or_insert(0) += 1;
            }
            let mut served = HashMap::<u64, usize>::new();
            while let Some((user, cost)) = queue.pop() {
                queue.served(user, cost);
                *served.entry(user).or_default() += cost;
                *left.get_mut(&user).unwrap() -= 1;
                if left.values().any(|&n| n == 0) {
                    break;
                }
                let all: Vec<usize> = (0..users).map(|u| served.get(&u).copied().unwrap_or(0)).collect();
                prop_assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 50);
            }
        }
    }
}
