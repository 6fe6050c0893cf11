// Users chat: each says something now and then, and all of them hear it.
//
//   k6 run -e FANFARE_AUTH_HMAC_SECRET=… -e USERS=100 -e PAUSE=5 loadtest/k6/chat.js

import { check } from "k6";
import exec from "k6/execution";
import { clearInterval, setInterval, setTimeout } from "k6/timers";
import { BARS, MARGIN, connect, delivered, setting } from "./fanfare.js";

const USERS = setting("USERS", 100);
const SECONDS = setting("SECONDS", 60);
/** Seconds between two messages of one user. */
const PAUSE = setting("PAUSE", 5);

/** @type {import("k6/options").Options} */
export const options = {
  scenarios: {
    users: { executor: "per-vu-iterations", vus: USERS, iterations: 1 },
  },
  thresholds: {
    checks: ["rate==1"],
    delivery_latency: BARS,
    failures: ["count==0"],
  },
};

export default function () {
  const me = exec.vu.idInTest;
  let said = 0;
  let heard = 0;
  connect(me, SECONDS + MARGIN, {
    open(socket) {
      const timer = setInterval(() => {
        said += 1;
        socket.send(JSON.stringify({ type: "message", body: { at: Date.now() } }));
      }, PAUSE * 1000);
      setTimeout(() => clearInterval(timer), SECONDS * 1000);
    },
    message({ type, user_id, body }) {
      if (type !== "message") return;
      if (user_id === me) heard += 1;
      delivered(body.at);
    },
    end() {
      check(null, { "heard itself": () => said > 0 && heard === said });
    },
  });
}
