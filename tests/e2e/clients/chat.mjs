// Plays a scenario, named by the first argument, with npm's ws or with undici, whose WebSocket is
// the one that Node.js has built in.

import assert from "node:assert/strict";
import { once } from "node:events";
import undici from "undici";
import ws from "ws";

const [scenario, library] = process.argv.slice(2);
const { ADA, GRACE, FANFARE_URL, FANFARE_PID, FANFARE_API_KEY } = process.env;
const CHAT = `${FANFARE_URL.replace("http", "ws")}/ws/chat`;

const scenarios = {
  async tokens() {
    for (const [url, protocols, headers] of [
      [`${CHAT}?token=${ADA}`, [], {}],
      [CHAT, [], { authorization: `Bearer ${ADA}` }],
      [CHAT, ["fanfare", ADA], {}],
    ]) {
      const tab = new Tab(url, protocols, headers);
      await tab.expect({ type: "user_joined", user_id: 42, name: "Ada", count: 1 });
      assert.equal(tab.socket.protocol, protocols[0] ?? "");
      await tab.close();
    }
  },

  async chat() {
    const [ada, second, grace] = await twoUsers();
    grace.socket.send('{"type":"message","body":{"text": "Grüße"}}');
    const said = '{"type":"message","user_id":43,"name":"Grace","body":{"text": "Grüße"}}';
    for (const tab of [ada, second, grace]) assert.equal(await tab.next(), said);
    ada.socket.send('{"type":"ping"}');
    await ada.expect({ type: "pong" });
    await Promise.all([second.close(), grace.close()]);
    await ada.expect({ type: "user_left", user_id: 43, name: "Grace", count: 1 });
  },

  async push() {
    const [ada, second, grace] = await twoUsers();
    const notification = { type: "notification", event: "hello" };
    const everyone = { type: "notification", event: "hello, all" };
    const pushed = await api("send_to_user", { user: 42, data: notification });
    assert.deepEqual(pushed, { connections: 2 });
    assert.deepEqual(await api("broadcast_all", { data: everyone }), { connections: 3 });
    for (const tab of [ada, second]) await tab.expect(notification);
    for (const tab of [ada, second, grace]) await tab.expect(everyone);
  },

  async ping() {
    const tab = new Tab(`${CHAT}?token=${ADA}`);
    await tab.next();
    if (library === "ws") {
      tab.socket.ping("are you there");
      const [payload] = await once(tab.socket, "pong");
      assert.equal(payload.toString(), "are you there");
    } else {
      // As in browsers, a page can send no ping frame.
      tab.socket.send('{"type":"ping"}');
      await tab.expect({ type: "pong" });
    }
  },

  async refused() {
    for (const url of [CHAT, `${CHAT}?token=nonsense`]) {
      await new Tab(url).expectClose(1008, "Invalid token");
    }
  },

  async disconnected() {
    const [ada, second, grace] = await twoUsers();
    await api("disconnect", { user: 42 });
    for (const tab of [ada, second]) await tab.expectClose(3503, "force disconnect");
    await grace.expect({ type: "user_left", user_id: 42, name: "Ada", count: 1 });
  },

  async drained() {
    const tabs = await twoUsers();
    process.kill(Number(FANFARE_PID), "SIGTERM");
    for (const tab of tabs) await tab.expectClose(3001, "shutdown");
  },
};

/** A connection whose messages, and at last its close, are read in turn. */
class Tab {
  constructor(url, protocols = [], headers = {}) {
    const socket =
      library === "ws"
        ? new ws(url, protocols, { headers })
        : new undici.WebSocket(url, { protocols, headers });
    const read = (controller) => {
      socket.onmessage = ({ data }) => controller.enqueue(data);
      socket.onclose = ({ code, reason }) => controller.enqueue({ code, reason });
      socket.onerror = ({ error }) => controller.error(error);
    };
    this.socket = socket;
    this.incoming = new ReadableStream({ start: read }).getReader();
  }

  async next() {
    return (await this.incoming.read()).value;
  }

  async expect(message) {
    assert.equal(await this.next(), JSON.stringify(message));
  }

  async expectClose(code, reason) {
    assert.deepEqual(await this.next(), { code, reason });
  }

  async close() {
    this.socket.close(1000);
    await this.expectClose(1000, "");
  }
}

/** Ada in two tabs, then Grace; who came is told and read. */
async function twoUsers() {
  const adaJoined = { type: "user_joined", user_id: 42, name: "Ada", count: 1 };
  const graceJoined = { type: "user_joined", user_id: 43, name: "Grace", count: 2 };
  const ada = new Tab(`${CHAT}?token=${ADA}`);
  await ada.expect(adaJoined);
  // A further tab is announced to itself alone.
  const second = new Tab(`${CHAT}?token=${ADA}`);
  await second.expect(adaJoined);
  const grace = new Tab(`${CHAT}?token=${GRACE}`);
  for (const tab of [ada, second, grace]) await tab.expect(graceJoined);
  return [ada, second, grace];
}

async function api(method, body) {
  const headers = { "x-api-key": FANFARE_API_KEY };
  const request = { method: "POST", headers, body: JSON.stringify(body) };
  const answer = await fetch(`${FANFARE_URL}/api/${method}`, request);
  return (await answer.json()).result;
}

await scenarios[scenario]();
// Connections that a scenario left open must not keep the process.
process.exit();
