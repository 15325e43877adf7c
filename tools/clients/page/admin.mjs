// The dashboard in a real browser, on a server of its own with keys (EDGELLM_BINARY, the null model): make a key, call with it,
// see its usage, revoke it, see the refusal. Any error on the console or request to elsewhere fails the test. A picture is
// written where EDGELLM_SCREENSHOTS says.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

const { chromium } = createRequire(`${process.env.NODE_MODULES ?? process.cwd()}/`)("playwright-core");
const binary = process.env.EDGELLM_BINARY;
const screenshots = process.env.EDGELLM_SCREENSHOTS;
const folder = mkdtempSync(join(tmpdir(), "edgellm-admin-"));
const env = { ...process.env, DATABASE_URL: join(folder, "gateway.db") };

let browser, server, url, admin;

before(async () => {
  admin = execFileSync(binary, ["keys", "create", "--name", "first admin", "--role", "admin"], { env, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  server = spawn(binary, ["serve", "--model", "null", "--port", "0"], { env, stdio: ["ignore", "ignore", "pipe"] });
  for await (const line of createInterface({ input: server.stderr })) {
    url = line.match(/ at (http\S+)/)?.[1];
    if (url) break;
  }
  while (!(await fetch(`${url}/ready`).catch(() => ({}))).ok) await new Promise((done) => setTimeout(done, 50));
  const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
  if (screenshots) mkdirSync(screenshots, { recursive: true });
});
after(async () => {
  await browser?.close();
  server?.kill();
  rmSync(folder, { recursive: true, force: true });
});

const chat = (key) =>
  fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: "Hi" }], max_tokens: 7 }),
  });

test("make a key, call with it, see its usage, revoke it, see the refusal", async () => {
  const context = await browser.newContext({ viewport: { width: 1200, height: 1000 }, colorScheme: "light" });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const faults = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => !request.url().startsWith(url) && !/^(data|blob):/.test(request.url()) && faults.push(`outside: ${request.url()}`));
  page.on("dialog", (dialog) => dialog.accept());
  await page.goto(`${url}/ui/admin`);

  // A stranger sees nothing.
  await page.fill("#key", "elk_wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#refusal:visible");
  assert.match(await page.textContent("#refusal"), /Incorrect API key/);
  assert.ok(await page.locator("#main").isHidden());
  assert.ok(faults.every((fault) => fault.includes("401")), faults.join());
  faults.length = 0;

  await page.fill("#key", admin);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#keys tr");

  await page.click("#new");
  await page.fill("#new-name", "laptop");
  await page.fill("#new-owner", "alice <b>");
  await page.fill("#new-rpm", "100");
  await page.click("#new-form [type=submit]");
  await page.waitForSelector("#made:visible");
  const key = await page.textContent("#made-key");
  assert.match(key, /^elk_[a-z2-7]{16}_[a-z2-7]{38}$/);
  await page.click("#made-done");
  assert.equal(await page.textContent("#made-key"), "", "it is not kept on the page");

  for (let i = 0; i < 5; i++) {
    const answer = await chat(key);
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get("x-ratelimit-limit-requests"), "100");
    await answer.json();
  }
  const row = page.locator("#keys tr", { hasText: "laptop" });
  await page.waitForFunction(() => [...document.querySelectorAll("#keys tr")].some((tr) => tr.cells[0].textContent === "laptop" && tr.cells[5].textContent === "5"));
  assert.match(await row.textContent(), /alice <b>.*user.*live/);
  assert.ok((await page.locator("#by-day rect").count()) === 1);
  if (screenshots) await page.screenshot({ path: `${screenshots}/admin.png` });

  await row.getByRole("button", { name: "Revoke laptop" }).click();
  await page.waitForSelector("#keys tr.gone");
  const refused = await chat(key);
  assert.equal(refused.status, 401);
  assert.match((await refused.json()).error.message, /revoked/);
  assert.match(await page.textContent("#audit"), /key\.revoke/);

  await page.click("#leave");
  assert.ok(await page.locator("#main").isHidden());
  assert.equal(await page.evaluate(() => sessionStorage.getItem("edgellm.key")), null);
  assert.deepEqual(faults, []);
  await context.close();
});
