//! Tokens that are found in a text before anything else looks at it.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::TokenizerError;
use super::vocab::{TokenType, Vocab};

/// Most bytes of added tokens. The automaton takes some 40 bytes for each; Gemma 3, which has the most that we know, has
/// 75 kB.
const MAX_BYTES: usize = 1 << 20;

/// Stands inside a control token that is only text ([`AddedTokens::guard`]). A noncharacter: Unicode reserves it for
/// such use inside a program, and no text has it.
const GUARD: char = '\u{fdd0}';

/// A stretch of text, or a token that stood in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fragment<'t> {
    /// Text to encode.
    Text(Cow<'t, str>),
    /// A control, unknown or user-defined token.
    Token(u32),
}

/// Finds the leftmost, longest token of a set.
#[derive(Debug, Default)]
struct Finder {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Finder {
    fn new(vocab: &Vocab, keep: impl Fn(TokenType) -> bool) -> Result<Self, TokenizerError> {
        // A token whose bytes are no text does not stand in a text, and would match inside a character.
        let is_text = |text: &[u8]| !text.is_empty() && str::from_utf8(text).is_ok();
        let kept = || vocab.iter().filter(|(_, text, kind)| keep(*kind) && is_text(text));
        let ids: Vec<u32> = kept().map(|(id, ..)| id).collect();
        let bytes: usize = kept().map(|(_, text, _)| text.len()).sum();
        if bytes > MAX_BYTES {
            let problem = format!("{bytes} bytes of them are more than the limit of {MAX_BYTES}");
            return Err(TokenizerError::field("special tokens", problem));
        }
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(kept().map(|(_, text, _)| text))
            .map_err(|error| TokenizerError::field("special tokens", error.to_string()))?;
        Ok(Self { automaton: Some(automaton), ids })
    }
}

/// The tokens that are cut out of a text: user-defined ones always, control tokens when the caller trusts the text.
#[derive(Debug)]
pub(super) struct AddedTokens {
    all: Finder,
    special: Finder,
    user_defined: Finder,
}

impl AddedTokens {
    /// Collects the added tokens of `vocab`.
    pub(super) fn new(vocab: &Vocab) -> Result<Self, TokenizerError> {
        let user_defined = |kind| kind == TokenType::UserDefined;
        let special = |kind| matches!(kind, TokenType::Control | TokenType::Unknown);
        Ok(Self {
            all: Finder::new(vocab, |kind| user_defined(kind) || special(kind))?,
            special: Finder::new(vocab, special)?,
            user_defined: Finder::new(vocab, user_defined)?,
        })
    }

    /// Cuts `text`. Without `parse_special`, the text of a control token is text like any other; with it, only where it
    /// is not guarded.
    pub(super) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let finder = if parse_special { &self.all } else { &self.user_defined };
        let as_text = |text: &'t str| Fragment::Text(if parse_special { unguard(text) } else { text.into() });
        let mut fragments = Vec::new();
        let mut done = 0;
        if let Some(automaton) = &finder.automaton {
            for found in automaton.find_iter(text) {
                if found.start() > done {
                    fragments.push(as_text(&text[done..found.start()]));
                }
                fragments.push(Fragment::Token(finder.ids[found.pattern().as_usize()]));
                done = found.end();
            }
        }
        if done < text.len() {
            fragments.push(as_text(&text[done..]));
        }
        fragments
    }

    /// Marks the control tokens in `text`, so that [`AddedTokens::split`] takes them for text even when it is told to
    /// parse them.
    pub(super) fn guard<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let text = unguard(text);
        let Some(automaton) = &self.special.automaton else { return text };
        let mut guarded = String::new();
        let mut done = 0;
        // Tokens may overlap: the next one is looked for behind the first character of this one.
        while let Some(found) = automaton.find(Input::new(&*text).range(done..)) {
            let first = text[found.start()..].chars().next().map_or(1, char::len_utf8);
            guarded.push_str(&text[done..found.start() + first]);
            guarded.push(GUARD);
            done = found.start() + first;
        }
        if done == 0 {
            return text;
        }
        guarded.push_str(&text[done..]);
        guarded.into()
    }
}

/// Takes the guards out again.
fn unguard(text: &str) -> Cow<'_, str> {
    if text.contains(GUARD) { text.replace(GUARD, "").into() } else { text.into() }
}

/// The parts of a text between its guards.
pub(super) fn guarded_parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(GUARD)
}
