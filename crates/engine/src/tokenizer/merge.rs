//! The loop that both kinds of BPE share: join the best adjacent pair, again and again.
//!
//! A heap of candidate pairs and a linked list of symbols make it O(n log n); looking for the best pair in the
//! whole list after every merge, as run.c does, gives the same result in O(n²).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol, or a symbol that is not a token.
pub(super) const NONE: u32 = u32::MAX;

/// A stretch `start..end` of the text, in bytes, and its token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    pub(super) start: u32,
    pub(super) end: u32,
    /// Token, or [`NONE`].
    pub(super) id: u32,
    prev: u32,
    next: u32,
    /// Whether its left neighbour has swallowed it.
    merged: bool,
}

/// A pair that may be joined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merge {
    /// Smaller is joined first; of equals, the leftmost.
    pub(super) priority: u32,
    /// Token that the pair becomes.
    pub(super) id: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    right: u32,
    /// Where the right symbol ended when this was pushed: if it has grown since, the candidate is stale.
    end: u32,
    id: u32,
}

/// Buffers that are kept from one piece of text to the next.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Appends a symbol; it must begin where the one before it ends.
    pub(super) fn push(&mut self, start: u32, end: u32, id: u32) {
        let at = self.symbols.len() as u32;
        let prev = if at == 0 { NONE } else { at - 1 };
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol { start, end, id, prev, next: NONE, merged: false });
    }

    /// Joins pairs until `pair` finds none, and gives the symbols that remain. The buffers are empty afterwards.
    pub(super) fn run(
        &mut self,
        pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>,
    ) -> impl Iterator<Item = Symbol> + '_ {
        for left in 1..self.symbols.len() as u32 {
            self.consider(left - 1, left, &pair);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let (left, right) = (self.symbols[best.left as usize], self.symbols[best.right as usize]);
            if left.merged || right.merged || left.next != best.right || right.end != best.end {
                continue;
            }
            self.symbols[best.right as usize].merged = true;
            let joined = &mut self.symbols[best.left as usize];
            joined.end = right.end;
            joined.id = best.id;
            joined.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = best.left;
            }
            self.consider(left.prev, best.left, &pair);
            self.consider(best.left, right.next, &pair);
        }
        self.symbols.drain(..).filter(|symbol| !symbol.merged)
    }

    fn consider(&mut self, left: u32, right: u32, pair: &impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        if left == NONE || right == NONE {
            return;
        }
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some(Merge { priority, id }) = pair(a, b) {
            self.queue.push(Reverse(Candidate { priority, left, right, end: b.end, id }));
        }
    }
}
