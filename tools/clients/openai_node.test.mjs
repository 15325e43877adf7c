// The `openai` package of Node against the server.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

const { default: OpenAI } = createRequire(`${process.env.NODE_MODULES}/`)("openai");
const { EDGELLM_URL: url, EDGELLM_MODEL: model } = process.env;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 120_000 });

const messages = [{ role: "user", content: "Why is the sky blue?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string", maxLength: 30 }, unit: { type: "string", enum: ["celsius", "fahrenheit"] } },
  required: ["city", "unit"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "get_weather", description: "The weather of a city", parameters } }];
const ask = (options) => client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 24, ...options });

test("models", async () => {
  const names = [];
  for await (const entry of client.models.list()) names.push(entry.id);
  assert.ok(names.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("chat and streaming give the same text", async () => {
  const whole = await ask();
  assert.match(whole.choices[0].message.content, /light/);
  let text = "";
  let usage = null;
  for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(usage, whole.usage);
});

test("an aborted stream leaves the server free", async () => {
  const stream = await ask({ stream: true, max_tokens: 1000, messages: [{ role: "user", content: "Write a long story." }] });
  for await (const _ of stream) break;
  stream.controller.abort();
  assert.equal((await ask({ max_tokens: 1 })).usage.completion_tokens, 1);
});

test("tools", async () => {
  const answer = await ask({ tools, tool_choice: "required", max_tokens: 100 });
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)).sort(), ["city", "unit"]);

  const stream = client.chat.completions.stream({ model, messages, tools, tool_choice: "required", temperature: 0, max_tokens: 100 });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.tool_calls[0].function.arguments, call.function.arguments);
});

test("json_schema", async () => {
  const response_format = { type: "json_schema", json_schema: { name: "weather", schema: parameters, strict: true } };
  const answer = JSON.parse((await ask({ response_format, max_tokens: 120 })).choices[0].message.content);
  assert.ok(["celsius", "fahrenheit"].includes(answer.unit));
});

test("logprobs", async () => {
  const { content } = (await ask({ logprobs: true, top_logprobs: 2, max_tokens: 4 })).choices[0].logprobs;
  assert.equal(content.length, 4);
  for (const token of content) assert.ok(token.logprob <= 0 && token.logprob === token.top_logprobs[0].logprob);
});

test("embeddings", async () => {
  const packed = await client.embeddings.create({ model, input: "a cat" });
  const plain = await client.embeddings.create({ model, input: "a cat", encoding_format: "float" });
  packed.data[0].embedding.forEach((value, i) => assert.ok(Math.abs(value - plain.data[0].embedding[i]) < 1e-6));
});

test("errors have the classes of the package", async () => {
  await assert.rejects(ask({ temperature: 3 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
  await assert.rejects(ask({ model: "no-such-model" }), OpenAI.NotFoundError);
});

test("responses", async () => {
  const options = { model, input: messages[0].content, temperature: 0, max_output_tokens: 24 };
  const whole = await client.responses.create(options);
  let text = "";
  for await (const event of await client.responses.create({ ...options, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.equal(text, whole.output_text);
});
