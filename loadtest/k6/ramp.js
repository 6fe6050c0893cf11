// Users come, more and more of them; each measures the way there and back, and goes to come again.
//
//   k6 run -e FANFARE_AUTH_HMAC_SECRET=… -e USERS=5000 loadtest/k6/ramp.js

import { check } from "k6";
import exec from "k6/execution";
import { Trend } from "k6/metrics";
import { clearInterval, setInterval, setTimeout } from "k6/timers";
import { BARS, MARGIN, connect, setting } from "./fanfare.js";

const USERS = setting("USERS", 1000);
const SECONDS = setting("SECONDS", 60);
/** Seconds for which a user pings each time, once a second. */
const STAY = setting("STAY", 20);

/** Milliseconds from a ping message to its pong. */
const pongLatency = new Trend("pong_latency", true);

/** @type {import("k6/options").Options} */
export const options = {
  scenarios: {
    users: {
      executor: "ramping-vus",
      stages: [
        { duration: `${SECONDS}s`, target: USERS },
        { duration: `${SECONDS}s`, target: USERS },
      ],
      gracefulRampDown: `${STAY + 2 * MARGIN}s`,
      gracefulStop: `${STAY + 2 * MARGIN}s`,
    },
  },
  thresholds: {
    checks: ["rate==1"],
    pong_latency: BARS,
    failures: ["count==0"],
  },
};

export default function () {
  /** @type {number[]} */
  const pings = [];
  let pongs = 0;
  connect(exec.vu.idInTest, STAY + MARGIN, {
    open(socket) {
      const timer = setInterval(() => {
        pings.push(Date.now());
        socket.send('{"type":"ping"}');
      }, 1000);
      setTimeout(() => clearInterval(timer), STAY * 1000);
    },
    message({ type }) {
      if (type !== "pong") return;
      pongLatency.add(Date.now() - pings[pongs]);
      pongs += 1;
    },
    end() {
      check(pings, { "every ping was answered": ({ length }) => length > 0 && pongs === length });
    },
  });
}
