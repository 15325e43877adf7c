// The dashboard: what runs, who used what, and the keys.

import { ApiError, apiKey, ask, setApiKey } from "./api.js";
import { bars, lines, short } from "./charts.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 2000;
const ROOM = 90;
const PAGE = 50;

let timer = null;
let last = null;
let keys = [];
const history = { rate: [], running: [], waiting: [] };

function say(place, message) {
  place.textContent = message ?? "";
  place.hidden = !message;
}

function cell(text, className) {
  const td = document.createElement("td");
  td.textContent = text;
  if (className) td.className = className;
  return td;
}

function row(...cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

function button(text, label, action) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "link";
  element.textContent = text;
  element.setAttribute("aria-label", label);
  element.addEventListener("click", action);
  return element;
}

const time = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "never");
const days = () => Number($("days").value);

function state(key) {
  if (key.revoked_at) return "revoked";
  if (key.expires_at && key.expires_at * 1000 <= Date.now()) return "expired";
  return key.expires_at ? `until ${new Date(key.expires_at * 1000).toLocaleDateString()}` : "live";
}

function showTiles(stats) {
  const { totals, live, latency_ms: latency } = stats;
  const figures = [
    ["requests now", short(live.requests)],
    ["run", short(live.running)],
    ["wait", short(live.waiting)],
    ["requests", short(totals.requests)],
    ["errors", short(totals.errors)],
    ["tokens", short(totals.total_tokens)],
    ["p50", `${short(latency.p50)} ms`],
    ["p99", `${short(latency.p99)} ms`],
  ];
  const tiles = figures.map(([name, value]) => {
    const tile = document.createElement("div");
    tile.className = "tile";
    const figure = document.createElement("b");
    figure.textContent = value;
    const label = document.createElement("span");
    label.className = "small";
    label.textContent = name;
    tile.append(figure, label);
    return tile;
  });
  $("tiles").replaceChildren(...tiles);
}

function showCharts(stats) {
  const now = performance.now();
  const tokens = stats.totals.total_tokens;
  const rate = last && last.days === stats.days ? Math.max(0, tokens - last.tokens) / ((now - last.now) / 1000) : 0;
  last = { now, tokens, days: stats.days };
  for (const [name, value] of [["rate", rate], ["running", stats.live.running], ["waiting", stats.live.waiting]]) {
    history[name].push(value);
    if (history[name].length > ROOM) history[name].shift();
  }
  lines($("rate"), [history.rate], ROOM, ["tokens/s"]);
  lines($("queue"), [history.running, history.waiting], ROOM, ["run", "wait"]);
  bars($("by-day"), stats.by_day.map((day) => ({ name: day.name, value: day.total_tokens })));
}

function showParts(place, parts) {
  const line = (part) => row(cell(part.name || "none"), cell(short(part.requests), "number"), cell(`${short(part.total_tokens)} tokens`, "number"));
  place.replaceChildren(...parts.slice(0, 10).map(line));
}

function showKeys(stats) {
  const used = new Map(stats.by_key.map((part) => [part.name, part]));
  const line = (key) => {
    const part = used.get(key.id) ?? { requests: 0, total_tokens: 0 };
    const actions = cell("");
    if (!key.revoked_at) {
      actions.append(button("Rotate", `Another text for ${key.name}`, () => rotate(key)));
      actions.append(button("Revoke", `Revoke ${key.name}`, () => revoke(key)));
    }
    const tr = row(cell(key.name), cell(key.owner), cell(key.role), cell(state(key)), cell(time(key.last_used_at)),
      cell(short(part.requests), "number"), cell(short(part.total_tokens), "number"), actions);
    tr.classList.toggle("gone", Boolean(key.revoked_at));
    tr.dataset.key = key.id;
    return tr;
  };
  $("keys").replaceChildren(...keys.map(line));
}

async function refresh() {
  clearTimeout(timer);
  if (!apiKey()) return leave(null);
  try {
    const stats = await (await ask(`api/admin/stats?days=${days()}`)).json();
    const page = await (await ask(`api/keys?limit=${PAGE}`)).json();
    // Pages that were opened before stay; the first one is always new.
    const fresh = new Set(page.data.map((key) => key.id));
    keys = [...page.data, ...keys.filter((key) => !fresh.has(key.id))];
    $("more").hidden = !page.has_more || keys.length > page.data.length;
    const log = await (await ask("api/admin/audit?limit=10")).json();
    showTiles(stats);
    showCharts(stats);
    showKeys(stats);
    showParts($("models"), stats.by_model);
    showParts($("routes"), stats.by_endpoint);
    $("failures").replaceChildren(...stats.failures.slice(0, 10).map((failure) => row(cell(String(failure.status)), cell(failure.endpoint), cell(time(failure.at)))));
    $("audit").replaceChildren(...log.data.map((entry) => row(cell(time(entry.at)), cell(entry.actor), cell(entry.action), cell(entry.target))));
    say($("fault"), null);
    $("enter").hidden = true;
    $("main").hidden = $("leave").hidden = false;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    // 400: a server without keys.
    if ([400, 401, 403].includes(error.status)) return leave(error.message);
    say($("fault"), error.message);
  }
  timer = setTimeout(refresh, PAUSE_MS);
}

function leave(message) {
  clearTimeout(timer);
  setApiKey("");
  $("main").hidden = $("leave").hidden = true;
  $("enter").hidden = false;
  say($("refusal"), message);
  $("key").focus();
}

async function act(action) {
  try {
    await action();
    await refresh();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say($("fault"), error.message);
  }
}

function revoke(key) {
  if (!confirm(`Revoke the key "${key.name}"? It cannot be undone.`)) return;
  act(() => ask(`api/keys/${key.id}`, { method: "DELETE" }));
}

function rotate(key) {
  if (!confirm(`Another text for the key "${key.name}"? The old one is worth nothing at once.`)) return;
  act(async () => showMade(await (await ask(`api/keys/${key.id}/rotate`, { method: "POST" })).json()));
}

function showMade(made) {
  $("new-form").hidden = true;
  $("made").hidden = false;
  $("made-key").textContent = made.key;
  if (!$("new-key").open) $("new-key").showModal();
}

async function make() {
  const number = (id) => ($(id).value === "" ? undefined : $(id).valueAsNumber);
  const body = {
    name: $("new-name").value.trim(),
    owner: $("new-owner").value.trim() || undefined,
    role: $("new-role").value,
    expires_in: number("new-days") && number("new-days") * 86400,
    limits: { requests_per_minute: number("new-rpm"), tokens_per_minute: number("new-tpm") },
  };
  const headers = { "content-type": "application/json" };
  try {
    showMade(await (await ask("api/keys", { method: "POST", headers, body: JSON.stringify(body) })).json());
    await refresh();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    say($("new-fault"), error.message);
  }
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey($("key").value.trim());
  $("key").value = "";
  refresh();
});
$("leave").addEventListener("click", () => leave(null));
$("days").addEventListener("change", refresh);
$("more").addEventListener("click", () =>
  act(async () => {
    const page = await (await ask(`api/keys?limit=${PAGE}&after=${keys.at(-1).id}`)).json();
    keys.push(...page.data);
  }),
);
$("new").addEventListener("click", () => {
  $("new-form").reset();
  $("new-form").hidden = false;
  $("made").hidden = true;
  say($("new-fault"), null);
  $("new-key").showModal();
});
$("new-form").addEventListener("submit", (event) => {
  event.preventDefault();
  make();
});
$("new-cancel").addEventListener("click", () => $("new-key").close());
$("made-done").addEventListener("click", () => $("new-key").close());
$("new-key").addEventListener("close", () => ($("made-key").textContent = ""));
$("copy").addEventListener("click", () => navigator.clipboard.writeText($("made-key").textContent));
$("export").addEventListener("click", () =>
  act(async () => {
    const file = await (await ask(`api/admin/stats/export.csv?days=${days()}`)).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = "usage.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }),
);

refresh();
