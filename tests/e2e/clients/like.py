"""Likes a post of the application at the first argument; its author has two tabs at the second."""

import asyncio
import json
import os
import sys

import httpx
from websockets.asyncio.client import connect

AUTHOR, READER = os.environ["ADA"], os.environ["GRACE"]


async def main(app, chat):
    url = f"{chat}?token={AUTHOR}"
    async with connect(url) as first, connect(url) as second, httpx.AsyncClient(base_url=app) as http:
        for tab in (first, second):
            # Only what is connected is told, and joining says so.
            await receive(tab, "user_joined")
        assert await like(http, 7, "nonsense") == (401, None)
        assert await like(http, 8, READER) == (404, None)
        # Who likes their own post knows: the first to be told of is the reader's.
        assert await like(http, 7, AUTHOR) == (200, {"liked": True})
        assert await like(http, 7, READER) == (200, {"liked": True})
        notification = {
            "type": "notification",
            "event": "post_liked",
            "post_id": 7,
            "post_title": "On looms",
            "liked_by": "Grace",
        }
        for tab in (first, second):
            assert await receive(tab, "notification") == notification


async def receive(tab, kind):
    """The next message of a kind."""
    while (message := json.loads(await tab.recv()))["type"] != kind:
        pass
    return message


async def like(http, post, token):
    headers = {"Authorization": f"Bearer {token}"}
    answer = await http.post(f"/posts/{post}/like", headers=headers)
    return answer.status_code, answer.json() if answer.is_success else None


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
