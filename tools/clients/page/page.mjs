// The chat page in a real browser against the server at EDGELLM_URL. Needs playwright-core in NODE_MODULES' node_modules and
// a Chromium (CHROMIUM, else /usr/bin/chromium). Any error on the console or request to elsewhere fails the test. Pictures
// are written where EDGELLM_SCREENSHOTS says.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { createRequire } from "node:module";

// From the folder that run.py installed it in.
const { chromium } = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`)("playwright-core");
const url = process.env.EDGELLM_URL;
const screenshots = process.env.EDGELLM_SCREENSHOTS;
const ANSWER_MS = 60_000;
const LONG = "Write a very long story about a lighthouse, with many chapters.";

let browser;
before(async () => {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
  if (screenshots) mkdirSync(screenshots, { recursive: true });
});
after(() => browser.close());

/** Opens the page in a fresh context, runs `steps`, and fails on whatever the console or the network complained about. */
async function onPage(options, steps) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.setDefaultTimeout(ANSWER_MS);
  const faults = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => !request.url().startsWith(url) && !/^(data|blob):/.test(request.url()) && faults.push(`outside: ${request.url()}`));
  await page.goto(`${url}/ui`);
  await page.waitForSelector("#model option", { state: "attached" });
  await steps(page, context);
  assert.deepEqual(faults, []);
  await context.close();
}

/** Waits until answer `n` is there and nothing runs. */
const answered = async (page, n) => {
  await page.waitForFunction((n) => document.querySelectorAll(".assistant").length === n && document.querySelector("#stop").hidden, n);
};
const settled = (page) => page.waitForSelector("#send:not([hidden])");
const running = (page) => page.waitForSelector("#stop:not([hidden])");
const answers = (page) => page.locator(".message.assistant .body");
const shoot = (page, name) => screenshots && page.screenshot({ path: `${screenshots}/${name}.png` });

async function set(page, values) {
  await page.keyboard.press("Alt+,");
  for (const [id, value] of Object.entries(values)) await page.fill(`#${id}`, String(value));
  await page.keyboard.press("Escape");
}

async function ask(page, text) {
  await page.fill("#prompt", text);
  await page.keyboard.press("Enter");
}

test("send, stream, copy, answer again, edit, keep", async () => {
  await onPage({}, async (page) => {
    await set(page, { temperature: 0, max_tokens: 48, system: "You are a helpful assistant." });
    await ask(page, "Write one sentence about the sea.");
    await running(page);
    // The text grows while it runs.
    await page.waitForFunction(() => document.querySelector(".assistant .body")?.textContent.length > 5);
    const early = (await answers(page).first().textContent()).length;
    await settled(page);
    const first = await answers(page).first().textContent();
    assert.ok(first.length >= early && first.length > 20, first);
    assert.match(await page.locator(".assistant .meta").textContent(), /\d+ tokens · [\d.]+ tokens\/s · first after [\d.]+ s/);

    await page.click(".assistant [aria-label='Copy the answer']");
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.ok(copied.includes(first.slice(0, 12)), copied);

    // Temperature 0: the same answer again.
    await page.keyboard.press("Alt+R");
    await running(page);
    await settled(page);
    assert.equal(await answers(page).first().textContent(), first);

    await page.focus("#prompt");
    await page.keyboard.press("ArrowUp");
    await page.locator(".editor textarea").fill("Write one sentence about a mountain.");
    await page.keyboard.press("Enter");
    await running(page);
    await settled(page);
    assert.equal(await answers(page).count(), 1);
    assert.notEqual(await answers(page).first().textContent(), first);

    // A reload shows the conversation as it was; a new one is empty; the old one is still listed.
    const before = await answers(page).first().textContent();
    await page.reload();
    await page.waitForSelector(".assistant");
    assert.equal(await answers(page).first().textContent(), before);
    await page.keyboard.press("Alt+N");
    assert.equal(await answers(page).count(), 0);
    await page.click("#conversations .open");
    assert.equal(await answers(page).first().textContent(), before);
    const download = page.waitForEvent("download");
    await page.click("#export-all");
    const file = JSON.parse(readFileSync(await (await download).path(), "utf8"));
    assert.equal(file.conversations[0].messages.length, 2);
  });
});

test("stop", async () => {
  await onPage({}, async (page) => {
    await set(page, { temperature: 0.8, max_tokens: 4000 });
    await ask(page, LONG);
    await page.waitForFunction(() => document.querySelector(".assistant .body")?.textContent.length > 20);
    await page.keyboard.press("Escape");
    await settled(page);
    await page.waitForFunction(() => document.querySelector(".assistant .meta").textContent.includes("stopped"));
    const stopped = await answers(page).first().textContent();
    await page.waitForTimeout(400);
    assert.equal(await answers(page).first().textContent(), stopped);
    // The server is free again for the next one.
    await set(page, { max_tokens: 5 });
    await ask(page, "Say yes.");
    await answered(page, 2);
  });
});

test("switch the model", async (t) => {
  await onPage({}, async (page) => {
    const names = await page.locator("#model option").allTextContents();
    if (names.length < 2) return t.skip("the server has one model");
    await set(page, { max_tokens: 8 });
    for (const [i, name] of names.slice(0, 2).entries()) {
      await page.selectOption("#model", name);
      await ask(page, "Once upon a time");
      await answered(page, i + 1);
      assert.ok((await page.locator(".assistant .meta").last().textContent()).startsWith(name));
      assert.ok(!(await page.locator(".fault:visible").count()), await page.locator(".fault").last().textContent());
    }
  });
});

test("a refusal is shown, and can be tried again", async () => {
  await onPage({}, async (page) => {
    await page.route("**/v1/chat/completions", (route) =>
      route.fulfill({ status: 200, contentType: "text/event-stream", body: 'data: {"error":{"message":"Out of luck."}}\n\n' }),
    );
    await ask(page, "Hello");
    await page.waitForSelector(".fault:visible");
    assert.equal(await page.locator(".fault").textContent(), "Out of luck.");
    await page.unroute("**/v1/chat/completions");
    await set(page, { max_tokens: 5 });
    await page.click("[aria-label='Answer again']");
    await page.waitForFunction(() => document.querySelector(".assistant .body").textContent !== "");
    await settled(page);
    assert.equal(await page.locator(".fault:visible").count(), 0);
  });
});

test("what a model writes never becomes code", async () => {
  await onPage({}, async (page) => {
    const hostile = '<img src=x onerror="window.hit=1"><script>window.hit=1</script> [x](javascript:window.hit=1) `</code><script>window.hit=1</script>`';
    const body = `data: ${JSON.stringify({ choices: [{ delta: { content: hostile } }] })}\n\ndata: [DONE]\n\n`;
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ status: 200, contentType: "text/event-stream", body }));
    await ask(page, hostile);
    await page.waitForSelector(".assistant code");
    await settled(page);
    assert.equal(await page.evaluate(() => window.hit), undefined);
    assert.equal(await page.locator(".message :is(img, script, a)").count(), 0);
  });
});

for (const colorScheme of ["light", "dark"]) {
  test(`names and contrast: ${colorScheme}`, async () => {
    await onPage({ colorScheme }, async (page) => {
      await set(page, { max_tokens: 16 });
      await ask(page, "Say hello.");
      await answered(page, 1);
      assert.deepEqual(await page.evaluate(unnamed), []);
      assert.deepEqual(await page.evaluate(faint), []);
      await page.keyboard.press("Alt+,");
      assert.deepEqual(await page.evaluate(unnamed), []);
      assert.deepEqual(await page.evaluate(faint), []);
    });
  });
}

/** Controls without a name for a screen reader. */
function unnamed() {
  const controls = document.querySelectorAll("button, input, select, textarea, a");
  const named = (node) => node.ariaLabel || node.textContent.trim() || node.labels?.length || node.title;
  return [...controls].filter((node) => !named(node)).map((node) => node.outerHTML);
}

/** Visible texts below WCAG's contrast of 4.5, by their computed colours. */
function faint() {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const ground = (node) => {
    const layers = [];
    for (; node; node = node.parentElement) layers.push(rgba(getComputedStyle(node).backgroundColor));
    return layers.reverse().reduce((below, [r, g, b, a]) => below.map((c, i) => c + ([r, g, b][i] - c) * (a / 255)), [255, 255, 255]);
  };
  const luminance = (color) => {
    const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const hasText = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!hasText || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const text = luminance(rgba(getComputedStyle(node).color).slice(0, 3));
    const behind = luminance(ground(node));
    const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${node.tagName} ${node.className} ${node.textContent.trim().slice(0, 40)}`);
  }
  return found;
}

test("a phone", async () => {
  const phone = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
  await onPage(phone, async (page) => {
    await page.tap("#open-settings");
    await page.fill("#max_tokens", "40");
    await page.fill("#temperature", "0");
    await page.tap("[aria-label='Close the settings']");
    await page.fill("#prompt", "What is the capital of France?");
    await page.tap("#send");
    await answered(page, 1);
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
    await shoot(page, "chat-phone");
    await page.tap("#open-sidebar");
    await page.tap("#new");
    assert.equal(await answers(page).count(), 0);
    assert.ok(!(await page.locator("#backdrop").isVisible()));
  });
});

test("pictures for the book", async (t) => {
  if (!screenshots) return t.skip("EDGELLM_SCREENSHOTS is not set");
  for (const colorScheme of ["light", "dark"]) {
    await onPage({ colorScheme, viewport: { width: 1120, height: 720 } }, async (page) => {
      await set(page, { temperature: 0, max_tokens: 220 });
      await ask(page, "Write a Python function that counts the words of a text.");
      await answered(page, 1);
      await shoot(page, `chat-${colorScheme}`);
    });
  }
});
