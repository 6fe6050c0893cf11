// Watches the page of the live feed's example, in the browser named by the first argument, while its
// script publishes; both are in the directory that the second argument names.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chromium } from "playwright-core";

const [executablePath, directory] = process.argv.slice(2);
const { FANFARE_URL } = process.env;

const publisher = spawn(`${directory}/publish`, [FANFARE_URL], {
  stdio: ["ignore", "pipe", "ignore"],
});
const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
});
const page = await browser.newPage();
// The SDK comes from here, as a test needs no network.
const sdk = new URL("node_modules/centrifuge/dist/centrifuge.js", import.meta.url).pathname;
await page.route("https://unpkg.com/**", (route) => route.fulfill({ path: sdk }));
const url = `${FANFARE_URL.replace("http", "ws")}/connection/websocket`;
await page.goto(`file://${directory}/index.html?${encodeURIComponent(url)}`);
await page.locator("#state").filter({ hasText: /^live$/ }).waitFor();
await page.locator("#price").filter({ hasText: /^1\.\d{4}$/ }).waitFor();
await page.locator("#log li").nth(2).waitFor();

const shown = () => page.locator("#log li").evaluateAll((lines) => lines.map(({ value }) => value));
const before = (await shown()).length;
await page.evaluate(() => client.disconnect());
await page.locator("#state").filter({ hasText: "disconnected" }).waitFor();
for (let i = 0; i < 3; i++) await once(publisher.stdout, "data");
await page.evaluate(() => client.connect());
await page.locator("#state").filter({ hasText: /^live$/ }).waitFor();
await page.locator("#log li").nth(before + 3).waitFor();
const offsets = (await shown()).reverse();
assert.deepEqual(offsets, offsets.map((_, i) => offsets[0] + i));

publisher.kill();
await browser.close();
