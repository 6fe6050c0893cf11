// Plays a scenario, named by the first argument, with npm's centrifuge: over npm's ws, or in the
// browser that the second argument names.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { Centrifuge } from "centrifuge";
import ws from "ws";
import { play } from "./centrifuge-scenarios.mjs";

const [scenario, executablePath] = process.argv.slice(2);
const { FANFARE_URL, FANFARE_PID, FANFARE_API_KEY, FANFARE_AUTH_HMAC_SECRET } = process.env;

/** What a scenario cannot do in a page. */
const outside = {
  sign(claims) {
    const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
    const signed = `${encode({ alg: "HS256" })}.${encode(claims)}`;
    const signature = createHmac("sha256", FANFARE_AUTH_HMAC_SECRET).update(signed);
    return `${signed}.${signature.digest("base64url")}`;
  },
  async api(method, body) {
    const headers = { "x-api-key": FANFARE_API_KEY };
    const request = { method: "POST", headers, body: JSON.stringify(body) };
    const answer = await (await fetch(`${FANFARE_URL}/api/${method}`, request)).json();
    return answer.result ?? assert.fail(JSON.stringify(answer));
  },
  equal: (actual, expected) => assert.deepEqual(actual, expected),
  terminate: () => process.kill(Number(FANFARE_PID), "SIGTERM"),
};
const url = `${FANFARE_URL.replace("http", "ws")}/connection/websocket`;

async function inNode() {
  await play(scenario, { ...outside, Centrifuge, WebSocket: ws, url });
}

async function inBrowser() {
  const browser = await chromium.launch({
    executablePath,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"],
  });
  // The page's own policy is not what is tested.
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  await page.goto(FANFARE_URL);
  const read = (path) => readFile(new URL(path, import.meta.url), "utf8");
  await page.addScriptTag({ content: await read("node_modules/centrifuge/dist/centrifuge.js") });
  for (const name of Object.keys(outside)) await page.exposeFunction(name, outside[name]);
  const scenarios = await read("centrifuge-scenarios.mjs");
  await page.evaluate(
    async ([scenarios, scenario, url]) => {
      const blob = new Blob([scenarios], { type: "text/javascript" });
      const { play } = await import(URL.createObjectURL(blob));
      await play(scenario, { Centrifuge, WebSocket, sign, api, equal, terminate, url });
    },
    [scenarios, scenario, url],
  );
  await browser.close();
}

await (executablePath ? inBrowser() : inNode());
// Connections that a scenario left open must not keep the process.
process.exit();
