"""Plays a scenario, named by the argument, with PyPI's centrifuge-python."""

import asyncio
import os
import signal
import sys
import time

import httpx
import jwt
from centrifuge import (
    Client,
    ClientEventHandler,
    ReplyError,
    StreamPosition,
    SubscriptionEventHandler,
)

URL = os.environ["FANFARE_URL"]
SOCKET = URL.replace("http", "ws", 1) + "/connection/websocket"


async def channels():
    ada = await connect(42, info={"name": "Ada"})
    news, heard = await subscribe(ada, "news:a")
    assert (await heard("subscribed")).recoverable
    grace = await connect(43)
    grace_news, grace_heard = await subscribe(grace, "news:a")

    await news.publish({"text": "Grüße"})
    for hears in (heard, grace_heard):
        publication = (await hears("publication")).pub
        assert (publication.data, publication.offset) == ({"text": "Grüße"}, 1)
        assert (publication.info.user, publication.info.conn_info) == ("42", {"name": "Ada"})
    await grace_news.publish([2])
    await api("publish", channel="news:a", data=3, tags={"by": "backend"})
    assert (await heard("publication")).pub.data == [2]
    last = (await heard("publication")).pub
    assert (last.data, last.tags, last.info) == (3, {"by": "backend"}, None)

    clients = (await news.presence()).clients
    assert sorted(info.user for info in clients.values()) == ["42", "43"]
    stats = await grace_news.presence_stats()
    assert (stats.num_clients, stats.num_users) == (2, 2)
    page = await news.history(limit=2)
    assert [it.offset for it in page.publications] == [1, 2]
    since = StreamPosition(offset=page.offset, epoch=page.epoch)
    page = await news.history(limit=9, since=since, reverse=True)
    assert [it.data for it in page.publications] == [[2], {"text": "Grüße"}]

    await grace_news.unsubscribe()
    await grace_news.subscribe()
    await grace_heard("subscribed")


async def refusals():
    ada = await connect(42)
    for channel, code in [("nowhere:a", 102), ("private:a", 103), ("private:#43", 103)]:
        heard = Heard()
        await ada.new_subscription(channel, events=heard.subscription()).subscribe()
        assert (await heard("unsubscribed")).code == code
    for call, code in [(ada.rpc("any", {}), 108), (ada.publish("news:a", 1), 103)]:
        try:
            raise AssertionError(await call)
        except ReplyError as error:
            assert error.code == code, error
    # None of that has cost it its connection.
    _, heard = await subscribe(ada, "private:b", token=grant(42, "private:b"))
    await api("publish", channel="private:b", data=1)
    assert (await heard("publication")).pub.data == 1

    heard = Heard()
    await Client(SOCKET, events=heard.client(), token="nonsense").connect()
    assert (await heard("disconnected")).code == 3500


async def recovery():
    own = Heard()
    ada = await connect(42, own, channels=["private:own"])
    _, heard = await subscribe(ada, "news:a")
    assert not (await heard("subscribed")).was_recovering
    assert not (await own("subscribed")).was_recovering

    async def publish(data):
        for channel in ("news:a", "private:own"):
            await api("publish", channel=channel, data=data)

    await publish(1)
    for hears in (heard, own):
        assert (await hears("publication")).pub.data == 1
    for missed in (2, 4):
        # There is no public way to lose a connection.
        ada._conn.transport.abort()
        await publish(missed)
        await publish(missed + 1)
        for hears in (heard, own):
            subscribed = await hears("subscribed")
            assert (subscribed.was_recovering, subscribed.recovered) == (True, True)
            for data in (missed, missed + 1):
                publication = (await hears("publication")).pub
                assert (publication.data, publication.offset) == (data, data)
    await publish(6)
    for hears in (heard, own):
        assert (await hears("publication")).pub.data == 6

    ada._conn.transport.abort()
    await api("publish", channel="news:a", data=7)
    await api("history_remove", channel="news:a")
    subscribed = await heard("subscribed")
    assert (subscribed.was_recovering, subscribed.recovered) == (True, False)
    await api("publish", channel="news:a", data=8)
    assert (await heard("publication")).pub.data == 8


async def tokens():
    given = {"connection": 0, "subscription": 0}

    def ttl(of):
        given[of] += 1
        return 2 if given[of] == 1 else 600

    async def connection():
        return sign(sub="42", exp=seconds(ttl("connection")))

    async def subscription(_channel):
        return grant(42, "private:a", ttl("subscription"))

    own = Heard()
    ada = Client(SOCKET, events=own.client(), get_token=connection)
    await ada.connect()
    _, heard = await subscribe(ada, "private:a", get_token=subscription)
    while min(given.values()) < 2:
        await asyncio.sleep(0.05)
    await api("publish", channel="private:a", data=1)
    assert (await heard("publication")).pub.data == 1
    # Both were refreshed on the first connection.
    assert (own.seen("connecting"), heard.seen("subscribing")) == (1, 1)


async def expiry():
    async def connection():
        return sign(sub="42", exp=seconds(600))

    async def subscription(_channel):
        return grant(42, "private:a")

    own = Heard()
    ada = Client(
        SOCKET, events=own.client(), token=sign(sub="42", exp=seconds(-1)), get_token=connection
    )
    await ada.connect()
    await own("connected")
    token = grant(42, "private:a", -1)
    _, heard = await subscribe(ada, "private:a", token=token, get_token=subscription)
    await heard("subscribed")
    own.forget()
    await api("refresh", user="42", expired=True)
    assert (await own("connecting")).code == 3005
    await own("connected")
    await heard("subscribed")
    await api("publish", channel="private:a", data=1)
    assert (await heard("publication")).pub.data == 1


async def backend():
    own = Heard()
    ada = await connect(42, own)
    await api("subscribe", user="42", channel="news:b")
    assert (await own("subscribed")).channel == "news:b"
    # This SDK has no event for what is outside of channels, and must take no harm from it.
    await api("send_to_user", user=42, data={"type": "notification"})
    await api("broadcast_all", data=[1])
    await api("publish", channel="news:b", data=1)
    assert (await own("publication")).pub.data == 1
    await api("unsubscribe", user="42", channel="news:b")
    assert (await own("unsubscribed")).channel == "news:b"

    news, heard = await subscribe(ada, "news:a")
    await heard("subscribed")
    await api("unsubscribe", user="42", channel="news:a")
    unsubscribed = await heard("unsubscribed")
    assert (unsubscribed.code, unsubscribed.reason) == (2000, "server unsubscribe")
    await news.subscribe()
    await heard("subscribed")


async def disconnects():
    own = Heard()
    ada = await connect(42, own)
    _, heard = await subscribe(ada, "news:a")
    await heard("subscribed")
    await api("disconnect", user="42")
    disconnected = await own("disconnected")
    assert (disconnected.code, disconnected.reason) == (3503, "force disconnect")
    await ada.connect()
    await heard("subscribed")
    await ada.disconnect()
    assert (await own("disconnected")).code == 0
    await ada.connect()
    await heard("subscribed")
    await api("publish", channel="news:a", data=1)
    assert (await heard("publication")).pub.data == 1
    own.forget()
    os.kill(int(os.environ["FANFARE_PID"]), signal.SIGTERM)
    assert (await own("connecting")).code == 3001


class Heard:
    """Events of a client or subscription; a call waits for the next of a name."""

    def __init__(self):
        self.events = {}

    async def __call__(self, name):
        return await self.of(name).get()

    def seen(self, name):
        return self.of(name).qsize()

    def forget(self):
        self.events = {}

    def of(self, name):
        return self.events.setdefault(name, asyncio.Queue())

    def client(self):
        return self.handler(ClientEventHandler)

    def subscription(self):
        return self.handler(SubscriptionEventHandler)

    def handler(self, base):
        def note(name):
            async def handle(_self, context):
                self.of(name).put_nowait(context)

            return handle

        names = [name for name in vars(base) if name.startswith("on_")]
        return type("Notes", (base,), {name: note(name[3:]) for name in names})()


async def connect(user, heard=None, **claims):
    """A client that is connected as a user."""
    events = (heard or Heard()).client()
    token = sign(sub=str(user), **claims)
    # Late enough that what is published after a cut is missed.
    client = Client(SOCKET, events=events, token=token, min_reconnect_delay=0.5)
    await client.connect()
    await client.ready()
    return client


async def subscribe(client, channel, **options):
    """A subscription that is there, and what it hears."""
    heard = Heard()
    subscription = client.new_subscription(channel, events=heard.subscription(), **options)
    await subscription.subscribe()
    await subscription.ready()
    return subscription, heard


def grant(user, channel, ttl=600):
    return sign(sub=str(user), channel=channel, exp=seconds(ttl))


def sign(**claims):
    return jwt.encode(claims, os.environ["FANFARE_AUTH_HMAC_SECRET"], algorithm="HS256")


def seconds(from_now):
    """The time in so many seconds, as tokens have it."""
    return int(time.time()) + from_now


async def api(method, **body):
    headers = {"X-API-Key": os.environ["FANFARE_API_KEY"]}
    async with httpx.AsyncClient(base_url=URL, headers=headers) as client:
        return (await client.post(f"/api/{method}", json=body)).json()["result"]


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
