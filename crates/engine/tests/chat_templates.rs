//! Chat templates against the strings that transformers renders (`tools/reference/chat_templates.py`).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers outside #[test] functions")]

use std::path::{Path, PathBuf};

use chrono::{TimeZone, Utc};
use engine::chat_template::{ChatTemplate, Message, TemplateError};
use formats::gguf::Gguf;
use serde_json::Value;

mod data;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/chat_templates")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn compile(source: &str) -> Result<ChatTemplate, TemplateError> {
    let day = || Utc.with_ymd_and_hms(2026, 1, 2, 3, 4, 5).unwrap();
    ChatTemplate::with_clock(source, "<s>", "</s>", day)
}

fn render(template: &ChatTemplate, case: &Value) -> Result<String, TemplateError> {
    let messages: Vec<Message> = case["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| Message::new(m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
        .collect();
    let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
    template.render(&messages, tools, case["add_generation_prompt"].as_bool().unwrap())
}

/// What differs from `expected`, case by case.
fn differences(source: &str, expected: &Value) -> Vec<String> {
    let template = match compile(source) {
        Ok(template) => template,
        Err(error) => return vec![error.to_string()],
    };
    let mut differences = Vec::new();
    for case in json(&fixtures().join("conversations.json")).as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let expected = &expected[name];
        let ours = render(&template, case);
        let same = match (&ours, expected["text"].as_str(), expected["error"].as_str()) {
            (Ok(ours), Some(theirs), _) => ours == theirs,
            (Err(TemplateError::Refused { message }), _, Some(theirs)) => theirs.ends_with(message.as_str()),
            // Python stumbles over what the template does; where we do not, there is nothing to compare.
            (Ok(_) | Err(TemplateError::Render { .. }), _, Some(theirs)) => {
                !theirs.starts_with("TemplateError")
            }
            _ => false,
        };
        if !same {
            differences.push(format!("{name}:\n  ours: {ours:?}\n  theirs: {expected}"));
        }
    }
    differences
}

#[test]
fn our_templates_render_as_transformers_does() {
    let expected = json(&fixtures().join("expected.json"));
    for name in ["chatml", "llama3", "qwen", "gemma", "python"] {
        let source = std::fs::read_to_string(fixtures().join(format!("{name}.jinja"))).unwrap();
        let differences = differences(&source, &expected[name]);
        assert!(differences.is_empty(), "{name}: {}", differences.join("\n"));
    }
}

#[test]
fn smollm2_renders_as_transformers_does() {
    let Some(path) = data::model("smollm2.gguf") else { return };
    let bytes = std::fs::read(path).unwrap();
    let source = Gguf::parse(&bytes).unwrap().str("tokenizer.chat_template").unwrap().unwrap();
    let expected = json(&fixtures().join("expected.json"));
    let differences = differences(source, &expected["smollm2"]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Every template in the folder that `EDGELLM_TEST_TEMPLATES` names, with the `expected.json` that the reference script
/// wrote beside it.
#[test]
fn more_templates_render_as_transformers_does() {
    let Some(folder) = std::env::var_os("EDGELLM_TEST_TEMPLATES").map(PathBuf::from) else {
        return println!("skipped: EDGELLM_TEST_TEMPLATES names no folder of templates");
    };
    let expected = json(&folder.join("expected.json"));
    let mut failed = Vec::new();
    for (name, expected) in expected.as_object().unwrap() {
        let source = std::fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let differences = differences(&source, expected);
        if !differences.is_empty() {
            println!("{name}: {}\n", differences.join("\n"));
            failed.push(name);
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} differ: {failed:?}",
        failed.len(),
        expected.as_object().unwrap().len()
    );
}

fn one_message() -> [Message; 1] {
    [Message::new("user", "Hi")]
}

#[test]
fn a_template_that_does_not_compile_names_the_line_and_the_way_out() {
    let error = compile("line one\n{% for message in messages %}").unwrap_err();
    assert!(matches!(error, TemplateError::Compile { .. }));
    let text = error.to_string();
    assert!(text.contains("line 2") && text.contains("--chat-template"), "{text}");
}

#[test]
fn a_template_that_refuses_does_so_in_its_own_words() {
    let template = compile("{{ raise_exception('Only after lunch.') }}").unwrap();
    let error = template.render(&one_message(), None, true).unwrap_err();
    assert_eq!(error, TemplateError::Refused { message: "Only after lunch.".to_owned() });
}

/// Each of these must end with an error, soon.
#[test]
fn hostile_templates_end_with_an_error() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let recursive = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}";
    for source in [
        endless,
        recursive,
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{% extends 'other' %}",
        "{{ 'x' * 1000000000 }}",
        "{{ range(1000000000) | list }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0].role.nothing.at_all }}",
        "{{ strftime_now('%Q') }}",
        "{{ 1 // 0 }}",
        "{{ messages | tojson(indent=messages) }}",
        "{{ '{}' | tojson(separators=['a']) }}",
    ] {
        let rendered = compile(source).and_then(|template| template.render(&one_message(), None, true));
        assert!(
            matches!(rendered, Err(TemplateError::Render { .. } | TemplateError::Compile { .. })),
            "{source}: {rendered:?}"
        );
    }
    let nested = "{% if true %}".repeat(100_000);
    assert!(matches!(compile(&nested), Err(TemplateError::Compile { .. })));
    let brackets = format!("{{{{ {} }}}}", "(".repeat(100_000));
    assert!(matches!(compile(&brackets), Err(TemplateError::Compile { .. })));
    let long = "x".repeat(2 << 20);
    assert!(matches!(compile(&long), Err(TemplateError::Compile { .. })));
}

#[test]
fn templates_for_training_render_without_their_marks() {
    let template =
        compile("{%- generation -%} {{ 'a' }} {%- endgeneration %} generation {% generation").unwrap_err();
    assert!(matches!(template, TemplateError::Compile { .. }));
    let template = compile("a {%- generation -%} b {%- endgeneration %} generation").unwrap();
    assert_eq!(template.render(&one_message(), None, true).unwrap(), "ab generation");
}
