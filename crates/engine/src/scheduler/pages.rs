//! Pages of keys and values: a budget of them, and those of beginnings that may come again.
//!
//! A page that is full is remembered under the tokens that it holds and all before them (a tree, as in Zheng et al.,
//! "SGLang", arXiv 2312.07104). A sequence that begins with the same tokens takes the pages instead of computing them: its
//! numbers are the same, bit for bit. Pages count their users; those that no sequence uses go when others are needed, the
//! longest unused first.

use std::collections::HashMap;
use std::sync::Arc;

use kernels::attention::{PAGE, Page};

/// Unused pages that are kept for the next who need one, beyond which they go back to the system.
const SPARE: usize = 64;

/// The pages of all sequences of a model.
#[derive(Debug)]
pub(super) struct Pages {
    limit: usize,
    /// Pages that sequences or the tree have.
    allocated: usize,
    spare: Vec<Arc<Page>>,
    nodes: HashMap<u64, Node>,
    /// Parent and tokens to node.
    children: HashMap<(u64, Box<[u32]>), u64>,
    next_id: u64,
    clock: u64,
}

/// A full page of a beginning.
#[derive(Debug)]
struct Node {
    page: Arc<Page>,
    parent: u64,
    tokens: Box<[u32]>,
    n_children: usize,
    used: u64,
}

/// Parent of the first pages of sequences without an adapter.
const ROOT: u64 = 0;

/// Parent of the first pages of sequences that run with an adapter, or with none: the same tokens have other keys and values
/// then. Nodes are numbered from below, these from above.
pub(super) fn root(adapter: Option<usize>) -> u64 {
    adapter.map_or(ROOT, |index| u64::MAX - index as u64)
}

impl Pages {
    /// A budget of `limit` pages.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            allocated: 0,
            spare: Vec::new(),
            nodes: HashMap::new(),
            children: HashMap::new(),
            next_id: ROOT + 1,
            clock: 0,
        }
    }

    /// Pages of the budget.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Pages that sequences use, and pages that are only remembered.
    pub(super) fn in_use(&self) -> (usize, usize) {
        let remembered = self.nodes.values().filter(|node| is_unused(node)).count();
        (self.allocated - remembered, remembered)
    }

    /// Pages that can be had, remembered ones among them.
    pub(super) fn available(&self) -> usize {
        self.limit - self.in_use().0
    }

    /// A page for a sequence: one that was used before, or `Some(None)` for the sequence to make. `None` when the budget is
    /// used up.
    pub(super) fn take(&mut self) -> Option<Option<Arc<Page>>> {
        if self.allocated >= self.limit && !self.forget_one() {
            return None;
        }
        self.allocated += 1;
        Some(self.spare.pop())
    }

    /// Takes pages back from a sequence.
    pub(super) fn give_back(&mut self, pages: impl IntoIterator<Item = Arc<Page>>) {
        for page in pages {
            if Arc::strong_count(&page) == 1 {
                self.allocated -= 1;
                if self.spare.len() < SPARE {
                    self.spare.push(page);
                }
            }
        }
    }

    /// The page of the tokens behind node `parent`, if it is remembered.
    pub(super) fn find(&mut self, parent: u64, tokens: &[u32]) -> Option<(u64, Arc<Page>)> {
        let id = *self.children.get(&(parent, tokens.into()) as &(u64, Box<[u32]>))?;
        self.clock += 1;
        let node = self.nodes.get_mut(&id)?;
        node.used = self.clock;
        Some((id, node.page.clone()))
    }

    /// Remembers a full page under the tokens behind node `parent`; its own user keeps it. Gives the node, and the page
    /// of the same tokens that is known already, if there is one.
    pub(super) fn remember(
        &mut self,
        parent: u64,
        tokens: &[u32],
        page: &Arc<Page>,
    ) -> (u64, Option<Arc<Page>>) {
        debug_assert_eq!(tokens.len(), PAGE);
        if let Some((id, page)) = self.find(parent, tokens) {
            return (id, Some(page));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.clock += 1;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.n_children += 1;
        }
        let tokens: Box<[u32]> = tokens.into();
        self.children.insert((parent, tokens.clone()), id);
        self.nodes.insert(id, Node { page: page.clone(), parent, tokens, n_children: 0, used: self.clock });
        (id, None)
    }

    /// Forgets the page that was not used the longest and that no sequence and no other page needs.
    fn forget_one(&mut self) -> bool {
        let leaves = self.nodes.iter().filter(|(_, node)| node.n_children == 0 && is_unused(node));
        let Some((&id, _)) = leaves.min_by_key(|(_, node)| node.used) else { return false };
        let Some(node) = self.nodes.remove(&id) else { return false };
        self.children.remove(&(node.parent, node.tokens));
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.n_children -= 1;
        }
        self.give_back([node.page]);
        true
    }
}

/// Whether no sequence has the page. Sequences have all pages before one that they have, so that what is behind an
/// unused page is unused too.
fn is_unused(node: &Node) -> bool {
    Arc::strong_count(&node.page) == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::attention::{CacheShape, CacheType};

    fn page() -> Arc<Page> {
        Arc::new(Page::new(CacheType::I8, CacheShape { n_kv_heads: 1, head_dim: 1 }, 1))
    }

    fn taken(pages: &mut Pages) -> Arc<Page> {
        pages.take().unwrap().unwrap_or_else(page)
    }

    #[test]
    fn beginnings_are_found_and_forgotten_when_room_is_needed() {
        let mut pages = Pages::new(3);
        let (a, b) = (vec![1; PAGE], vec![2; PAGE]);
        let (first, second) = (taken(&mut pages), taken(&mut pages));
        let (node, _) = pages.remember(ROOT, &a, &first);
        let (leaf, _) = pages.remember(node, &b, &second);
        assert_eq!(pages.in_use(), (2, 0));
        pages.give_back([first, second]);
        assert_eq!((pages.in_use(), pages.available()), ((0, 2), 3));
        assert_eq!(pages.find(node, &b).unwrap().0, leaf);
        assert!(pages.find(ROOT, &b).is_none());
        // The third is free, the fourth costs the leaf, the fifth the page before it.
        let all: Vec<_> = (0..3).map(|_| taken(&mut pages)).collect();
        assert!(pages.find(ROOT, &a).is_none());
        assert!(pages.take().is_none());
        pages.give_back(all);
        assert_eq!(pages.in_use(), (0, 0));
    }

    #[test]
    fn the_same_page_computed_twice_is_kept_once() {
        let mut pages = Pages::new(3);
        let tokens = vec![1; PAGE];
        let (one, two) = (taken(&mut pages), taken(&mut pages));
        let (id, known) = pages.remember(ROOT, &tokens, &one);
        assert!(known.is_none());
        let (same, known) = pages.remember(ROOT, &tokens, &two);
        assert!(id == same && Arc::ptr_eq(&known.unwrap(), &one));
        pages.give_back([two]);
        assert_eq!(pages.in_use(), (1, 0));
    }
}
