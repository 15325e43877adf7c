// The page's own modules without a browser: Markdown against what CommonMark and GFM say, hostile text, event streams.
import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../../../web/api.js";
import { highlight } from "../../../web/highlight.js";
import { parse } from "../../../web/markdown.js";

const VOID = new Set(["br", "hr", "input"]);
const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

/** A tree as HTML, without the attributes that every link has. */
function html(tree) {
  if (typeof tree === "string") return escape(tree);
  const { tag, attrs, children } = tree;
  const shown = Object.entries(attrs).filter(([name]) => !["target", "rel"].includes(name));
  const start = `<${tag}${shown.map(([name, value]) => ` ${name}="${value}"`).join("")}>`;
  return VOID.has(tag) ? start : `${start}${children.map(html).join("")}</${tag}>`;
}
const render = (text) => parse(text).map(html).join("");

const CASES = [
  ["Hello *world*, **strong** and ~~gone~~.", "<p>Hello <em>world</em>, <strong>strong</strong> and <del>gone</del>.</p>"],
  ["***both***", "<p><strong><em>both</em></strong></p>"],
  ["**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"],
  ["*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"],
  ["snake_case_name and 2 * 3 * 4 and 2**3", "<p>snake_case_name and 2 * 3 * 4 and 2**3</p>"],
  ["`a < b` and ``c`d``", "<p><code>a &lt; b</code> and <code>c`d</code></p>"],
  ["a ` b", "<p>a ` b</p>"],
  ["\\*not\\* emphasis", "<p>*not* emphasis</p>"],
  ["# One\n## Two ##\n####### seven", "<h1>One</h1><h2>Two</h2><p>####### seven</p>"],
  ["C# and # no", "<p>C# and # no</p>"],
  ["one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"],
  ["- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"],
  ["1. a\n   - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"],
  ["1. a\n\n   more\n\n2. b", "<ol><li><p>a</p><p>more</p></li><li><p>b</p></li></ol>"],
  ["3) a\n4) b", '<ol start="3"><li>a</li><li>b</li></ol>'],
  ["1. a\n```js\nb\n```\n2. c", '<ol><li>a</li></ol><pre language="js">b</pre><ol start="2"><li>c</li></ol>'],
  ["- a\n  ```\n  b\n  ```", '<ul><li>a<pre language="">b</pre></li></ul>'],
  ["- [ ] todo\n- [x] done", '<ul><li class="task"><input type="checkbox" disabled="">todo</li><li class="task"><input type="checkbox" disabled="" checked="">done</li></ul>'],
  ["```py\nx < 1\n```\nafter", '<pre language="py">x &lt; 1</pre><p>after</p>'],
  ["```\nstill open", '<pre language="">still open</pre>'],
  ["~~~\n```\n~~~", '<pre language="">```</pre>'],
  ["> a\n> b\nlazy\n\nc", "<blockquote><p>a<br>b<br>lazy</p></blockquote><p>c</p>"],
  ["> - a", "<blockquote><ul><li>a</li></ul></blockquote>"],
  ["a\n\n---\n\n***", "<p>a</p><hr><hr>"],
  ["| a | b |\n|---|:-:|\n| 1 \\| 2 | *c* |", '<div class="table"><table><thead><tr><th>a</th><th class="center">b</th></tr></thead><tbody><tr><td>1 | 2</td><td class="center"><em>c</em></td></tr></tbody></table></div>'],
  ["a | b\nc", "<p>a | b<br>c</p>"],
  ["[text](https://a.b/c_(d) \"title\")", '<p><a href="https://a.b/c_(d)">text</a></p>'],
  ["see https://a.b/c?d=e_f_g. Or <https://x.y>", '<p>see <a href="https://a.b/c?d=e_f_g">https://a.b/c?d=e_f_g</a>. Or <a href="https://x.y">https://x.y</a></p>'],
  ["[a](javascript:alert(1)) [b](data:text/html,x) [c](//d)", "<p><span>a</span> <span>b</span> <span>c</span></p>"],
  ["![picture](https://a.b/c.png)", '<p><a href="https://a.b/c.png">picture</a></p>'],
  ["<script>alert(1)</script> <img src=x onerror=alert(1)>", "<p>&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror=alert(1)&gt;</p>"],
];

for (const [source, expected] of CASES) {
  test(`markdown: ${JSON.stringify(source)}`, () => assert.equal(render(source), expected));
}

test("markdown loses no text of plain words, whatever stands between them", () => {
  const marks = ["*", "**", "_", "`", "~~", "[", "](", ")", "\n", "\n\n", "- ", "1. ", "> ", "#", "|", "```", "!", "<", "\\", " "];
  let seed = 1;
  const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 2000; round++) {
    let source = "";
    for (let i = 0; i < 12; i++) source += marks[random(marks.length)] + (random(2) ? "w" : "");
    const words = (text) => text.split("w").length;
    const shown = render(source).replace(/ href="[^"]*"| language="[^"]*"/g, "");
    // The target of a link and the language of a block of code are not shown as text.
    if (!source.includes("](") && !source.includes("```")) assert.ok(words(shown) >= words(source), JSON.stringify(source));
  }
});

test("markdown of hostile text takes time in proportion to its length", () => {
  const hostile = ["[", "*", "**a ", "_a", "`", "``a", "![", "](", "> ", "- ", "|", "<https://", "#", "\\", "*a **b ", "[a](", "  ", "~~", "1. ", "a*"];
  for (const piece of hostile) {
    const start = performance.now();
    render(piece.repeat(50_000 / piece.length));
    render(`${`${piece}\n`.repeat(5_000)}`);
    // A quadratic step would take minutes.
    assert.ok(performance.now() - start < 5_000, JSON.stringify(piece));
  }
});

test("highlighted code is the same code", () => {
  const code = 'def f(x):  # "note"\n    return f"{x}" + \'a\\\'b\' * 0x1F  /* c */ `d`\n';
  for (const language of ["python", "js", "sql", "html", "rust", "text", ""]) {
    assert.equal(highlight(code, language).map((part) => part.text ?? part).join(""), code);
  }
  assert.deepEqual(highlight("fn f<'a>() {}", "rust").filter((part) => part.kind).map((part) => part.text), ["fn"]);
});

test("events are the same however the bytes are cut", async () => {
  const bytes = new TextEncoder().encode(': hi\n\ndata: {"a":"ü"}\r\n\r\nevent: x\ndata:1\ndata: 2\n\ndata: [DONE]\n\ndata: 3\n\n');
  for (let size = 1; size <= bytes.length; size++) {
    const stream = new ReadableStream({
      start(controller) {
        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of events(stream)) found.push(event);
    assert.deepEqual(found, ['{"a":"ü"}', "1\n2"]);
  }
});
