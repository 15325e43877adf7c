// The list of conversations: open, delete with a way back, export, import.

import { element, iconButton } from "./render.js";
import { download } from "./settings.js";
import { conversations, fromFile, remove, save, toFile } from "./store.js";

const $ = (id) => document.getElementById(id);

/** Wires the list. `open(id)` shows a conversation, `removed(id)` is told of one that is gone, `notice(text, label, action)`. */
export function sidebar({ open, removed, notice }) {
  let current = null;

  function update(id = current) {
    current = id;
    const items = conversations().map((conversation) => {
      const title = conversation.title || "Untitled";
      const button = element("button", { type: "button", class: "open", onclick: () => open(conversation.id) }, title);
      if (conversation.id === current) button.setAttribute("aria-current", "true");
      return element("li", {}, button, iconButton("bin", `Delete: ${title}`, () => drop(conversation)));
    });
    $("conversations").replaceChildren(element("ul", {}, ...items));
  }

  function drop(conversation) {
    remove(conversation.id);
    removed(conversation.id);
    update();
    notice("Deleted.", "Undo", () => {
      save(conversation);
      open(conversation.id);
    });
  }

  function toggle(isOpen) {
    $("sidebar").classList.toggle("open", isOpen);
    $("backdrop").hidden = !isOpen;
    $("open-sidebar").setAttribute("aria-expanded", String(isOpen));
    (isOpen ? $("close-sidebar") : $("prompt")).focus();
  }

  async function take(file) {
    try {
      const found = fromFile(await file.text());
      found.forEach(save);
      notice(`Imported: ${found.length}.`);
    } catch (error) {
      notice(`Not imported: ${error.message}`);
    }
    update();
  }

  $("open-sidebar").addEventListener("click", () => toggle(true));
  $("close-sidebar").addEventListener("click", () => toggle(false));
  $("backdrop").addEventListener("click", () => toggle(false));
  $("sidebar").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && $("sidebar").classList.contains("open")) toggle(false);
  });
  $("export-all").addEventListener("click", () => download("conversations.json", "application/json", toFile(conversations())));
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", () => {
    const [file] = $("import-file").files;
    if (file) take(file);
    $("import-file").value = "";
  });
  // Another tab of the page changed something.
  addEventListener("storage", () => update());
  return { update, close: () => $("sidebar").classList.contains("open") && toggle(false) };
}
