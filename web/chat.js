// The chat page: what is shown, what is running, and which key does what.

import { answer } from "./answer.js";
import { models } from "./api.js";
import { messageView } from "./messages.js";
import { element } from "./render.js";
import { settingsPanel } from "./settings.js";
import { sidebar } from "./sidebar.js";
import { keepSettings, load, newConversation, save } from "./store.js";

const $ = (id) => document.getElementById(id);
const SUGGESTIONS = ["Explain why the sky is blue", "Write a short story about a lighthouse", "Sort a list of words in Python"];
const TITLE_LENGTH = 60;
const NEAR_END_PX = 60;

let conversation = newConversation();
let views = [];
let running = null;

const settings = settingsPanel({ current: () => conversation, changed: keep, keyChanged: listModels });
const list = sidebar({ open, removed, notice });

// --- Conversations

function open(id) {
  stop();
  conversation = (id && load(id)) || newConversation();
  history.replaceState(null, "", id ? `#${id}` : location.pathname);
  show();
  list.update(conversation.id);
  list.close();
  $("prompt").focus();
}

function removed(id) {
  if (id === conversation.id) open(null);
}

/** Keeps the conversation once it has a message. */
function keep() {
  if (conversation.messages.length === 0) return;
  try {
    save(conversation);
  } catch {
    notice("The browser's storage is full: export and delete conversations.");
  }
  list.update(conversation.id);
}

// --- What is shown

function show() {
  views = [];
  $("messages").replaceChildren();
  conversation.messages.forEach(add);
  $("title").value = conversation.title;
  $("title").hidden = conversation.messages.length === 0;
  $("welcome").hidden = conversation.messages.length > 0;
  document.title = conversation.title ? `${conversation.title} · EdgeLLM` : "EdgeLLM";
  chooseModel();
  scrollDown();
}

function add(message) {
  const view = messageView(message, {
    edit: (text) => edit(message, text),
    again,
    isLast: () => conversation.messages.at(-1) === message,
  });
  views.push(view);
  view.update(false);
  $("messages").append(view.node);
  return view;
}

const atEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < NEAR_END_PX;

function scrollDown() {
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

/** A line above the message box, with an action where there is one. */
function notice(text, label, action) {
  const parts = [text];
  if (label) parts.push(element("button", { type: "button", onclick: () => (notice(""), action()) }, label));
  $("notice").replaceChildren(...(text ? parts : []));
}

// --- Asking

function send(text) {
  if (running || text.trim() === "") return;
  if (!conversation.model) return listModels();
  notice("");
  if (conversation.messages.length === 0) {
    conversation.title = text.trim().split("\n")[0].slice(0, TITLE_LENGTH);
    history.replaceState(null, "", `#${conversation.id}`);
  }
  conversation.messages.push({ role: "user", content: text });
  show();
  ask();
}

async function ask() {
  const controller = new AbortController();
  const asked = conversation;
  const message = { role: "assistant", content: "", model: asked.model };
  running = controller;
  busy(true);
  asked.changed = Date.now();
  keep();
  const request = { ...asked, messages: [...asked.messages] };
  asked.messages.push(message);
  const view = add(message);
  view.update(true);
  scrollDown();
  const end = await answer(request, message, controller.signal, () => {
    const follow = atEnd();
    view.update(true);
    if (follow) scrollDown();
  });
  if (running === controller) {
    running = null;
    busy(false);
  }
  if (end === "stopped" && message.content === "") {
    asked.messages = asked.messages.filter((other) => other !== message);
    view.node.remove();
  }
  if (asked !== conversation) return saveQuietly(asked);
  const follow = atEnd();
  view.update(false);
  if (follow) scrollDown();
  keep();
}

// A conversation that was left while its answer came; it may have been deleted since.
function saveQuietly(left) {
  if (load(left.id)) save(left);
  list.update();
}

function stop() {
  running?.abort();
  running = null;
  busy(false);
}

function busy(is) {
  $("send").hidden = is;
  $("stop").hidden = !is;
  $("messages").setAttribute("aria-busy", String(is));
}

function again() {
  if (running || conversation.messages.length === 0) return;
  if (conversation.messages.at(-1).role === "assistant") conversation.messages.pop();
  show();
  ask();
}

function edit(message, text) {
  stop();
  conversation.messages.length = conversation.messages.indexOf(message);
  const { title } = conversation;
  send(text);
  if (conversation.messages.length > 2) conversation.title = title;
}

function editLast() {
  const last = conversation.messages.findLastIndex((message) => message.role === "user");
  views[last]?.edit();
}

// --- Models

async function listModels() {
  try {
    const names = await models();
    $("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    chooseModel();
    if (names.length === 0) notice("The server has no model.", "Look again", listModels);
  } catch (error) {
    if (error.status === 401) notice("The server asks for a key.", "Enter it", () => settings.show("key"));
    else notice(error.message, "Try again", listModels);
  }
}

function chooseModel() {
  const names = [...$("model").options].map((option) => option.value);
  if (names.length === 0) return;
  if (!names.includes(conversation.model)) conversation.model = names[0];
  $("model").value = conversation.model;
}

// --- Events

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("prompt").value;
  if (running || text.trim() === "") return;
  $("prompt").value = "";
  send(text);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && $("prompt").value === "") {
    event.preventDefault();
    editLast();
  }
});
$("stop").addEventListener("click", () => {
  stop();
  $("prompt").focus();
});
$("new").addEventListener("click", () => open(null));
$("show-keys").addEventListener("click", () => $("keys").showModal());
$("title").addEventListener("change", () => {
  conversation.title = $("title").value.trim();
  keep();
});
$("model").addEventListener("change", () => {
  conversation.model = $("model").value;
  keepSettings(conversation);
  keep();
});

const ALT_KEYS = {
  KeyN: () => open(null),
  KeyR: again,
  KeyC: () => [...document.querySelectorAll(".assistant .foot button")].findLast((b) => /^Copy/.test(b.ariaLabel))?.click(),
  KeyM: () => $("model").focus(),
  Comma: () => settings.show(),
};
addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input, textarea, select");
  if (event.altKey && !event.ctrlKey && !event.metaKey && ALT_KEYS[event.code]) {
    event.preventDefault();
    ALT_KEYS[event.code]();
  } else if (event.key === "Escape" && running) {
    stop();
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    $("prompt").focus();
  } else if (event.key === "?" && !typing) {
    $("keys").showModal();
  }
});
addEventListener("pagehide", keep);

for (const text of SUGGESTIONS) {
  $("suggestions").append(element("button", { type: "button", class: "button", onclick: () => send(text) }, text));
}
open(location.hash.slice(1) || null);
await listModels();
