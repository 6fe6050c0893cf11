// Runs a k6 script, the first argument, on Node.js: its scenarios with their users and iterations
// all at once, its checks and its thresholds. Further arguments are NAME=VALUE, as for `k6 run -e`.

import assert from "node:assert/strict";
import { once } from "node:events";
import { register } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [script, ...settings] = process.argv.slice(2);
const given = Object.fromEntries(settings.map((setting) => setting.split("=")));
globalThis.__ENV = { ...process.env, ...given };

// Whatever a script imports from k6 comes from here.
const modules = new URL("k6-modules.mjs", import.meta.url).href;
const resolve = `export const resolve = (name, context, next) =>
  next(name === "k6" || name.startsWith("k6/") ? "${modules}" : name, context);`;
register(`data:text/javascript,${encodeURIComponent(resolve)}`);

const { run, metrics } = await import(modules);
const { options, ...functions } = await import(pathToFileURL(script));

for (const scenario of Object.values(options.scenarios)) play(scenario);
await once(process, "beforeExit");

for (const [metric, thresholds] of Object.entries(options.thresholds)) {
  for (const threshold of thresholds) assert.ok(holds(metric, threshold), `${metric}: ${threshold}`);
}

async function play({ startTime = "0s", duration, rate, vus, stages, exec = "default" }) {
  await sleep(seconds(startTime) * 1000);
  const users = vus ?? stages?.[0].target;
  for (let user = 0; user < (users ?? seconds(duration) * rate); user += 1) {
    run(functions[exec], user);
    if (rate) await sleep(1000 / rate);
  }
}

function seconds(text) {
  return Number.parseFloat(text);
}

function holds(metric, threshold) {
  const [, aggregate, operator, bound] = threshold.match(/^(.+?)(<|>=|==)(\d+)$/);
  const values = [...(metrics.get(metric) ?? [])].sort((a, b) => a - b);
  const sum = values.reduce((a, b) => a + b, 0);
  const value = {
    count: () => sum,
    rate: () => sum / values.length,
    "p(95)": () => values[Math.ceil(values.length * 0.95) - 1],
    "p(99)": () => values[Math.ceil(values.length * 0.99) - 1],
  }[aggregate]();
  if (operator === "<") return value < Number(bound);
  return operator === "==" ? value === Number(bound) : value >= Number(bound);
}
