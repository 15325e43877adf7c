//! Answers that must follow a grammar: JSON of a schema, calls of tools.

use std::sync::{Arc, OnceLock};

use engine::scheduler::Constraint;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use crate::card::Card;
use crate::error::ApiError;
use crate::limits;

/// Makes parsers of grammars for one model's vocabulary.
#[derive(Default)]
pub(crate) struct Grammars {
    factory: OnceLock<Option<Arc<ParserFactory>>>,
}

/// A grammar, and the parameter of the request that it came from.
#[derive(Clone)]
pub(crate) struct Grammar {
    grammar: TopLevelGrammar,
    param: String,
}

impl Grammar {
    /// JSON that fits a schema.
    pub(crate) fn schema(schema: &Value, param: &str) -> Result<Self, ApiError> {
        Ok(Self {
            grammar: TopLevelGrammar::from_json_schema(plain(schema, param)?),
            param: param.to_owned(),
        })
    }

    /// A grammar in llguidance's Lark.
    pub(crate) fn lark(text: String, param: &str) -> Result<Self, ApiError> {
        if text.len() > limits::GRAMMAR {
            return Err(ApiError::param(param, format!("more than {} bytes", limits::GRAMMAR)));
        }
        Ok(Self { grammar: TopLevelGrammar::from_lark(text), param: param.to_owned() })
    }
}

/// A schema whose JSON has no more white space than Python's `json.dumps` puts into it: a model left to choose may go on
/// with spaces for ever.
pub(crate) fn plain(schema: &Value, param: &str) -> Result<Value, ApiError> {
    if schema.to_string().len() > limits::GRAMMAR {
        return Err(ApiError::param(param, format!("more than {} bytes", limits::GRAMMAR)));
    }
    let mut schema = match schema {
        Value::Object(_) => schema.clone(),
        Value::Bool(true) => json!({}),
        _ => return Err(ApiError::param(param, "a schema is an object")),
    };
    schema["x-guidance"] =
        json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
    Ok(schema)
}

impl Grammars {
    /// A constraint of a grammar from its beginning.
    ///
    /// # Errors
    /// 400 that names the parameter when the grammar is wrong or too hard.
    pub(crate) fn constraint(&self, card: &Card, grammar: &Grammar) -> Result<Box<dyn Constraint>, ApiError> {
        let factory = self.factory.get_or_init(|| factory(card).map(Arc::new));
        let Some(factory) = factory else {
            return Err(ApiError::unsupported(&*grammar.param, "the model has no tokenizer"));
        };
        let parser = factory
            .create_parser(grammar.grammar.clone())
            .map_err(|error| ApiError::param(&*grammar.param, format!("{error:#}")))?;
        Ok(Box::new(Guide { matcher: Matcher::new(Ok(parser)), mask: SimpleVob::new() }))
    }
}

/// Texts of the vocabulary as llguidance takes them: control tokens are marked, and a model's rows without a token are empty.
fn factory(card: &Card) -> Option<ParserFactory> {
    let tokenizer = card.tokenizer.as_ref()?;
    let eos = *card.eos.first()?;
    let word = |id: u32| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        if tokenizer.is_special(id) {
            return [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
        }
        bytes.to_vec()
    };
    let words: Vec<Vec<u8>> = (0..card.vocab_size as u32).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(card.vocab_size as u32, eos), &words).with_eos_tokens(&card.eos);
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&environment).ok()?;
    factory.quiet();
    Some(factory)
}

/// A parser that goes along with an answer.
struct Guide {
    matcher: Matcher,
    mask: SimpleVob,
}

impl Constraint for Guide {
    fn allowed(&mut self) -> Result<&[u32], String> {
        self.mask = self.matcher.compute_mask_or_eos().map_err(|error| format!("{error:#}"))?;
        Ok(self.mask.as_slice())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        self.matcher.consume_token(id).map_err(|error| format!("{error:#}"))
    }

    fn is_finished(&mut self) -> bool {
        self.matcher.is_stopped()
    }
}
