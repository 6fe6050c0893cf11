// The modules of k6 on Node.js, as far as the scripts under loadtest/k6 use them.

import { createHmac } from "node:crypto";
import undici from "undici";

export { clearInterval, setInterval, setTimeout } from "node:timers";

/** What was measured: values by metric. */
export const metrics = new Map();

const vu = { idInTest: 0 };
const scenario = { iterationInTest: 0 };

/** Runs a function of a script, which asks who it is before it first waits. */
export function run(what, iteration) {
  vu.idInTest = iteration + 1;
  scenario.iterationInTest = iteration;
  return what();
}

async function asyncRequest(method, url, body, { headers }) {
  const { status } = await undici.fetch(url, { method, body, headers });
  return { status };
}

// Of k6/execution and k6/http in one.
export default { vu, scenario, asyncRequest };

class Metric {
  constructor(name) {
    this.values = [];
    metrics.set(name, this.values);
  }

  add(value) {
    this.values.push(value);
  }
}

export { Metric as Counter, Metric as Trend };

const checks = new Metric("checks");

export function check(value, conditions) {
  for (const condition of Object.values(conditions)) checks.add(Number(condition(value)));
}

export class WebSocket extends undici.WebSocket {
  constructor(url, protocols, { headers }) {
    super(url, { protocols: protocols ?? [], headers });
  }
}

export function hmac(algorithm, secret, data) {
  return createHmac(algorithm, secret).update(data).digest("base64url");
}

export function b64encode(text) {
  return Buffer.from(text).toString("base64url");
}
