// Conversations in the browser's storage, one entry each, and as files.

const PREFIX = "edgellm.chat.";
const CURRENT = "edgellm.settings";
const FORMAT = "edgellm.conversations";
const ROLES = ["user", "assistant"];

/** The settings that are numbers, as the API calls them. Absent: the server decides. */
export const NUMBERS = ["temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty"];

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

/** What a new conversation begins with: { model, system, options }. */
export const lastSettings = () => checkedSettings(read(CURRENT) ?? {});
export function keepSettings({ model, system, options }) {
  localStorage.setItem(CURRENT, JSON.stringify({ model, system, options }));
}

export function newConversation() {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, title: "", changed: Date.now(), messages: [], ...lastSettings() };
}

/** All conversations, the latest first. */
export function conversations() {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  const found = keys.map((key) => checked(read(key))).filter(Boolean);
  return found.sort((a, b) => b.changed - a.changed);
}

export const load = (id) => checked(read(PREFIX + id));
export const remove = (id) => localStorage.removeItem(PREFIX + id);

/** Keeps a conversation; throws where the browser's storage is full. */
export function save(conversation) {
  localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
}

/** Conversations as the text of a file that `fromFile` reads. */
export const toFile = (list) => JSON.stringify({ format: FORMAT, version: 1, conversations: list }, null, 2);

/** The conversations of such a text; throws on any other. */
export function fromFile(text) {
  const file = JSON.parse(text);
  if (file?.format !== FORMAT || !Array.isArray(file.conversations)) throw new Error("This is no export of this page.");
  return file.conversations.map(checked).filter(Boolean);
}

/** A conversation as Markdown. */
export function toMarkdown(conversation) {
  const parts = [`# ${conversation.title || "Conversation"}`];
  if (conversation.system) parts.push(`**System**\n\n${conversation.system}`);
  for (const { role, content, model } of conversation.messages) {
    parts.push(`**${role === "user" ? "You" : (model ?? "Model")}**\n\n${content}`);
  }
  return `${parts.join("\n\n")}\n`;
}

// What is stored may come from a file or an older page: only what has the right shape goes on.
function checked(value) {
  if (typeof value?.id !== "string" || !Array.isArray(value.messages)) return null;
  const messages = value.messages.filter((m) => ROLES.includes(m?.role) && typeof m.content === "string").map(checkedMessage);
  const changed = Number.isFinite(value.changed) ? value.changed : 0;
  return { id: value.id, title: text(value.title), changed, messages, ...checkedSettings(value) };
}

const text = (value) => (typeof value === "string" ? value : "");

function checkedMessage({ role, content, model, note, error, thought }) {
  const message = { role, content };
  for (const [name, value] of Object.entries({ model, note, error, thought })) {
    if (typeof value === "string" && value !== "") message[name] = value;
  }
  return message;
}

function checkedSettings({ model, system, options }) {
  const kept = {};
  for (const name of NUMBERS) if (Number.isFinite(options?.[name])) kept[name] = options[name];
  if (Array.isArray(options?.stop)) kept.stop = options.stop.filter((stop) => typeof stop === "string" && stop !== "");
  return { model: text(model), system: text(system), options: kept };
}
