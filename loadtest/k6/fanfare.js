// What the scripts share: settings, tokens, and connections to the chat endpoint.
//
//   k6 run -e FANFARE_AUTH_HMAC_SECRET=… -e FANFARE_URL=http://127.0.0.1:8080 loadtest/k6/chat.js

import { hmac } from "k6/crypto";
import { b64encode } from "k6/encoding";
import { Counter, Trend } from "k6/metrics";
import { setTimeout } from "k6/timers";
import { WebSocket } from "k6/websockets";

export const URL = __ENV.FANFARE_URL || "http://127.0.0.1:8080";

/** Seconds to connect before the first publish, and to receive after the last. */
export const MARGIN = setting("MARGIN", 5);

/** What a latency must stay under, in milliseconds. */
export const BARS = [`p(95)<${setting("P95", 100)}`, `p(99)<${setting("P99", 250)}`];

/** Milliseconds from a publish to its delivery, on one clock if k6 publishes too. */
const latency = new Trend("delivery_latency", true);
const deliveries = new Counter("deliveries");
/** Errors, and closes that this side did not ask for. */
const failures = new Counter("failures");

/**
 * A whole number from the environment.
 * @param {string} name
 * @param {number} otherwise
 */
export function setting(name, otherwise) {
  return Number.parseInt(__ENV[name] ?? otherwise, 10);
}

/**
 * A token (RFC 7519) that is valid for an hour.
 * @param {number} sub
 */
function token(sub) {
  const exp = Math.ceil(Date.now() / 1000) + 3600;
  const parts = [{ alg: "HS256", typ: "JWT" }, { sub, name: `User ${sub}`, exp }];
  const signed = parts.map((part) => b64encode(JSON.stringify(part), "rawurl")).join(".");
  const secret = __ENV.FANFARE_AUTH_HMAC_SECRET;
  return `${signed}.${hmac("sha256", secret, signed, "base64rawurl")}`;
}

/**
 * Connects a user for some seconds.
 * @param {number} sub
 * @param {number} seconds
 * @param {object} on
 * @param {(socket: WebSocket) => void} [on.open]
 * @param {(message: any) => void} on.message
 * @param {() => void} [on.end]
 */
export function connect(sub, seconds, on) {
  const socket = new WebSocket(`${URL.replace("http", "ws")}/ws/chat`, null, {
    headers: { Authorization: `Bearer ${token(sub)}` },
  });
  let isDone = false;
  socket.onopen = () => {
    on.open?.(socket);
    setTimeout(() => {
      isDone = true;
      socket.close(1000);
    }, seconds * 1000);
  };
  socket.onmessage = (event) => on.message(JSON.parse(String(event?.data)));
  socket.onerror = () => failures.add(1);
  socket.onclose = () => {
    if (!isDone) failures.add(1);
    on.end?.();
  };
}

/**
 * Counts a delivery of what was published at a time.
 * @param {number} at
 */
export function delivered(at) {
  deliveries.add(1);
  latency.add(Date.now() - at);
}
