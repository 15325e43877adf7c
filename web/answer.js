// One answer: asks the server, fills the message as pieces arrive, measures.

import { chat } from "./api.js";

/** What is sent for a conversation. */
export function requestBody({ model, system, options, messages }) {
  const sent = messages.filter((message) => message.content !== "").map(({ role, content }) => ({ role, content }));
  if (system.trim() !== "") sent.unshift({ role: "system", content: system });
  return { model, messages: sent, ...options };
}

/** Streams the answer into `message`; `update()` is called at most once a frame. Never throws: faults stand in the message. */
export async function answer(conversation, message, signal, update) {
  const clock = { start: performance.now(), first: null, last: null, pieces: 0, tokens: null };
  let frame = 0;
  const soon = () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      message.note = note(clock);
      update();
    });
  };
  let finish = null;
  try {
    for await (const piece of chat(requestBody(conversation), signal)) {
      if (piece.text || piece.thought) {
        clock.last = performance.now();
        clock.first ??= clock.last;
        clock.pieces++;
      }
      message.content += piece.text;
      if (piece.thought) message.thought = (message.thought ?? "") + piece.thought;
      finish = piece.finish ?? finish;
      clock.tokens = piece.usage?.completion_tokens ?? clock.tokens;
      soon();
    }
  } catch (error) {
    if (error.name === "AbortError") finish = "stopped";
    else message.error = fault(error);
  }
  cancelAnimationFrame(frame);
  message.note = note(clock, finish);
  return message.error ? "error" : finish;
}

function fault(error) {
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  return `${error.message}${wait}`;
}

/** Tokens, speed and how it ended, in words. */
function note(clock, finish) {
  const parts = [];
  const tokens = clock.tokens ?? clock.pieces;
  if (tokens > 0) parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  const seconds = (clock.last - clock.first) / 1000;
  if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  if (clock.first !== null) parts.push(`first after ${((clock.first - clock.start) / 1000).toFixed(2)} s`);
  if (finish === "stopped") parts.push("stopped");
  if (finish === "length") parts.push("cut at the limit of tokens");
  return parts.join(" · ");
}
