//! Memory for weights: a few large maps on huge pages where the system gives them.
//!
//! Decoding streams through all weights once a token. On pages of 4 kB the processor spends a good part of that time
//! looking up addresses; the matrices of a small model are each too short for a huge page of their own, so they share maps.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::trits::Line;

/// Bytes of a map that several matrices share. Only what is written takes memory.
const MAP_BYTES: usize = 256 << 20;

/// Gives out memory for matrices.
#[derive(Debug, Default)]
pub struct Arena {
    map: Option<Map>,
}

/// A map and how much of it is given out.
#[derive(Debug)]
struct Map {
    memory: Arc<MmapMut>,
    start: NonNull<Line>,
    lines: usize,
    used: usize,
}

// SAFETY: a pointer into a map that this value keeps; whoever has the value may use the part that is not given out.
unsafe impl Send for Map {}

impl Map {
    fn new(bytes: usize) -> Option<Self> {
        let mut memory = MmapMut::map_anon(bytes).ok()?;
        // Refused where there are no huge pages: then they are small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let start = NonNull::new(memory.as_mut_ptr().cast::<Line>()).filter(|start| start.is_aligned())?;
        Some(Self { memory: Arc::new(memory), start, lines: bytes / size_of::<Line>(), used: 0 })
    }

    fn take(&mut self, lines: usize) -> Option<Lines> {
        let end = self.used.checked_add(lines).filter(|end| *end <= self.lines)?;
        // SAFETY: `used <= lines`, so the pointer stays inside the map or at its end.
        let start = unsafe { self.start.add(self.used) };
        self.used = end;
        Some(Lines { _map: Arc::clone(&self.memory), start, len: lines })
    }
}

impl Arena {
    /// `lines` zeroed lines; `None` when the system has no memory for them.
    pub(crate) fn take(&mut self, lines: usize) -> Option<Lines> {
        if let Some(lines) = self.map.as_mut().and_then(|map| map.take(lines)) {
            return Some(lines);
        }
        let bytes = lines.checked_mul(size_of::<Line>())?;
        let mut map = Map::new(bytes.max(MAP_BYTES))?;
        let taken = map.take(lines);
        self.map = Some(map);
        taken
    }
}

/// Lines of an [`Arena`] that belong to one owner.
#[derive(Debug)]
pub(crate) struct Lines {
    _map: Arc<MmapMut>,
    start: NonNull<Line>,
    len: usize,
}

// SAFETY: the lines belong to this value alone (an arena gives no line out twice and no longer touches it), as a Vec's do.
unsafe impl Send for Lines {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Lines {}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: `len` lines from `start` on lie in the map, which `_map` keeps; they are zeroed or written, any bytes are
        // a line, the pointer is aligned (maps begin on pages), and they belong to this value alone.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as in `deref`, and the reference to this value is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_do_not_share_lines_and_outlive_the_arena() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 3, MAP_BYTES / 64 - 2, 5, 0, MAP_BYTES / 64 + 1, 7];
        let mut all: Vec<Lines> = sizes.iter().map(|&lines| arena.take(lines).unwrap()).collect();
        drop(arena);
        for (i, lines) in all.iter_mut().enumerate() {
            assert_eq!(lines.len(), sizes[i]);
            let ends = [0, lines.len().saturating_sub(1)];
            for end in ends {
                if let Some(line) = lines.get_mut(end) {
                    assert!(line.0 == [0; 64] || line.0 == [i as u8 + 1; 64]);
                    line.0 = [i as u8 + 1; 64];
                }
            }
        }
        for (i, lines) in all.iter().enumerate() {
            assert!(lines.first().is_none_or(|line| line.0 == [i as u8 + 1; 64]));
            assert!(lines.last().is_none_or(|line| line.0 == [i as u8 + 1; 64]));
        }
    }
}
