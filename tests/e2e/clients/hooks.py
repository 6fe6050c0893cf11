"""Talks in a chat at the first argument that an application moderates, and asks that about it by the
Centrifuge protocol at the second."""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect

ADA, GRACE = os.environ["ADA"], os.environ["GRACE"]


async def main(chat, endpoint):
    async with connect(f"{chat}?token={ADA}") as ada, connect(endpoint) as grace:
        await say(ada, "darn it")
        assert (await receive(ada, "message"))["body"] == "**** it"
        await say(ada, "buy now")
        refusal = {"type": "error", "code": 1001, "message": "no advertising"}
        assert await receive(ada, "error") == refusal

        await grace.send(json.dumps({"id": 1, "connect": {"token": GRACE}}))
        assert "connect" in json.loads(await grace.recv())
        assert await call(grace, "said") == {"data": [{"user": "42", "body": "**** it"}]}
        # It is told of who comes a moment after they are in.
        while await call(grace, "present") != {"data": ["42", "43"]}:
            pass
        await ada.close()
        while await call(grace, "present") != {"data": ["43"]}:
            pass


async def say(chat, body):
    await chat.send(json.dumps({"type": "message", "body": body}))


async def receive(chat, kind):
    """The next message of a kind."""
    while (message := json.loads(await chat.recv()))["type"] != kind:
        pass
    return message


async def call(client, method):
    """The result of a call, past pushes."""
    await client.send(json.dumps({"id": 2, "rpc": {"method": method}}))
    while True:
        for line in (await client.recv()).splitlines():
            if "rpc" in (reply := json.loads(line)):
                return reply["rpc"]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
