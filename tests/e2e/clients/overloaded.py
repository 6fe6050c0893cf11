"""Has the FastAPI application at the argument push to a server that has no room at first."""

import asyncio
import sys

import httpx


async def main():
    from main import send_to_user

    answers = [
        httpx.Response(503, headers={"Retry-After": "0"}),
        httpx.Response(200, json={"result": {"connections": 2}}),
    ]
    transport = httpx.MockTransport(lambda request: answers.pop(0))
    async with httpx.AsyncClient(base_url="http://fanfare", transport=transport) as client:
        await send_to_user(client, 42, {"type": "notification"})
    assert answers == []


if __name__ == "__main__":
    sys.path.append(sys.argv[1])
    asyncio.run(main())
