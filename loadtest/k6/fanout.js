// A backend publishes at a rate; every connected user gets every publish.
//
//   k6 run -e FANFARE_AUTH_HMAC_SECRET=… -e FANFARE_API_KEY=… -e USERS=1000 -e RATE=20 loadtest/k6/fanout.js

import { check } from "k6";
import exec from "k6/execution";
import http from "k6/http";
import { BARS, MARGIN, URL, connect, delivered, setting } from "./fanfare.js";

const USERS = setting("USERS", 1000);
const RATE = setting("RATE", 20);
const SECONDS = setting("SECONDS", 30);

/** @type {import("k6/options").Options} */
export const options = {
  scenarios: {
    subscribers: {
      executor: "per-vu-iterations",
      exec: "subscribe",
      vus: USERS,
      iterations: 1,
      maxDuration: `${SECONDS + 3 * MARGIN}s`,
    },
    publisher: {
      executor: "constant-arrival-rate",
      exec: "publish",
      startTime: `${MARGIN}s`,
      duration: `${SECONDS}s`,
      rate: RATE,
      preAllocatedVUs: 20,
    },
  },
  thresholds: {
    checks: ["rate==1"],
    // The executor may publish once more or less.
    deliveries: [`count>=${USERS * (SECONDS * RATE - 1)}`],
    delivery_latency: BARS,
    dropped_iterations: ["count==0"],
    failures: ["count==0"],
  },
};

export function subscribe() {
  /** @type {Set<number>} */
  const seen = new Set();
  let last = -1;
  connect(exec.vu.idInTest, SECONDS + 2 * MARGIN, {
    message({ n, at }) {
      if (n === undefined) return;
      seen.add(n);
      last = Math.max(last, n);
      delivered(at);
    },
    end() {
      check(seen, { "missed nothing": ({ size }) => size === last + 1 });
    },
  });
}

export async function publish() {
  const n = exec.scenario.iterationInTest;
  const body = JSON.stringify({ data: { type: "tick", n, at: Date.now() } });
  const headers = { "X-API-Key": __ENV.FANFARE_API_KEY };
  const answer = await http.asyncRequest("POST", `${URL}/api/broadcast_all`, body, { headers });
  check(answer, { "was admitted": ({ status }) => status === 200 });
}
