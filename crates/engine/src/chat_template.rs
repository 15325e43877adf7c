//! From a conversation to the text that a model was trained on.
//!
//! Models bring a Jinja template that lays out their conversations (GGUF's `tokenizer.chat_template`, Hugging Face's
//! `tokenizer_config.json` or `chat_template.jinja`). It is rendered as transformers' `apply_chat_template` does it:
//! the same variables, `tojson` with Python's spacing, `raise_exception`, `strftime_now`, blocks trimmed, Python's methods
//! on strings, lists and dicts. A template comes from a file that somebody else made: it sees nothing but the
//! conversation, cannot load files, and stops when it has run too long.

mod answers;

use std::error::Error as _;
use std::fmt;
use std::io;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;
use serde_json::ser::Serializer;
use thiserror::Error as ThisError;

use crate::tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

/// Instructions that one rendering may take. Real templates take a few dozen for each message.
const FUEL: u64 = 5_000_000;

/// Longest template that is compiled, in bytes. The longest that we have seen has 30 kB.
const MAX_SOURCE: usize = 1 << 20;

const NAME: &str = "chat template";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`: what the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// What else the template may look at: `tool_calls`, `tool_call_id`, `name`.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), fields: serde_json::Map::new() }
    }

    /// The message with every text of the user's marked by [`Tokenizer::guard`].
    fn guarded(&self, tokenizer: &Tokenizer) -> Self {
        let mut fields = self.fields.clone();
        fields.values_mut().for_each(|value| guard(value, tokenizer));
        Self { role: self.role.clone(), content: tokenizer.guard(&self.content).into_owned(), fields }
    }
}

/// Marks every text of a value, keys of objects apart: templates look for those.
fn guard(value: &mut serde_json::Value, tokenizer: &Tokenizer) {
    match value {
        serde_json::Value::String(text) => *text = tokenizer.guard(text).into_owned(),
        serde_json::Value::Array(values) => values.iter_mut().for_each(|value| guard(value, tokenizer)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|value| guard(value, tokenizer)),
        _ => {}
    }
}

/// Why a conversation could not be laid out.
#[derive(Debug, Clone, PartialEq, ThisError)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is not Jinja that we understand.
    #[error("the chat template does not compile: {problem} (--chat-template gives another one)")]
    Compile {
        /// What is wrong, and in which line.
        problem: String,
    },
    /// The template itself refuses the conversation (`raise_exception`).
    #[error("the chat template refuses this conversation: {message}")]
    Refused {
        /// In the template's words.
        message: String,
    },
    /// The template failed or ran too long.
    #[error("the chat template failed: {problem} (--chat-template gives another one)")]
    Render {
        /// What went wrong, and in which line.
        problem: String,
    },
    /// The text that the template made has no tokens.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A compiled template and the tokens that it may name. Clones share it.
#[derive(Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    source: Arc<str>,
    bos_token: Arc<str>,
    eos_token: Arc<str>,
}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate").field("source", &self.source).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Compiles `source`. `bos` and `eos` are the texts of the model's tokens, empty where it has none.
    ///
    /// # Errors
    /// [`TemplateError::Compile`].
    pub fn from_source(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        Self::with_clock(source, bos, eos, Utc::now)
    }

    /// As [`ChatTemplate::from_source`], with a date of one's own for templates that write today's.
    pub fn with_clock(
        source: &str,
        bos: &str,
        eos: &str,
        clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static,
    ) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE {
            let problem = format!("it has {} bytes, more than {MAX_SOURCE}", source.len());
            return Err(TemplateError::Compile { problem });
        }
        let mut environment = environment().map_err(|error| compile_error(&error))?;
        environment.add_function("strftime_now", move |format: &str| strftime(&clock(), format));
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| compile_error(&error))?;
        Ok(Self {
            environment: Arc::new(environment),
            source: source.into(),
            bos_token: bos.into(),
            eos_token: eos.into(),
        })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Lays out `messages`. `tools` is what transformers calls `tools`: a list of JSON schemas. With
    /// `add_generation_prompt` the text ends where the assistant's answer begins.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] when the template does not accept the conversation, [`TemplateError::Render`].
    pub fn render(
        &self,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(failed)?;
        let context = context! {
            messages => Value::from(Serde(messages)),
            tools => Value::from(Serde(tools)),
            documents => Value::from(()),
            add_generation_prompt => add_generation_prompt,
            bos_token => &*self.bos_token,
            eos_token => &*self.eos_token,
        };
        template.render(context).map_err(failed)
    }

    /// The prompt's tokens: `messages` laid out as by [`ChatTemplate::render`] and encoded. The template's control tokens
    /// are tokens, those that a message's content contains are text; BOS is put first where the vocabulary asks for it
    /// and the template has not.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::render`], and [`TemplateError::Tokenizer`].
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: Option<&serde_json::Value>,
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, TemplateError> {
        let messages: Vec<Message> = messages.iter().map(|message| message.guarded(tokenizer)).collect();
        let mut tools = tools.cloned();
        if let Some(tools) = &mut tools {
            guard(tools, tokenizer);
        }
        let text = self.render(&messages, tools.as_ref(), add_generation_prompt)?;
        let mut ids = tokenizer.encode(&text, EncodeOptions { add_special: false, parse_special: true })?;
        if let Some(bos) = tokenizer.bos().filter(|bos| tokenizer.adds_bos() && ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        Ok(ids)
    }
}

/// transformers' environment: `trim_blocks`, `lstrip_blocks`, loop controls, no autoescape, its globals and filters.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    environment.add_filter("tojson", to_json);
    // Jinja's undefined has a length and can be walked, its none cannot: minijinja has it the other way round.
    for name in ["length", "count"] {
        environment.add_filter(name, length);
    }
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    Ok(environment)
}

/// What a template gave to `raise_exception`.
#[derive(Debug, ThisError)]
#[error("{0}")]
struct Raised(String);

fn failed(error: Error) -> TemplateError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TemplateError::Refused { message: message.clone() };
        }
        source = cause.source();
    }
    TemplateError::Render { problem: describe(&error) }
}

fn compile_error(error: &Error) -> TemplateError {
    TemplateError::Compile { problem: describe(error) }
}

fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{what} in line {line}"),
        None => what,
    }
}

/// `{% generation %}` marks the assistant's words for training; as text it is nothing. Both tags become tags that we
/// know, with their white-space control.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        let inner = &tag[2..end];
        match inner.trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn length(value: &Value) -> Result<usize, Error> {
    let length = if value.is_undefined() { Some(0) } else { value.len() };
    length.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("a {} has no length", value.kind())))
}

/// Python's `json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators)`, the first False unless
/// the template says otherwise.
fn to_json(value: Serde<serde_json::Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let bad = |problem: String| Error::new(ErrorKind::BadSerialization, problem);
    let indent = kwargs.get::<Option<usize>>("indent")?.map(|indent| indent.min(64));
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some(_) => return Err(bad("tojson: separators are two strings".to_owned())),
    };
    let mut json = Vec::new();
    let formatter = PythonFormatter { indent, item, key, ascii, depth: 0, empty: true };
    value
        .serialize(&mut Serializer::with_formatter(&mut json, formatter))
        .map_err(|error| bad(error.to_string()))?;
    String::from_utf8(json).map(Value::from).map_err(|error| bad(error.to_string()))
}

/// The layout of Python's `json.dumps`.
struct PythonFormatter<'a> {
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    ascii: bool,
    depth: usize,
    /// Whether the list or dict that is being written has no element yet.
    empty: bool,
}

impl PythonFormatter<'_> {
    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(&[bracket])
    }

    fn element<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.new_line(writer)
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth -= 1;
        if !std::mem::replace(&mut self.empty, false) {
            self.new_line(writer)?;
        }
        writer.write_all(&[bracket])
    }

    fn new_line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else { return Ok(()) };
        writer.write_all(b"\n")?;
        (0..self.depth.saturating_mul(indent)).try_for_each(|_| writer.write_all(b" "))
    }
}

impl serde_json::ser::Formatter for PythonFormatter<'_> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(text.as_bytes());
        }
        text.encode_utf16().try_for_each(|unit| match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() => writer.write_all(&[byte]),
            _ => write!(writer, "\\u{unit:04x}"),
        })
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'[')
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b']')
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b'{')
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b'}')
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.element(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }
}

/// `datetime.now().strftime(format)`, in UTC.
fn strftime(now: &DateTime<Utc>, format: &str) -> Result<String, Error> {
    use fmt::Write;

    let mut text = String::new();
    write!(text, "{}", now.format(format)).map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?} is no date format"))
    })?;
    Ok(text)
}
