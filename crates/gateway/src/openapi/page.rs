//! The text of `/openapi.json` for people.

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
     color-scheme:light dark}code{font-family:ui-monospace,monospace}summary{cursor:pointer;padding:.3rem 0}\
     table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .6rem;\
     border-bottom:1px solid #8884}.m{display:inline-block;width:3.5rem;font-weight:600}";

/// The page.
pub(super) fn html(document: &Value) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>EdgeLLM API</title><style>{STYLE}</style><h1>EdgeLLM API</h1>\
         <p>For programs: <a href=\"openapi.json\">openapi.json</a></p>"
    );
    let mut tag = "";
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let its_tag = operation["tags"][0].as_str().unwrap_or_default();
            if its_tag != tag {
                tag = its_tag;
                page += &format!("<h2>{}</h2>", escape(tag));
            }
            page += &format!(
                "<details><summary><span class=m>{}</span><code>{}</code> {}</summary>",
                escape(&method.to_uppercase()),
                escape(path),
                escape(operation["summary"].as_str().unwrap_or_default()),
            );
            let request = &operation["requestBody"]["content"]["application/json"]["schema"];
            fields("Request", request, document, &mut page);
            fields(
                "Answer",
                &operation["responses"]["200"]["content"]["application/json"]["schema"],
                document,
                &mut page,
            );
            page += "</details>";
        }
    }
    page + "</html>"
}

/// The fields of a referenced schema as a table.
fn fields(title: &str, reference: &Value, document: &Value, page: &mut String) {
    let Some(name) = reference["$ref"].as_str().and_then(|target| target.rsplit('/').next()) else { return };
    let schema = &document["components"]["schemas"][name];
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    *page += &format!("<h3>{title}</h3><table><tr><th>field<th>type<th>");
    for (name, property) in properties {
        let mark = if required.contains(&name.as_str()) { "" } else { "?" };
        *page += &format!(
            "<tr><td><code>{}{mark}</code><td><code>{}</code><td>{}",
            escape(name),
            escape(&kind(property)),
            escape(property["description"].as_str().unwrap_or_default()),
        );
    }
    *page += "</table>";
}

/// What a value is, in a word.
fn kind(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        return target.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(schemas) = schema[several].as_array() {
            return schemas.iter().map(kind).collect::<Vec<_>>().join(" | ");
        }
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("{}[]", kind(&schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | "),
        _ => "any".to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
