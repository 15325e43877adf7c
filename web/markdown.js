// Markdown as models write it, to a tree of { tag, attrs, children } and strings. No HTML passes: it stays text. Links lead
// to http, https and mailto only; a picture becomes a link, so nothing is loaded from elsewhere. Work is linear in the
// text's length: what has no end is looked for once, and nesting is bounded.

const MAX_DEPTH = 8;
const LINK_TEXT_MAX = 1000;

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}>[ \t]?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const TABLE_LINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const TASK = /^\[([ xX])\] /;

const el = (tag, children = [], attrs = {}) => ({ tag, attrs, children });

/** The blocks of a text, each with its `source` and a function `tree` that parses it: unchanged blocks need no second time. */
export function blocks(text) {
  return [...scan(text.replace(/\r\n?/g, "\n").split("\n"), 0)];
}

/** The whole text as a list of trees. */
export const parse = (text) => blocks(text).map((block) => block.tree());

const startsBlock = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));
const isBlank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;

function* scan(lines, depth) {
  for (let i = 0; i < lines.length; ) {
    if (isBlank(lines[i])) {
      i++;
      continue;
    }
    const { end, tree } = blockAt(lines, i, depth);
    yield { source: lines.slice(i, end).join("\n"), tree };
    i = end;
  }
}

function blockAt(lines, i, depth) {
  if (depth < MAX_DEPTH) {
    if (FENCE.test(lines[i])) return fence(lines, i);
    if (HEADING.test(lines[i])) return { end: i + 1, tree: () => heading(lines[i]) };
    if (RULE.test(lines[i])) return { end: i + 1, tree: () => el("hr") };
    if (QUOTE.test(lines[i])) return quote(lines, i, depth);
    if (ITEM.test(lines[i])) return list(lines, i, depth);
    if (lines[i].includes("|") && i + 1 < lines.length && isTable(lines[i], lines[i + 1])) return table(lines, i);
  }
  let end = i + 1;
  while (end < lines.length && !isBlank(lines[end]) && !(depth < MAX_DEPTH && startsBlock(lines[end]))) end++;
  const text = lines.slice(i, end).map((line) => line.trimStart());
  return { end, tree: () => el("p", inline(text.join("\n"))) };
}

function fence(lines, i) {
  const [, indent, marks, info] = FENCE.exec(lines[i]);
  const closes = (line) => {
    const text = line.trim();
    return text.length >= marks.length && indentOf(line) < 4 && text === marks[0].repeat(text.length);
  };
  let end = i + 1;
  while (end < lines.length && !closes(lines[end])) end++;
  const code = lines.slice(i + 1, end).map((line) => line.slice(Math.min(indent.length, indentOf(line))));
  const language = info.trim().split(/\s/)[0].slice(0, 40);
  return { end: Math.min(end + 1, lines.length), tree: () => ({ tag: "pre", attrs: { language }, children: [code.join("\n")] }) };
}

function heading(line) {
  const [start, marks] = HEADING.exec(line);
  let text = line.slice(start.length).trimEnd();
  const bare = text.replace(/#+$/, "");
  if (bare === "" || /[ \t]$/.test(bare)) text = bare.trimEnd();
  return el(`h${marks.length}`, inline(text));
}

function quote(lines, i, depth) {
  let end = i;
  const inner = [];
  while (end < lines.length && !isBlank(lines[end]) && (QUOTE.test(lines[end]) || !startsBlock(lines[end]))) {
    inner.push(lines[end++].replace(QUOTE, ""));
  }
  return { end, tree: () => el("blockquote", trees(inner, depth + 1)) };
}

const trees = (lines, depth) => [...scan(lines, depth)].map((block) => block.tree());

function list(lines, i, depth) {
  const first = ITEM.exec(lines[i]);
  const ordered = /\d/.test(first[2]);
  const sameList = (match) => match && /\d/.test(match[2]) === ordered && match[1].length < first[1].length + 2;
  const items = [];
  let loose = false;
  let blank = false;
  let end = i;
  for (let at = i; at < lines.length; at++) {
    const line = lines[at];
    const match = RULE.test(line) ? null : ITEM.exec(line);
    // Models indent what belongs to an item by two, three or four spaces, whatever its mark.
    const inside = items.length > 0 && indentOf(line) >= first[1].length + 2;
    if (isBlank(line)) {
      blank = true;
      items.at(-1).push("");
      continue;
    } else if (sameList(match)) {
      loose ||= blank && items.length > 0;
      items.push([line.slice(match[0].length)]);
    } else if (inside) {
      const content = ITEM.exec(lines[i])[0].length;
      items.at(-1).push(line.slice(Math.min(indentOf(line), content)));
    } else if (!blank && !startsBlock(line)) {
      items.at(-1).push(line.trimStart());
    } else {
      break;
    }
    blank = false;
    end = at + 1;
  }
  const tree = () => {
    const children = items.map((item) => listItem(item, loose, depth));
    const start = ordered ? Number.parseInt(first[2], 10) : 1;
    return el(ordered ? "ol" : "ul", children, start === 1 ? {} : { start: String(start) });
  };
  return { end, tree };
}

function listItem(lines, loose, depth) {
  const task = TASK.exec(lines[0]);
  if (task) lines = [lines[0].slice(task[0].length), ...lines.slice(1)];
  let children = trees(lines, depth + 1);
  if (!loose) children = children.flatMap((child) => (child.tag === "p" ? child.children : [child]));
  if (!task) return el("li", children);
  const box = el("input", [], { type: "checkbox", disabled: "", ...(task[1] === " " ? {} : { checked: "" }) });
  return el("li", [box, ...children], { class: "task" });
}

function cells(line) {
  const parts = [""];
  for (let i = 0; i < line.length; i++) {
    if (line[i] === "\\" && line[i + 1] === "|") parts[parts.length - 1] += line[++i];
    else if (line[i] === "|") parts.push("");
    else parts[parts.length - 1] += line[i];
  }
  if (isBlank(parts[0])) parts.shift();
  if (parts.length > 0 && isBlank(parts.at(-1))) parts.pop();
  return parts.map((part) => part.trim());
}

const isTable = (head, line) => TABLE_LINE.test(line) && cells(head).length === cells(line).length;

function table(lines, i) {
  let end = i + 2;
  while (end < lines.length && lines[end].includes("|") && !isBlank(lines[end])) end++;
  const tree = () => {
    const sides = cells(lines[i + 1]).map((cell) => {
      if (!cell.endsWith(":")) return {};
      return { class: cell.startsWith(":") ? "center" : "right" };
    });
    const row = (line, tag) => el("tr", cells(line).slice(0, sides.length).map((cell, at) => el(tag, inline(cell), sides[at])));
    const body = lines.slice(i + 2, end).map((line) => row(line, "td"));
    return el("div", [el("table", [el("thead", [row(lines[i], "th")]), el("tbody", body)])], { class: "table" });
  };
  return { end, tree };
}

const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const ADDRESS = /https?:\/\/[^\s<>"`]{1,2000}/y;
const TARGET = /[ \t]*<?([^\s<>()]{0,2000}(?:\([^\s<>()]{0,500}\)[^\s<>()]{0,500}){0,8})>?(?:[ \t]+"[^"\n]{0,500}")?[ \t]*\)/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const isWord = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);
const isSpace = (character) => character === undefined || /\s/.test(character);

/** Emphasis, code, links and line breaks within a block. */
export function inline(text, depth = 0) {
  const children = [];
  const missing = new Set();
  let plain = "";
  const flush = () => {
    if (plain !== "") children.push(plain);
    plain = "";
  };
  for (let i = 0; i < text.length; ) {
    const found = text[i] === "\n" ? lineBreak(text, i) : spanAt(text, i, depth, missing);
    if (!found) {
      plain += text[i++];
      continue;
    }
    if (found.literal !== undefined) {
      plain += found.literal;
    } else {
      if (found.node.tag === "br") plain = plain.replace(/[ \t]{1,20}$/, "");
      flush();
      children.push(found.node);
    }
    i = found.end;
  }
  flush();
  return children;
}

const lineBreak = (text, i) => ({ end: i + 1, node: el("br") });

function spanAt(text, i, depth, missing) {
  switch (text[i]) {
    case "\\":
      if (text[i + 1] === "\n") return { end: i + 2, node: el("br") };
      if (i + 1 < text.length && PUNCTUATION.test(text[i + 1])) return { end: i + 2, literal: text[i + 1] };
      return null;
    case "`":
      return code(text, i, missing);
    case "h":
      return isWord(text[i - 1]) ? null : address(text, i);
    case "<":
      return bracketed(text, i);
    case "!":
      return text[i + 1] === "[" ? link(text, i + 1, depth, missing) : null;
    case "[":
      return link(text, i, depth, missing);
    case "*":
    case "_":
    case "~":
      return depth < MAX_DEPTH ? emphasis(text, i, depth, missing) : null;
    default:
      return null;
  }
}

/** Where `mark` stands next, or -1; what was once not found is not looked for again. */
function find(text, mark, from, missing) {
  if (missing.has(mark)) return -1;
  const at = text.indexOf(mark, from);
  if (at < 0) missing.add(mark);
  return at;
}

function code(text, i, missing) {
  let size = 1;
  while (text[i + size] === "`") size++;
  const mark = "`".repeat(size);
  let end = find(text, mark, i + size, missing);
  while (end >= 0 && (text[end + size] === "`" || text[end - 1] === "`")) {
    while (text[end] === "`") end++;
    end = find(text, mark, end, missing);
  }
  if (end < 0) return { end: i + size, literal: mark };
  let inner = text.slice(i + size, end).replaceAll("\n", " ");
  if (/^ .* $/.test(inner) && !isBlank(inner)) inner = inner.slice(1, -1);
  return { end: end + size, node: el("code", [inner]) };
}

function anchor(url, children) {
  return el("a", children, { href: url, target: "_blank", rel: "noopener noreferrer nofollow" });
}

function address(text, i) {
  ADDRESS.lastIndex = i;
  const match = ADDRESS.exec(text);
  if (!match) return null;
  let url = match[0].replace(/[.,;:!?'*_~]{1,20}$/, "");
  if (url.endsWith(")") && !url.includes("(")) url = url.slice(0, -1);
  return { end: i + url.length, node: anchor(url, [url]) };
}

function bracketed(text, i) {
  const found = address(text, i + 1);
  return found && text[found.end] === ">" ? { ...found, end: found.end + 1 } : null;
}

function link(text, i, depth, missing) {
  const close = find(text, "](", i, missing);
  if (close < 0 || close - i > LINK_TEXT_MAX || depth >= MAX_DEPTH) return null;
  const label = text.slice(i + 1, close);
  let open = 0;
  for (const character of label) {
    open += character === "[" ? 1 : character === "]" ? -1 : 0;
    if (open < 0) return null;
  }
  TARGET.lastIndex = close + 2;
  const target = TARGET.exec(text);
  if (open !== 0 || !target) return null;
  const end = TARGET.lastIndex;
  const children = label === "" ? [target[1]] : inline(label, depth + 1);
  if (/^(https?:\/\/|mailto:)/i.test(target[1])) return { end, node: anchor(target[1], children) };
  return { end, node: el("span", children) };
}

function emphasis(text, i, depth, missing) {
  const [mark, tag] = MARKS.find(([start]) => text.startsWith(start, i)) ?? [];
  if (!mark || isSpace(text[i + mark.length])) return null;
  if (mark[0] === "_" && isWord(text[i - 1])) return null;
  // "**" alone, as in 2 ** 3, is text; so is a run that is longer than its closing one.
  let end = find(text, mark, i + mark.length + 1, missing);
  while (end >= 0 && !closes(text, mark, end)) {
    const step = mark.length === 1 && text[end + 1] === mark ? 2 : 1;
    end = find(text, mark, end + step, missing);
  }
  if (end < 0) return { end: i + mark.length, literal: mark };
  // In ***both*** the inner mark closes first.
  if (mark.length === 2 && text[end + 2] === mark[0] && text[i + 2] === mark[0]) end++;
  return { end: end + mark.length, node: el(tag, inline(text.slice(i + mark.length, end), depth + 1)) };
}

function closes(text, mark, at) {
  if (isSpace(text[at - 1])) return false;
  if (mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark)) return false;
  return mark[0] !== "_" || !isWord(text[at + mark.length]);
}
