// The panel of settings: system prompt, sampling, theme, key, export.

import { apiKey, setApiKey } from "./api.js";
import { NUMBERS, keepSettings, toFile, toMarkdown } from "./store.js";
import { setTheme, theme } from "./theme.js";

const $ = (id) => document.getElementById(id);

/** Wires the panel. `current()` is the conversation, `changed()` is called after a change of it, `keyChanged()` after a key. */
export function settingsPanel({ current, changed, keyChanged }) {
  const panel = $("settings");

  function show(focus) {
    const { system, options } = current();
    $("system").value = system;
    for (const name of NUMBERS) $(name).value = options[name] ?? "";
    $("stop-texts").value = (options.stop ?? []).join("\n");
    $("theme").value = theme();
    $("key").value = apiKey();
    panel.showModal();
    if (focus) $(focus).focus();
  }

  function take() {
    const options = {};
    for (const name of NUMBERS) {
      const field = $(name);
      if (field.value !== "" && field.validity.valid) options[name] = field.valueAsNumber;
    }
    const stop = $("stop-texts").value.split("\n").filter((line) => line !== "");
    if (stop.length > 0) options.stop = stop.slice(0, 4);
    Object.assign(current(), { system: $("system").value, options });
    keepSettings(current());
    changed();
  }

  for (const id of [...NUMBERS, "system", "stop-texts"]) $(id).addEventListener("input", take);
  // Enter in a field would close the dialog by its first button.
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("input")) event.preventDefault();
  });
  panel.addEventListener("click", (event) => {
    if (event.target === panel) panel.close();
  });
  $("theme").addEventListener("change", () => setTheme($("theme").value));
  $("key").addEventListener("change", () => {
    setApiKey($("key").value.trim());
    keyChanged();
  });
  $("open-settings").addEventListener("click", () => show());
  $("export-markdown").addEventListener("click", () => download(`${fileName(current())}.md`, "text/markdown", toMarkdown(current())));
  $("export-json").addEventListener("click", () => download(`${fileName(current())}.json`, "application/json", toFile([current()])));
  return { show };
}

const fileName = ({ title }) => title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "conversation";

/** Offers a text as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
