// Plays a scenario, named by the first argument, through the balancer at FANFARE_URL. The two nodes
// behind it have their API at FANFARE_NODES.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Centrifuge } from "centrifuge";
import ws from "ws";

const [scenario, number] = process.argv.slice(2);
const { ADA, FANFARE_URL, FANFARE_NODES, FANFARE_API_KEY } = process.env;
const SOCKETS = FANFARE_URL.replace("http", "ws");
const CHAT = `${SOCKETS}/ws/chat?token=${ADA}`;

const scenarios = {
  /** One peer of each kind says and asks nothing for so many seconds, and is still there. */
  async idle(seconds) {
    const chat = await open(new ws(CHAT));
    chat.on("close", fail);
    const client = await connect(ws);
    client.on("connecting", fail);
    const stream = await Stream.open();
    await sleep(seconds * 1000);
    const heard = [
      new Promise((resolve) => chat.on("message", (said) => `${said}` === '"hello"' && resolve())),
      new Promise((resolve) => client.on("message", resolve)),
      stream.next('data: "hello"'),
    ];
    await onBothNodes("broadcast_all", { data: "hello" });
    await Promise.all(heard);
  },

  /** One peer of each kind waits for its end, which no Close announces. */
  async cut() {
    const chat = await open(new ws(CHAT));
    const stream = await Stream.open();
    assert.equal(await new Promise((resolve) => chat.on("close", resolve)), 1006);
    await assert.rejects(stream.next("event:"));
  },

  /** A small event comes long before anything else could push it out. */
  async event() {
    const stream = await Stream.open();
    await stream.next("id: ");
    const published = performance.now();
    await onBothNodes("publish", { channel: "news:a", data: "now" });
    await stream.next('data: "now"');
    assert.ok(performance.now() - published < 1000);
  },

  /** So many clients stay, and come back after each end. */
  async crowd(size) {
    await Promise.all(Array.from({ length: size }, () => connect(Strict)));
    console.log(`${size} connections to ${FANFARE_URL}`);
    await new Promise(() => {});
  },
};

/** A WebSocket whose handshake must not fail. */
class Strict extends ws {
  constructor(...parameters) {
    super(...parameters);
    this.on("error", fail);
  }
}

/** A stream of events, read until a line begins as is expected. */
class Stream {
  static async open() {
    const answer = await fetch(`${FANFARE_URL}/sse?channels=news:a&token=${ADA}`);
    assert.equal(answer.status, 200);
    const stream = new Stream();
    stream.text = "";
    stream.reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    return stream;
  }

  async next(beginning) {
    while (!this.text.split("\n").some((line) => line.startsWith(beginning))) {
      const { done, value } = await this.reader.read();
      assert.ok(!done, "the stream has ended");
      this.text += value;
    }
  }
}

async function open(socket) {
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  return socket;
}

async function connect(websocket) {
  const client = new Centrifuge(`${SOCKETS}/connection/websocket`, { token: ADA, websocket });
  client.connect();
  await client.ready();
  return client;
}

/** Calls the API of each, as the two do not know of each other. */
async function onBothNodes(method, body) {
  for (const node of FANFARE_NODES.split(" ")) {
    const answer = await fetch(`${node}/api/${method}`, {
      method: "POST",
      headers: { "x-api-key": FANFARE_API_KEY },
      body: JSON.stringify(body),
    });
    assert.equal(answer.status, 200);
  }
}

function fail(why) {
  console.error("an end that was not to come:", why);
  process.exit(1);
}

await scenarios[scenario](Number(number));
// Connections that a scenario left open must not keep the process.
process.exit();
