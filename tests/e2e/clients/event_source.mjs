// Follows channels by the EventSource of the browser named by the first argument.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const [executablePath, scenario] = process.argv.slice(2);
const { ADA, FANFARE_URL, FANFARE_API_KEY } = process.env;

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
});
// The page's own policy is not what is tested.
const context = await browser.newContext({ bypassCSP: true });
const page = await context.newPage();
await { follow, cross }[scenario]();
await browser.close();

/** A page of the server's own origin: events, a way back that misses nothing, cookies, refusals. */
async function follow() {
  await page.goto(FANFARE_URL);
  await open(`/sse?channels=news,weather&token=${ADA}`);
  // Cut off before any event, as the position alone brings it back.
  await disconnect();
  await publish("news", 1);
  await seen([
    ["disconnect", { code: 3503, reason: "force disconnect" }],
    ["news", 1],
  ]);
  await publish("weather", { text: "sun\n& rain" });
  await disconnect();
  await publish("weather", 2);
  await publish("news", 2);
  const [, , weather, , ...missed] = await seen(6);
  assert.deepEqual(weather, ["weather", { text: "sun\n& rain" }]);
  const byName = ([a], [b]) => (a < b ? -1 : 1);
  assert.deepEqual(missed.sort(byName), [["news", 2], ["weather", 2]]);
  await call("send_to_user", { user: 42, data: { for: "Ada" } });
  assert.deepEqual((await seen(7)).at(-1), ["message", { for: "Ada" }]);

  await page.evaluate((token) => (document.cookie = `fanfare_token=${token}`), ADA);
  await open("/sse?channels=news");
  await publish("news", 3);
  await seen([["news", 3]]);

  await page.evaluate(() => (document.cookie = "fanfare_token=; max-age=0"));
  assert.equal(await refused("/sse?channels=news&token=nonsense"), true);
  assert.equal(await refused(`/sse?channels=none:a&token=${ADA}`), true);
}

/** A page of another origin, which the server allows under one name and not under the other. */
async function cross() {
  const other = FANFARE_URL.replace("127.0.0.1", "localhost");
  await page.goto(other);
  await open(`${FANFARE_URL}/sse?channels=news&token=${ADA}`);
  await publish("news", 1);
  await seen([["news", 1]]);
  // A header of the page's own has the browser ask first.
  const status = await page.evaluate(
    ([url, token]) => {
      const headers = { authorization: `Bearer ${token}`, "last-event-id": "nonsense" };
      return fetch(url, { headers, credentials: "include" }).then((answer) => answer.status);
    },
    [`${FANFARE_URL}/sse?channels=news`, ADA],
  );
  assert.equal(status, 200);
  await page.goto(FANFARE_URL);
  assert.equal(await refused(`${other}/sse?channels=news&token=${ADA}`), true);
}

/** Opens a stream in the page, which notes what comes. */
async function open(url) {
  await page.evaluate(async (url) => {
    window.source?.close();
    window.seen = [];
    window.source = new EventSource(url, { withCredentials: true });
    const note = ({ type, data }) => window.seen.push([type, JSON.parse(data)]);
    for (const name of ["message", "news", "weather", "disconnect", "unrecovered"]) {
      window.source.addEventListener(name, note);
    }
    await new Promise((resolve) => (window.source.onopen = resolve));
  }, url);
}

/** Whether a stream is refused for good. */
async function refused(url) {
  return page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const source = new EventSource(url, { withCredentials: true });
        source.onopen = () => resolve(false);
        source.onerror = () => resolve(source.readyState === EventSource.CLOSED);
      }),
    url,
  );
}

/** Waits for as many events as are expected, or just these; returns them. */
async function seen(expected) {
  const count = expected.length ?? expected;
  await page.waitForFunction((count) => window.seen.length >= count, count);
  const events = await page.evaluate(() => window.seen);
  if (expected.length) assert.deepEqual(events, expected);
  assert.equal(events.length, count, JSON.stringify(events));
  return events;
}

/** Ends the page's stream, and waits until it knows. */
async function disconnect() {
  await call("disconnect", { user: "42" });
  await page.waitForFunction(() => window.source.readyState === EventSource.CONNECTING);
}

async function publish(channel, data) {
  await call("publish", { channel, data });
}

async function call(method, body) {
  const answer = await fetch(`${FANFARE_URL}/api/${method}`, {
    method: "POST",
    headers: { "x-api-key": FANFARE_API_KEY },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.text());
}
