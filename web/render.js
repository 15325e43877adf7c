// Trees of markdown.js as elements of the page. Text goes in as text nodes, never as HTML.

import { highlight } from "./highlight.js";
import { blocks } from "./markdown.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick`) and children. */
export function element(tag, attrs = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** A picture of the page's own set. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button that shows only a picture. */
export function iconButton(name, label, onclick) {
  return element("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick }, icon(name));
}

/** A button that copies what `text` returns and says so for a moment. */
export function copyButton(label, text) {
  const button = iconButton("copy", label, async () => {
    const done = await copy(text());
    button.replaceChildren(icon(done ? "done" : "copy"));
    button.setAttribute("aria-label", done ? "Copied" : "The browser does not allow to copy");
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", label);
    }, 1500);
  });
  return button;
}

// The clipboard is there on https and localhost only; elsewhere the older way still works.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = element("textarea", { "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

function build(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  if (tree.tag === "pre") return codeBlock(tree.children[0], tree.attrs.language);
  return element(tree.tag, tree.attrs, ...tree.children.map(build));
}

function codeBlock(code, language) {
  const parts = highlight(code, language).map((part) =>
    typeof part === "string" ? part : element("span", { class: `c-${part.kind}` }, part.text),
  );
  const head = element("div", { class: "code-head" }, element("span", {}, language), copyButton("Copy the code", () => code));
  // A scrolled box needs a place in the order of the keys.
  return element("div", { class: "code" }, head, element("pre", { tabindex: "0" }, element("code", {}, ...parts)));
}

const shown = new WeakMap();

/** Shows Markdown in `container`; blocks that did not change since the last call keep their elements. */
export function showMarkdown(container, text) {
  const before = shown.get(container) ?? [];
  const now = blocks(text);
  now.forEach((block, i) => {
    if (before[i] === block.source) return;
    const node = build(block.tree());
    if (container.children[i]) container.children[i].replaceWith(node);
    else container.append(node);
  });
  while (container.children.length > now.length) container.lastElementChild.remove();
  shown.set(container, now.map((block) => block.source));
}
