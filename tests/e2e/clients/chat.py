"""Plays a scenario, named by the argument, with PyPI's websockets."""

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = os.environ["FANFARE_URL"]
CHAT = URL.replace("http", "ws", 1) + "/ws/chat"
ADA, GRACE = os.environ["ADA"], os.environ["GRACE"]


async def tokens():
    for socket, subprotocol in [
        (connect(f"{CHAT}?token={ADA}"), None),
        (connect(CHAT, additional_headers={"Authorization": f"Bearer {ADA}"}), None),
        (connect(CHAT, subprotocols=["fanfare", ADA]), "fanfare"),
    ]:
        async with socket as tab:
            assert tab.subprotocol == subprotocol
            await expect(tab, {"type": "user_joined", "user_id": 42, "name": "Ada", "count": 1})


async def chat():
    async with two_users() as (ada, second, grace):
        await grace.send('{"type":"message","body":{"text": "Grüße"}}')
        said = '{"type":"message","user_id":43,"name":"Grace","body":{"text": "Grüße"}}'
        for tab in (ada, second, grace):
            assert await tab.recv() == said
        await ada.send('{"type":"ping"}')
        await expect(ada, {"type": "pong"})
        await second.close()
        await grace.close()
        await expect(ada, {"type": "user_left", "user_id": 43, "name": "Grace", "count": 1})


async def push():
    notification = {"type": "notification", "event": "hello"}
    everyone = {"type": "notification", "event": "hello, all"}
    async with two_users() as (ada, second, grace):
        assert await api("send_to_user", user=42, data=notification) == {"connections": 2}
        assert await api("broadcast_all", data=everyone) == {"connections": 3}
        for tab in (ada, second):
            await expect(tab, notification)
        for tab in (ada, second, grace):
            await expect(tab, everyone)


async def ping():
    async with connect(f"{CHAT}?token={ADA}") as tab:
        await (await tab.ping(b"are you there"))


async def refused():
    for url in (CHAT, f"{CHAT}?token=nonsense"):
        async with connect(url) as tab:
            await expect_close(tab, 1008, "Invalid token")


async def disconnected():
    async with two_users() as (ada, second, grace):
        await api("disconnect", user=42)
        for tab in (ada, second):
            await expect_close(tab, 3503, "force disconnect")
        await expect(grace, {"type": "user_left", "user_id": 42, "name": "Ada", "count": 1})


async def drained():
    async with two_users() as tabs:
        os.kill(int(os.environ["FANFARE_PID"]), signal.SIGTERM)
        for tab in tabs:
            await expect_close(tab, 3001, "shutdown")


@asynccontextmanager
async def two_users():
    """Ada in two tabs, then Grace; who came is told and read."""
    ada_joined = {"type": "user_joined", "user_id": 42, "name": "Ada", "count": 1}
    grace_joined = {"type": "user_joined", "user_id": 43, "name": "Grace", "count": 2}
    async with connect(f"{CHAT}?token={ADA}") as ada:
        await expect(ada, ada_joined)
        async with connect(f"{CHAT}?token={ADA}") as second:
            # A further tab is announced to itself alone.
            await expect(second, ada_joined)
            async with connect(f"{CHAT}?token={GRACE}") as grace:
                for tab in (ada, second, grace):
                    await expect(tab, grace_joined)
                yield ada, second, grace


async def expect(tab, message):
    assert await tab.recv() == json.dumps(message, separators=(",", ":")), message


async def expect_close(tab, code, reason):
    try:
        raise AssertionError(await tab.recv())
    except ConnectionClosed as closed:
        assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed


async def api(method, **body):
    headers = {"X-API-Key": os.environ["FANFARE_API_KEY"]}
    async with httpx.AsyncClient(base_url=URL, headers=headers) as client:
        return (await client.post(f"/api/{method}", json=body)).json()["result"]


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
