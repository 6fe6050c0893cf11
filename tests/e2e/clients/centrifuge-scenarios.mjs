// What users of the SDK do, in Node.js and in browsers alike. A scenario is given the SDK and what
// only the outside can do: `sign` claims, ask the `api`, `terminate` the server, and compare.

/** Plays a scenario to its end; what differs from what is expected is thrown. */
export async function play(name, world) {
  await scenarios[name](new Cast(world));
}

const scenarios = {
  async channels(cast) {
    const { equal } = cast;
    const ada = await cast.connect(42, { info: { name: "Ada" } });
    const [news, heard] = await cast.subscribe(ada, "news:a", { joinLeave: true });
    const adaInfo = { user: "42", client: ada.id, connInfo: { name: "Ada" } };
    equal(info(await heard("join")), adaInfo);
    const grace = await cast.connect(43);
    const [graceNews, graceHeard] = await cast.subscribe(grace, "news:a");
    const graceInfo = { user: "43", client: grace.id };
    equal(info(await heard("join")), graceInfo);

    await news.publish({ text: "Grüße" });
    for (const next of [heard, graceHeard]) {
      const publication = await next("publication");
      equal([publication.data, publication.offset], [{ text: "Grüße" }, 1]);
      equal(info(publication), adaInfo);
    }
    await grace.publish("news:a", [2]);
    await cast.api("publish", { channel: "news:a", data: 3, tags: { by: "backend" } });
    equal((await heard("publication")).data, [2]);
    const last = await heard("publication");
    equal([last.data, last.tags, last.info], [3, { by: "backend" }, undefined]);

    const { clients } = await news.presence();
    equal(Object.keys(clients).sort(), [ada.id, grace.id].sort());
    equal(await graceNews.presenceStats(), { numClients: 2, numUsers: 2 });
    const page = await news.history({ limit: 2 });
    equal(page.publications.map(({ data, offset }) => [data, offset]), [[{ text: "Grüße" }, 1], [[2], 2]]);
    const { offset, epoch } = page;
    equal(offset, 3);
    const before = await news.history({ limit: 9, since: { offset: 3, epoch }, reverse: true });
    equal(before.publications.map(({ offset }) => offset), [2, 1]);

    graceNews.unsubscribe();
    equal(info(await heard("leave")), graceInfo);
    equal(await news.presenceStats(), { numClients: 1, numUsers: 1 });
  },

  async refusals(cast) {
    const { equal } = cast;
    const ada = await cast.connect(42);
    for (const [channel, code] of [["nowhere:a", 102], ["private:a", 103], ["private:#43", 103]]) {
      const refused = ada.newSubscription(channel);
      const next = listen(refused);
      refused.subscribe();
      const unsubscribed = await next("unsubscribed");
      equal([unsubscribed.code, refused.state], [code, "unsubscribed"]);
    }
    equal(await ada.rpc("any", {}).catch(({ code }) => code), 108);
    equal(await ada.publish("news:a", 1).catch(({ code }) => code), 103);
    // None of that has cost it its connection.
    const token = await cast.grant(42, "private:b");
    const [, heard] = await cast.subscribe(ada, "private:b", { token });
    await cast.api("publish", { channel: "private:b", data: 1 });
    equal((await heard("publication")).data, 1);

    const stranger = cast.client({ token: "nonsense" });
    const next = listen(stranger);
    stranger.connect();
    equal((await next("disconnected")).code, 3500);
  },

  async recovery(cast) {
    const { equal } = cast;
    const ada = await cast.connect(42, { channels: ["private:own"] });
    const own = listen(ada);
    const [news, heard] = await cast.subscribe(ada, "news:a");
    const publish = async (data) => {
      for (const channel of ["news:a", "private:own"]) await cast.api("publish", { channel, data });
    };
    await publish(1);
    equal((await heard("publication")).data, 1);
    equal((await own("publication")).data, 1);
    for (const missed of [2, 4]) {
      cast.cut(ada);
      // The SDK comes back after half a second at least.
      await publish(missed);
      await publish(missed + 1);
      for (const next of [heard, own]) {
        const { wasRecovering, recovered } = await next("subscribed");
        equal([wasRecovering, recovered], [true, true]);
        for (const data of [missed, missed + 1]) {
          const publication = await next("publication");
          equal([publication.data, publication.offset], [data, data]);
        }
      }
    }
    await publish(6);
    equal((await heard("publication")).data, 6);
    equal((await own("publication")).data, 6);

    cast.cut(ada);
    await cast.api("publish", { channel: "news:a", data: 7 });
    await cast.api("history_remove", { channel: "news:a" });
    const { wasRecovering, recovered } = await heard("subscribed");
    equal([wasRecovering, recovered, news.state], [true, false, "subscribed"]);
    await cast.api("publish", { channel: "news:a", data: 8 });
    equal((await heard("publication")).data, 8);
  },

  async tokens(cast) {
    const { equal } = cast;
    let connecting = 0;
    let subscribing = 0;
    const getToken = async () => cast.sign({ sub: "42", exp: seconds(connecting++ ? 600 : 2) });
    const ada = cast.client({ getToken });
    const next = listen(ada);
    ada.connect();
    await next("connected");
    const [, heard] = await cast.subscribe(ada, "private:a", {
      getToken: async () => cast.grant(42, "private:a", subscribing++ ? 600 : 2),
    });
    while (connecting < 2 || subscribing < 2) await new Promise((done) => setTimeout(done, 50));
    // Both were refreshed on the first connection.
    equal(await ada.rpc("any", {}).catch(({ code }) => code), 108);
    await cast.api("publish", { channel: "private:a", data: 1 });
    equal((await heard("publication")).data, 1);
    equal([next.seen("connecting"), heard.seen("subscribing")], [1, 1]);
  },

  async expiry(cast) {
    const { equal } = cast;
    const ada = cast.client({
      token: await cast.sign({ sub: "42", exp: seconds(-1) }),
      getToken: () => cast.sign({ sub: "42", exp: seconds(600) }),
    });
    const next = listen(ada);
    ada.connect();
    await next("connected");
    const [, heard] = await cast.subscribe(ada, "private:a", {
      token: await cast.grant(42, "private:a", -1),
      getToken: () => cast.grant(42, "private:a", 600),
    });
    next.forget();
    await cast.api("refresh", { user: "42", expired: true });
    equal((await next("connecting")).code, 3005);
    await next("connected");
    await heard("subscribed");
    await cast.api("publish", { channel: "private:a", data: 1 });
    equal((await heard("publication")).data, 1);
  },

  async backend(cast) {
    const { equal } = cast;
    const ada = await cast.connect(42);
    const own = listen(ada);
    const data = { type: "notification", text: "a\nb" };
    await cast.api("send_to_user", { user: 42, data });
    equal((await own("message")).data, data);
    await cast.api("broadcast_all", { data: [1] });
    equal((await own("message")).data, [1]);

    await cast.api("subscribe", { user: "42", channel: "news:b" });
    equal((await own("subscribed")).channel, "news:b");
    await cast.api("publish", { channel: "news:b", data: 1 });
    equal((await own("publication")).data, 1);
    await cast.api("unsubscribe", { user: "42", channel: "news:b" });
    equal((await own("unsubscribed")).channel, "news:b");

    const [news, heard] = await cast.subscribe(ada, "news:a");
    await cast.api("unsubscribe", { user: "42", channel: "news:a" });
    const { code, reason } = await heard("unsubscribed");
    equal([code, reason, news.state], [2000, "server unsubscribe", "unsubscribed"]);
    news.subscribe();
    await heard("subscribed");
  },

  async disconnects(cast) {
    const { equal } = cast;
    const ada = await cast.connect(42);
    const next = listen(ada);
    const [, heard] = await cast.subscribe(ada, "news:a");
    await cast.api("disconnect", { user: "42" });
    const { code, reason } = await next("disconnected");
    equal([code, reason], [3503, "force disconnect"]);
    ada.connect();
    await next("connected");
    await heard("subscribed");
    ada.disconnect();
    equal((await next("disconnected")).code, 0);
    ada.connect();
    await next("connected");
    await heard("subscribed");
    await cast.api("publish", { channel: "news:a", data: 1 });
    equal((await heard("publication")).data, 1);
    next.forget();
    await cast.terminate();
    equal((await next("connecting")).code, 3001);
  },
};

/** Clients, and the sockets that they have. */
class Cast {
  constructor(world) {
    Object.assign(this, world);
    const sockets = (this.sockets = []);
    this.WebSocket = class extends world.WebSocket {
      constructor(...options) {
        super(...options);
        sockets.push(this);
      }
    };
  }

  client(options) {
    return new this.Centrifuge(this.url, { websocket: this.WebSocket, ...options });
  }

  /** A client that is connected as a user; its `id` is the connection's. */
  async connect(user, claims = {}) {
    const sub = String(user);
    const client = this.client({ token: await this.sign({ sub, ...claims }) });
    const next = listen(client);
    client.connect();
    client.id = (await next("connected")).client;
    return client;
  }

  /** Subscribes; returns the subscription, and what it hears from now on. */
  async subscribe(client, channel, options = {}) {
    const subscription = client.newSubscription(channel, options);
    const heard = listen(subscription);
    subscription.subscribe();
    await heard("subscribed");
    return [subscription, heard];
  }

  grant(user, channel, ttl = 600) {
    return this.sign({ sub: String(user), channel, exp: seconds(ttl) });
  }

  /** Takes a client's socket away, as far as the platform lets go of one. */
  cut() {
    const socket = this.sockets.at(-1);
    if (socket.terminate) socket.terminate();
    else socket.close();
  }
}

/** Hears all events of a client or subscription. What is returned waits for the next of a name. */
function listen(emitter) {
  const seen = {};
  const waiting = {};
  for (const name of EVENTS) {
    seen[name] = [];
    emitter.on(name, (event) => {
      if (waiting[name]) waiting[name](event);
      else seen[name].push(event);
      delete waiting[name];
    });
  }
  const next = (name) =>
    new Promise((resolve) => {
      if (seen[name].length) resolve(seen[name].shift());
      else waiting[name] = resolve;
    });
  const forget = () => EVENTS.forEach((name) => (seen[name] = []));
  return Object.assign(next, { seen: (name) => seen[name].length, forget });
}

/** Who an event is about, without what is not there. */
function info({ info }) {
  const { user, client, connInfo } = info;
  return connInfo ? { user, client, connInfo } : { user, client };
}

/** The time in so many seconds, as tokens have it. */
function seconds(fromNow) {
  return Math.floor(Date.now() / 1000) + fromNow;
}

const EVENTS = [
  ...["connecting", "connected", "disconnected", "message", "subscribing", "subscribed"],
  ...["unsubscribed", "publication", "join", "leave"],
];
