//! A slice that the members of a team write in disjoint pieces.

use std::marker::PhantomData;
use std::ops::Range;

/// A uniquely borrowed slice whose pieces are handed to several threads.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives out nothing but pieces that its callers vouch to be disjoint, and T may be sent.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Takes the slice over for as long as the pieces live.
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// The elements of `range`.
    ///
    /// # Panics
    /// When the range lies outside the slice.
    ///
    /// # Safety
    /// No two pieces in use at the same time overlap.
    #[allow(clippy::mut_from_ref, reason = "that is its purpose; the caller vouches for disjoint pieces")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "a piece outside the shared slice");
        // SAFETY: the piece lies inside the slice that is uniquely borrowed for 'a, and the caller vouches that
        // no other piece in use overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
