// Chats between two tabs of a development server's page, in the browser named by the argument.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [executablePath] = process.argv.slice(2);
const { FANFARE_URL, FANFARE_API_KEY } = process.env;

const browser = await chromium.launch({
  executablePath,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const context = await browser.newContext();
const complaints = [];
context.on("console", (message) => complaints.push(message.text()));
context.on("weberror", (error) => complaints.push(error.error()));

const ada = await context.newPage();
await ada.goto(FANFARE_URL);
await connect(ada);
await see(ada, "#count", "1");

const opened = context.waitForEvent("page");
await ada.click("#second");
const grace = await opened;
await connect(grace);
for (const tab of [ada, grace]) await see(tab, "#count", "2");
await see(ada, "#log .note", "Grace joined");

await say(ada, "Grüße <b>an alle</b>");
await see(ada, "#log .mine", "Ada Grüße <b>an alle</b>");
await see(grace, "#log .theirs", "Ada Grüße <b>an alle</b>");
await say(grace, "Hello, Ada");
await see(ada, "#log .theirs", "Grace Hello, Ada");
await grace.click("#ping");
await see(grace, "#log .note", "pong after");

const data = { type: "notification", event: "post_liked", post_id: 7, liked_by: "Grace" };
const answer = await fetch(`${FANFARE_URL}/api/send_to_user`, {
  method: "POST",
  headers: { "x-api-key": FANFARE_API_KEY },
  body: JSON.stringify({ user: 42, data }),
});
assert.deepEqual(await answer.json(), { result: { connections: 1 } });
await see(ada, "#log .pushed", JSON.stringify(data));
assert.equal(await grace.locator("#log .pushed").count(), 0);

await grace.click("#disconnect");
await see(ada, "#log .note", "Grace left");
await see(ada, "#count", "1");
assert.deepEqual(complaints, []);
await browser.close();

async function connect(tab) {
  await tab.click("#connect");
  await tab.waitForSelector("#state[data-state=open]");
}

async function say(tab, text) {
  await tab.fill("#body", text);
  await tab.click("#send");
}

/** Waits until an element shows a text. */
async function see(tab, selector, text) {
  await tab.locator(selector).filter({ hasText: text }).waitFor();
}
