//! Causal attention of the queries of one or several sequences over their cached keys and values.
//!
//! Positions are taken in pages of [`PAGE`] with a running softmax (Milakov and Gimelshein, arXiv 1805.02867;
//! Dao et al., arXiv 2205.14135), pages in parts of [`PART`] positions whose results are then joined in order.
//! Working space does not grow with the context, but for one result a part and head where a few tokens are
//! spread over the team. The arithmetic of a token and head depends on its own positions alone: neither on the
//! tokens beside it, nor on the number of threads.

mod cache;
pub(crate) mod page;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use cache::Cached;
pub use cache::{CacheShape, CacheType, PAGE, Page};

use crate::dispatch::vector_ops;
use crate::threads::{Shared, Team};
use page::{PageView, Rows, Running, empty_part, finish, part_len};

/// Positions whose softmax is computed in one go: what a member of the team works on at least.
pub const PART: usize = 8 * PAGE;

/// Query rows (tokens times query heads of a key head) that share a page while it is in the cache.
const ROWS: usize = 32;

/// The heads of a layer and how far they see.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Query heads a token; a multiple of the key and value heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub cache: CacheShape,
    /// How many positions a token sees, itself included; `None` for all before it.
    pub window: Option<usize>,
    /// Factor on every score, 1 / sqrt(head_dim) as a rule.
    pub scale: f32,
}

impl Heads {
    fn per_kv_head(&self) -> usize {
        self.n_heads / self.cache.n_kv_heads
    }

    /// Tokens whose rows share a page.
    fn tile_tokens(&self) -> usize {
        (ROWS / self.per_kv_head()).max(1)
    }
}

/// Consecutive tokens of one sequence and the layer's cache that they look at.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// Number of tokens.
    pub tokens: usize,
    /// Position of the first of them.
    pub position: usize,
    /// The layer.
    pub layer: usize,
    /// The pages that hold the positions of this sequence, in order.
    pub pages: &'a [Arc<Page>],
}

impl Span<'_> {
    /// First position that some token sees, and one past the last.
    fn visible(&self, heads: &Heads) -> Range<usize> {
        let first = heads.window.map_or(0, |window| (self.position + 1).saturating_sub(window));
        first..self.position + self.tokens
    }

    fn parts(&self, heads: &Heads) -> Range<usize> {
        let visible = self.visible(heads);
        visible.start / PART..visible.end.div_ceil(PART)
    }

    /// Whether its parts are worked on apart: few tokens and a long past.
    fn is_split(&self, heads: &Heads) -> bool {
        self.tokens <= heads.tile_tokens() && self.parts(heads).len() > 1
    }

    fn items(&self, heads: &Heads) -> usize {
        let tiles = self.tokens.div_ceil(heads.tile_tokens());
        let parts = if self.is_split(heads) { self.parts(heads).len() } else { 1 };
        tiles * heads.cache.n_kv_heads * parts
    }

    /// Floats of its parts, `[n_kv_heads, parts, rows, part_len]`.
    fn parts_len(&self, heads: &Heads) -> usize {
        if !self.is_split(heads) {
            return 0;
        }
        self.parts(heads).len() * self.tokens * heads.n_heads * part_len(heads.cache.width())
    }
}

/// Floats of working space that [`attend`] needs for one sequence of up to `context` positions.
pub fn parts_capacity(heads: &Heads, context: usize) -> usize {
    (context.div_ceil(PART) + 1) * heads.tile_tokens() * heads.n_heads * part_len(heads.cache.width())
}

/// Where a sequence stands among all: its first token, its first float of parts, its first item of work.
#[derive(Clone, Copy, Default)]
struct At {
    token: usize,
    part: usize,
    item: usize,
}

impl At {
    fn after(self, span: &Span<'_>, heads: &Heads) -> Self {
        Self {
            token: self.token + span.tokens,
            part: self.part + span.parts_len(heads),
            item: self.item + span.items(heads),
        }
    }
}

/// Buffers of one thread, kept between calls so that decoding does not allocate.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    visible: Vec<Range<usize>>,
    running: Running,
    part: Vec<f32>,
    total: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Causal attention of all tokens and heads of `spans` sequences, of which `span(i)` is the i-th: `queries`
/// and `out` are `[tokens, n_heads, head_dim]`, the sequences' tokens one after another, queries after RoPE.
/// `parts` is working space ([`parts_capacity`]).
///
/// # Panics
/// When lengths do not fit, or a position has no page.
pub fn attend<'a>(
    team: &Team,
    heads: &Heads,
    spans: usize,
    span: &(dyn Fn(usize) -> Span<'a> + Sync),
    queries: &[f32],
    out: &mut [f32],
    parts: &mut Vec<f32>,
) {
    let end = (0..spans).fold(At::default(), |at, i| at.after(&span(i), heads));
    assert_eq!(queries.len(), end.token * heads.n_heads * heads.cache.head_dim, "queries of all tokens");
    assert_eq!(queries.len(), out.len(), "an output for each query");
    if parts.len() < end.part {
        parts.resize(end.part, 0.0);
    }
    let work: usize = (0..spans).map(|i| span(i).tokens * span(i).visible(heads).len()).sum();
    let work = 2 * work * heads.n_heads * heads.cache.head_dim;
    {
        let (out, parts) = (Shared::new(out), Shared::new(parts));
        team.for_each(end.item, work, &|item| {
            let mut at = At::default();
            for i in 0..spans {
                let span = span(i);
                let next = at.after(&span, heads);
                if item < next.item {
                    let job = Job { heads, span: &span, at, queries, out: &out, parts: &parts };
                    return SCRATCH.with_borrow_mut(|scratch| job.run(item - at.item, scratch));
                }
                at = next;
            }
        });
    }
    join_parts(heads, spans, span, out, parts);
}

/// One sequence's work, item by item.
struct Job<'a, 'b> {
    heads: &'b Heads,
    span: &'b Span<'a>,
    at: At,
    queries: &'b [f32],
    out: &'b Shared<'b, f32>,
    parts: &'b Shared<'b, f32>,
}

impl Job<'_, '_> {
    /// Item `item` of the sequence: a tile of tokens, a key head and, where they are split, a part.
    fn run(&self, item: usize, scratch: &mut Scratch) {
        let (heads, span, shape) = (self.heads, self.span, self.heads.cache);
        let (group, width) = (heads.per_kv_head(), shape.width());
        let (tile, kv_head) = (item / shape.n_kv_heads, item % shape.n_kv_heads);
        let parts = span.parts(heads);
        if span.is_split(heads) {
            self.load_queries(0..span.tokens, kv_head, scratch);
            // `tile` counts parts here: there is one tile of tokens.
            self.attend_part(0..span.tokens, kv_head, parts.start + tile, scratch);
            let len = span.tokens * group * part_len(width);
            let at = self.at.part + (kv_head * parts.len() + tile) * len;
            // SAFETY: each (head, part) of each sequence is one item and has its own `len` floats.
            scratch.running.write_parts(unsafe { self.parts.slice(at..at + len) });
            return;
        }
        // The last tile sees most: it comes first, so that no long piece of work is left for the end.
        let tile_tokens = heads.tile_tokens();
        let tile = span.tokens.div_ceil(tile_tokens) - 1 - tile;
        let tokens = tile * tile_tokens..((tile + 1) * tile_tokens).min(span.tokens);
        self.load_queries(tokens.clone(), kv_head, scratch);
        let len = tokens.len() * group * part_len(width);
        scratch.part.resize(len.max(scratch.part.len()), 0.0);
        scratch.total.resize(len.max(scratch.total.len()), 0.0);
        scratch.total[..len].chunks_exact_mut(part_len(width)).for_each(empty_part);
        for part in parts {
            self.attend_part(tokens.clone(), kv_head, part, scratch);
            scratch.running.write_parts(&mut scratch.part[..len]);
            join(&scratch.part[..len], &mut scratch.total[..len], width);
        }
        let rows = scratch.total[..len].chunks_exact(part_len(width)).enumerate();
        for (row, total) in rows {
            let at = self.row(tokens.start + row / group, kv_head * group + row % group);
            // SAFETY: each (token, head) belongs to one item.
            finish(total, unsafe { self.out.slice(at) });
        }
    }

    /// Where the query of a token and head stands in `queries` and `out`.
    fn row(&self, token: usize, head: usize) -> Range<usize> {
        let head_dim = self.heads.cache.head_dim;
        let at = ((self.at.token + token) * self.heads.n_heads + head) * head_dim;
        at..at + head_dim
    }

    fn load_queries(&self, tokens: Range<usize>, kv_head: usize, scratch: &mut Scratch) {
        let group = self.heads.per_kv_head();
        scratch.queries.clear();
        for token in tokens {
            for head in kv_head * group..(kv_head + 1) * group {
                let query = &self.queries[self.row(token, head)];
                scratch.queries.extend(query.iter().map(|q| q * self.heads.scale));
            }
        }
    }

    /// The softmax of a tile's rows over the positions of one part.
    fn attend_part(&self, tokens: Range<usize>, kv_head: usize, part: usize, scratch: &mut Scratch) {
        let (heads, span, shape) = (self.heads, self.span, self.heads.cache);
        let group = heads.per_kv_head();
        scratch.running.reset(tokens.len() * group, shape.width());
        let last = span.position + tokens.end;
        for page in part * PART / PAGE..((part + 1) * PART).min(last).div_ceil(PAGE) {
            let inside = |position: usize| position.saturating_sub(page * PAGE).min(PAGE);
            scratch.visible.clear();
            for token in tokens.clone() {
                let end = span.position + token + 1;
                let start = heads.window.map_or(0, |window| end.saturating_sub(window));
                scratch.visible.extend(std::iter::repeat_n(inside(start)..inside(end), group));
            }
            if scratch.visible.iter().all(Range::is_empty) {
                continue;
            }
            let next = span.pages.get(page + 1).filter(|_| (page + 1) * PAGE < last);
            let view = view(
                span.pages[page].layer(span.layer),
                next.map(|next| next.layer(span.layer)),
                shape,
                kv_head,
            );
            let rows =
                Rows { queries: &scratch.queries, head_dim: shape.head_dim, visible: &scratch.visible };
            // SAFETY: `vector_ops()` gives only functions that this processor can run.
            unsafe { (vector_ops().attend_page)(&view, &rows, &mut scratch.running) };
        }
    }
}

/// One head of one page and its keys in the page after it, which is of the same type.
fn view<'a>(page: Cached<'a>, next: Option<Cached<'a>>, shape: CacheShape, head: usize) -> PageView<'a> {
    let (key_len, value_len) = (shape.head_dim * PAGE, shape.width() * PAGE);
    let keys = head * key_len..(head + 1) * key_len;
    let values = head * value_len..(head + 1) * value_len;
    let scales = head * PAGE..(head + 1) * PAGE;
    match page {
        Cached::F32 { keys: k, values: v } => PageView::F32 {
            next: if let Some(Cached::F32 { keys: k, .. }) = next { &k[keys.clone()] } else { &[] },
            keys: &k[keys],
            values: &v[values],
        },
        Cached::F16 { keys: k, values: v } => PageView::F16 {
            next: if let Some(Cached::F16 { keys: k, .. }) = next { &k[keys.clone()] } else { &[] },
            keys: &k[keys],
            values: &v[values],
        },
        Cached::I8 { keys: k, key_scales, values: v, value_scales } => PageView::I8 {
            next: if let Some(Cached::I8 { keys: k, .. }) = next { &k[keys.clone()] } else { &[] },
            keys: &k[keys],
            key_scales: &key_scales[scales.clone()],
            values: &v[values],
            value_scales: &value_scales[scales],
        },
    }
}

/// Joins rows of a part to rows of what came before it, `[rows, part_len]` each.
fn join(part: &[f32], total: &mut [f32], width: usize) {
    let rows = part.chunks_exact(part_len(width)).zip(total.chunks_exact_mut(part_len(width)));
    for (part, total) in rows {
        // SAFETY: `vector_ops()` gives only functions that this processor can run.
        unsafe { (vector_ops().merge)(part, total) };
    }
}

/// Joins the parts of the sequences that were split and writes their output.
fn join_parts<'a>(
    heads: &Heads,
    spans: usize,
    span: &dyn Fn(usize) -> Span<'a>,
    out: &mut [f32],
    parts: &mut [f32],
) {
    let (group, width, head_dim) = (heads.per_kv_head(), heads.cache.width(), heads.cache.head_dim);
    let mut at = At::default();
    for i in 0..spans {
        let span = span(i);
        let next = at.after(&span, heads);
        if span.is_split(heads) {
            let rows = span.tokens * group;
            let of_heads =
                parts[at.part..next.part].chunks_exact_mut(span.parts(heads).len() * rows * part_len(width));
            for (kv_head, parts) in of_heads.enumerate() {
                let (total, rest) = parts.split_at_mut(rows * part_len(width));
                for part in rest.chunks_exact(rows * part_len(width)) {
                    join(part, total, width);
                }
                for (row, total) in total.chunks_exact(part_len(width)).enumerate() {
                    let (token, head) = (at.token + row / group, kv_head * group + row % group);
                    finish(total, &mut out[(token * heads.n_heads + head) * head_dim..][..head_dim]);
                }
            }
        }
        at = next;
    }
}
