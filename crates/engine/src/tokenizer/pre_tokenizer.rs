//! How a text is cut into words before byte-level BPE, by the name that GGUF gives the method.
//!
//! Each method is a list of patterns. A pattern cuts every fragment that the one before it left into its
//! matches and what lies between them; nothing is lost. The patterns are those of the models' own
//! `tokenizer.json`, as llama.cpp lists them by name. Their only look-ahead, `\s+(?!\S)`, is done by hand
//! ([`Spaces`]), so that a plain, linear-time regular expression is enough.

use std::sync::Arc;

use regex::Regex;

use super::TokenizerError;

/// What to do with a run of white space that text follows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Spaces {
    /// Keep the match as it is.
    Whole,
    /// `\s+(?!\S)|\s+`: the last character stays for the word that follows.
    LeaveLast,
    /// As `LeaveLast`, but `\s*[\r\n]+` came first, and took the runs that end with a line break.
    LeaveLastUnlessBreak,
}

type Pattern = (&'static str, Spaces);

/// A named way of cutting, and what else llama.cpp ties to the name.
struct Method {
    names: &'static [&'static str],
    patterns: &'static [Pattern],
    /// A word that is a token is taken whole, whatever the merges say.
    ignore_merges: bool,
    /// Whether BOS is added when the file does not say.
    add_bos: bool,
}

const GPT2: Pattern =
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+", Spaces::LeaveLast);
const LLAMA3: Pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveLastUnlessBreak,
);
const QWEN2: Pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveLastUnlessBreak,
);
const QWEN35: Pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Spaces::LeaveLastUnlessBreak,
);

/// Words of upper-case letters that lower-case ones end, or the other way about; `$tail` goes behind each.
macro_rules! cased_words {
    ($tail:literal, $numbers:literal) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
            $tail,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
            $tail,
            "|",
            $numbers,
            r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
        )
    };
}
const TEKKEN: Pattern = (cased_words!("", r"\p{N}"), Spaces::LeaveLastUnlessBreak);
const GPT4O: Pattern =
    (cased_words!(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}"), Spaces::LeaveLastUnlessBreak);
const DEEPSEEK3: Pattern = (
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
    Spaces::LeaveLastUnlessBreak,
);

const METHODS: &[Method] = &[
    Method {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Method {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    Method { names: &["glm4"], patterns: &[LLAMA3], ignore_merges: true, add_bos: false },
    Method { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    Method { names: &["gpt-4o", "llama4"], patterns: &[GPT4O], ignore_merges: false, add_bos: false },
    Method {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Method { names: &["qwen35"], patterns: &[QWEN35], ignore_merges: false, add_bos: false },
    Method {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: &[(r"\p{N}", Spaces::Whole), GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Method {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "granite-docling", "mellum"],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Method {
        names: &["falcon"],
        patterns: &[(r"[\p{P}\$\+<=>\^~\|`]+", Spaces::Whole), GPT2, (r"[0-9][0-9][0-9]", Spaces::Whole)],
        ignore_merges: false,
        add_bos: false,
    },
    Method {
        names: &["default"],
        patterns: &[
            (r"[\p{P}\$\+<=>\^~\|]+", Spaces::Whole),
            GPT2,
            (r"\p{N}+", Spaces::Whole),
            (r"[0-9][0-9][0-9]", Spaces::Whole),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Method {
        names: &["deepseek-v3", "hunyuan-dense"],
        patterns: &[(r"\p{N}{1,3}", Spaces::Whole), (r"[一-龥\u{3040}-ゟ゠-ヿ]+", Spaces::Whole), DEEPSEEK3],
        ignore_merges: false,
        add_bos: false,
    },
    Method {
        names: &["deepseek-coder"],
        patterns: &[
            (r"[\r\n]", Spaces::Whole),
            (r"\s?\p{L}+", Spaces::Whole),
            (r"\s?\p{P}+", Spaces::Whole),
            (r"[一-龥ࠀ-一가-\u{d7ff}]+", Spaces::Whole),
            (r"\p{N}", Spaces::Whole),
        ],
        ignore_merges: false,
        add_bos: false,
    },
];

/// A compiled method; clones share it.
#[derive(Debug, Clone)]
pub(super) struct PreTokenizer {
    patterns: Arc<[(Regex, Spaces)]>,
    pub(super) ignore_merges: bool,
}

impl PreTokenizer {
    /// The method that `tokenizer.ggml.pre` names.
    pub(super) fn named(name: &str) -> Result<Self, TokenizerError> {
        let method = method(name).ok_or_else(|| {
            let known: Vec<_> = METHODS.iter().flat_map(|method| method.names).copied().collect();
            TokenizerError::UnknownPreTokenizer { name: name.to_owned(), known: known.join(", ") }
        })?;
        let patterns = method
            .patterns
            .iter()
            .map(|&(pattern, spaces)| Ok((Regex::new(pattern)?, spaces)))
            .collect::<Result<_, regex::Error>>()
            .map_err(|error| TokenizerError::field("pre-tokenizer", error.to_string()))?;
        Ok(Self { patterns, ignore_merges: method.ignore_merges })
    }

    /// Whether a file with this pre-tokenizer wants BOS when it does not say.
    pub(super) fn adds_bos(name: &str) -> bool {
        method(name).is_some_and(|method| method.add_bos)
    }

    /// Calls `word` with each word of `text`, in order; together they are `text`.
    pub(super) fn split<E>(&self, text: &str, word: &mut impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
        split_by(&self.patterns, text, word)
    }
}

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.names.contains(&name))
}

fn split_by<E>(
    patterns: &[(Regex, Spaces)],
    text: &str,
    word: &mut impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let Some(((regex, spaces), rest)) = patterns.split_first() else { return word(text) };
    let mut done = 0;
    while let Some(found) = regex.find_at(text, done) {
        if found.start() > done {
            split_by(rest, &text[done..found.start()], word)?;
        }
        let end = found.end() - left_over(found.as_str(), &text[found.end()..], *spaces);
        split_by(rest, &text[found.start()..end], word)?;
        done = end;
    }
    if done < text.len() {
        split_by(rest, &text[done..], word)?;
    }
    Ok(())
}

/// How many bytes at the end of the match `found` belong to the next one.
fn left_over(found: &str, after: &str, spaces: Spaces) -> usize {
    let Some(last) = found.chars().next_back() else { return 0 };
    let keeps_all = spaces == Spaces::Whole
        || after.is_empty()
        || found.len() == last.len_utf8()
        || (spaces == Spaces::LeaveLastUnlessBreak && matches!(last, '\r' | '\n'))
        || !found.chars().all(char::is_whitespace);
    if keeps_all { 0 } else { last.len_utf8() }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn words(method: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let split = PreTokenizer::named(method).unwrap().split(text, &mut |word: &str| {
            words.push(word.to_owned());
            Ok::<_, Infallible>(())
        });
        split.unwrap();
        words
    }

    /// The same with the look-ahead in the pattern, by an engine that has look-aheads.
    fn words_with_look_ahead(method: &str, text: &str) -> Vec<String> {
        let mut words = vec![text.to_owned()];
        for (pattern, spaces) in super::method(method).unwrap().patterns {
            let pattern = match spaces {
                Spaces::Whole => (*pattern).to_owned(),
                _ => format!("{}{}", pattern.strip_suffix(r"\s+").unwrap(), r"\s+(?!\S)|\s+"),
            };
            let regex = fancy_regex::Regex::new(&pattern).unwrap();
            let split = |word: &String| {
                let mut parts = Vec::new();
                let mut done = 0;
                for found in regex.find_iter(word).map(Result::unwrap) {
                    parts.extend([&word[done..found.start()], found.as_str()].map(str::to_owned));
                    done = found.end();
                }
                parts.push(word[done..].to_owned());
                parts
            };
            words = words.iter().flat_map(split).filter(|word| !word.is_empty()).collect();
        }
        words
    }

    proptest! {
        #[test]
        fn patterns_equal_their_look_aheads(
            text in prop_oneof![
                "[ \\t\\r\\n\\u{85}\\u{a0}\\u{3000}a'sB1é.$]{0,30}",
                "(\\PC|[ \\t\\r\\n]){0,30}",
                any::<String>(),
            ],
            method in proptest::sample::select(METHODS.iter().map(|method| method.names[0]).collect::<Vec<_>>()),
        ) {
            let words = words(method, &text);
            prop_assert_eq!(words.concat(), &*text);
            prop_assert_eq!(words, words_with_look_ahead(method, &text));
        }
    }

    #[test]
    fn names_are_unique_and_unknown_ones_are_refused() {
        let names: Vec<_> = METHODS.iter().flat_map(|method| method.names).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(names.len(), unique.len());
        let error = PreTokenizer::named("gpt-7").unwrap_err().to_string();
        assert!(error.contains("gpt-7") && names.iter().all(|name| error.contains(**name)), "{error}");
    }
}
