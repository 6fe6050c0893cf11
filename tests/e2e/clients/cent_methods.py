"""Calls every method with PyPI's cent, and sees at a client of PyPI's centrifuge-python what it does."""

import asyncio
import os

import cent
from centrifuge_scenarios import URL, Heard, connect, subscribe

API, KEY = f"{URL}/api", os.environ["FANFARE_API_KEY"]


async def main():
    own = Heard()
    ada = await connect(42, own)
    client = (await own("connected")).client
    news, heard = await subscribe(ada, "news:a")
    await heard("subscribed")
    async with cent.AsyncClient(API, KEY) as api:
        await publishing(api, heard)
        await reading(api, client)
        await at_once(api, heard)
        await faults(api)
        await steering(api, client, own, heard)
    blocking()


async def publishing(api, heard):
    async def hears(data, tags):
        publication = (await heard("publication")).pub
        assert (publication.data, publication.tags) == (data, tags), publication

    first = await api.publish(cent.PublishRequest(channel="news:a", data={"n": 1}, tags={"a": "b"}))
    assert (first.offset, len(first.epoch) > 0) == (1, True), first
    await hears({"n": 1}, {"a": "b"})
    again = cent.PublishRequest(channel="news:a", data=2, idempotency_key="once")
    assert (await api.publish(again)).offset == (await api.publish(again)).offset == 2
    await hears(2, {})
    forgotten = cent.PublishRequest(channel="news:a", data="unremembered", skip_history=True)
    assert (await api.publish(forgotten)).offset == 0
    await hears("unremembered", {})
    everywhere = cent.BroadcastRequest(channels=["news:a", "nowhere:a", "news:b"], data=[3])
    responses = (await api.broadcast(everywhere)).responses
    assert [it.error and it.error.code for it in responses] == [None, 102, None], responses
    assert [it.result and it.result.offset for it in responses] == [3, None, 1], responses
    await hears([3], {})


async def reading(api, client):
    page = await api.history(cent.HistoryRequest(channel="news:a", limit=10))
    assert [it.data for it in page.publications] == [{"n": 1}, 2, [3]], page
    assert page.publications[0].tags == {"a": "b"}
    since = cent.StreamPosition(offset=3, epoch=page.epoch)
    back = cent.HistoryRequest(channel="news:a", limit=1, since=since, reverse=True)
    assert [it.offset for it in (await api.history(back)).publications] == [2]
    presence = (await api.presence(cent.PresenceRequest(channel="news:a"))).presence
    assert presence[client].user == "42", presence
    stats = await api.presence_stats(cent.PresenceStatsRequest(channel="news:a"))
    assert (stats.num_clients, stats.num_users) == (1, 1), stats
    channels = (await api.channels(cent.ChannelsRequest(pattern="news:*"))).channels
    assert {name: it.num_clients for name, it in channels.items()} == {"news:a": 1}, channels
    [node] = (await api.info(cent.InfoRequest())).nodes
    assert (node.num_clients, node.num_users, node.num_subs) == (1, 1, 1), node


async def at_once(api, heard):
    for parallel in (False, True):
        requests = [
            cent.PublishRequest(channel="news:a", data="in a batch"),
            cent.PresenceStatsRequest(channel="news:a"),
        ]
        batch = cent.BatchRequest(requests=requests, parallel=parallel)
        published, stats = (await api.batch(batch)).replies
        assert (published.offset > 3, stats.num_clients) == (True, 1)
        assert (await heard("publication")).pub.data == "in a batch"


async def faults(api):
    for call, code in [
        (api.publish(cent.PublishRequest(channel="nowhere:a", data=1)), 102),
        (api.publish(cent.PublishRequest(channel="", data=1)), 107),
        (api.presence(cent.PresenceRequest(channel="private:a")), 108),
    ]:
        try:
            raise AssertionError(await call)
        except cent.CentApiResponseError as error:
            assert error.code == code, error
    async with cent.AsyncClient(API, "another key") as stranger:
        try:
            raise AssertionError(await stranger.info(cent.InfoRequest()))
        except cent.CentUnauthorizedError:
            pass


async def steering(api, client, own, heard):
    of_ada = {"user": "42", "client": client}
    await api.subscribe(cent.SubscribeRequest(channel="news:b", data={"hi": 1}, **of_ada))
    subscribed = await own("subscribed")
    assert (subscribed.channel, subscribed.data) == ("news:b", {"hi": 1}), subscribed
    await api.unsubscribe(cent.UnsubscribeRequest(channel="news:b", **of_ada))
    assert (await own("unsubscribed")).channel == "news:b"
    await api.unsubscribe(cent.UnsubscribeRequest(channel="news:a", user="42"))
    assert (await heard("unsubscribed")).code == 2000
    await api.history_remove(cent.HistoryRemoveRequest(channel="news:a"))
    page = await api.history(cent.HistoryRequest(channel="news:a", limit=10))
    assert (page.publications, page.offset) == ([], 5), page
    own.forget()
    await api.refresh(cent.RefreshRequest(expired=True, **of_ada))
    assert (await own("connecting")).code == 3005
    kept = (await own("connected")).client
    banned = cent.Disconnect(code=4500, reason="banned")
    but_one = cent.DisconnectRequest(user="42", whitelist=[kept], disconnect=banned)
    await api.disconnect(but_one)
    await api.disconnect(cent.DisconnectRequest(user="42", disconnect=banned))
    disconnected = await own("disconnected")
    assert (disconnected.code, disconnected.reason) == (4500, "banned"), disconnected
    assert own.seen("disconnected") == own.seen("connecting") == 0


def blocking():
    """The same by its other client."""
    api = cent.Client(API, KEY)
    assert api.publish(cent.PublishRequest(channel="news:c", data=1)).offset == 1
    [only] = api.history(cent.HistoryRequest(channel="news:c", limit=10)).publications
    assert only.data == 1


asyncio.run(main())
