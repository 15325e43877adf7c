// The server's API: the list of models, and a chat as a stream of events.

const EVENT_MAX = 8 << 20;

/** What the server refused, or why it could not be reached; `status` is 0 for the latter. */
export class ApiError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const KEY = "edgellm.key";
export const apiKey = () => sessionStorage.getItem(KEY) ?? "";
export const setApiKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** What a route answers, asked with the key of this tab; a refusal is an {@link ApiError}. */
export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (apiKey()) headers.authorization = `Bearer ${apiKey()}`;
  let response;
  try {
    response = await fetch(new URL(`../${path}`, document.baseURI), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, response.status, response.headers.get("retry-after"));
}

/** The names of the models. */
export async function models() {
  const { data } = await (await ask("v1/models")).json();
  return data.map((model) => model.id);
}

/** The data of each server-sent event of a stream of bytes, until `[DONE]`. */
export async function* events(stream) {
  let rest = "";
  let data = [];
  for await (const text of pieces(stream)) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    if (rest.length > EVENT_MAX) throw new ApiError("The server sent an event that is too long.");
    for (const line of lines.map((end) => end.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) {
        data.push(line.slice(5).replace(/^ /, ""));
      } else if (line === "" && data.length > 0) {
        const event = data.join("\n");
        data = [];
        if (event === "[DONE]") return;
        yield event;
      }
    }
  }
}

// Streams are not iterable in every browser; a reader is everywhere.
async function* pieces(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The answer to a chat, piece by piece: { text, thought, finish, usage }, each where it is known. */
export async function* chat(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const event of events(response.body)) {
    const chunk = JSON.parse(event);
    if (chunk.error) throw new ApiError(chunk.error.message ?? "The server broke off.");
    const choice = chunk.choices?.[0];
    yield {
      text: choice?.delta?.content ?? "",
      thought: choice?.delta?.reasoning_content ?? "",
      finish: choice?.finish_reason ?? null,
      usage: chunk.usage ?? null,
    };
  }
}
