// One message on the page.

import { copyButton, element, iconButton, showMarkdown } from "./render.js";

/**
 * Shows a message. `actions` has `edit(text)` for a user's message, `again()` for the last answer.
 * Returns { node, update(message, running), edit() }.
 */
export function messageView(message, actions) {
  return message.role === "user" ? userView(message, actions) : answerView(message, actions);
}

function userView(message, actions) {
  const body = element("div", { class: "body" }, message.content);
  const foot = element(
    "div",
    { class: "foot" },
    iconButton("edit", "Edit and send again", () => edit()),
    copyButton("Copy the message", () => message.content),
  );
  const node = element("article", { class: "message user", "aria-label": "You" }, body, foot);

  function edit() {
    const field = element("textarea", { "aria-label": "Edit the message", rows: Math.min(12, message.content.split("\n").length + 1) });
    field.value = message.content;
    const close = () => node.replaceChildren(body, foot);
    const send = () => {
      if (field.value.trim() === "") return;
      close();
      actions.edit(field.value);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
        document.getElementById("prompt").focus();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const buttons = element(
      "div",
      { class: "row" },
      element("button", { type: "button", class: "button", onclick: close }, "Cancel"),
      element("button", { type: "button", class: "button primary", onclick: send }, "Send"),
    );
    node.replaceChildren(element("div", { class: "editor" }, field, buttons));
    field.focus();
  }

  return { node, update() {}, edit };
}

function answerView(message, actions) {
  const thought = element("div", { class: "markdown" });
  const thinking = element("details", { class: "small", hidden: true }, element("summary", {}, "Thoughts"), thought);
  const body = element("div", { class: "body markdown" });
  const fault = element("p", { class: "fault", role: "alert", hidden: true });
  const meta = element("span", { class: "meta" });
  const again = iconButton("again", "Answer again", () => actions.again());
  const foot = element("div", { class: "foot" }, copyButton("Copy the answer", () => message.content), again, meta);
  const node = element("article", { class: "message assistant", "aria-label": "Answer" }, thinking, body, fault, foot);

  function update(running) {
    thinking.hidden = !message.thought;
    if (message.thought) showMarkdown(thought, message.thought);
    showMarkdown(body, message.content);
    body.classList.toggle("waiting", running && message.content === "");
    fault.hidden = !message.error;
    fault.textContent = message.error ?? "";
    meta.textContent = [message.model, message.note].filter(Boolean).join(" · ");
    again.hidden = running || !actions.isLast();
    foot.firstElementChild.hidden = message.content === "";
  }

  return { node, update };
}
