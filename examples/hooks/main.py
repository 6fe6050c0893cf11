"""A chat whose application moderates what is said, keeps it, and knows who is there.

fanfare asks it before a message goes out, and tells it who comes and goes.
"""

import hashlib
import hmac
import json
import os
import time
from collections import deque
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

SECRET = os.environ["FANFARE_HOOK_SECRET"].encode()

# These stand for a database.
said: deque[dict] = deque(maxlen=100)
present: set[str] = set()
heard: dict[str, int] = {}
seen: dict[str, int] = {}

app = FastAPI()


async def signed(request: Request) -> dict:
    """The body, if it is from who knows the secret, and not an old one again."""
    body = await request.body()
    timestamp = request.headers.get("x-fanfare-timestamp", "")
    digest = hmac.new(SECRET, f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    signature = request.headers.get("x-fanfare-signature", "")
    if not hmac.compare_digest(f"sha256={digest}".encode(), signature.encode()):
        raise HTTPException(401, "the signature does not match; compare the secrets")
    if abs(time.time() - int(timestamp)) > AGE_MAX:
        raise HTTPException(401, "the request is too old; compare the clocks")
    return json.loads(body)


@app.post("/hook")
async def hook(call: Annotated[dict, Depends(signed)]) -> dict:
    match call["call"]:
        case "publish":
            return moderate(call)
        case "rpc":
            return answer(call)
        case "notices":
            take(call)
    return {}


def moderate(call: dict) -> dict:
    data = call["data"]
    body = data.get("body") if isinstance(data, dict) else None
    if not isinstance(body, str):
        return {"error": {"code": 1000, "message": "say something"}}
    if "buy now" in body:
        return {"error": {"code": 1001, "message": "no advertising"}}
    data["body"] = body.replace("darn", "****")
    said.append({"user": call["user"], "body": data["body"]})
    return {"result": {"data": data}}


def answer(call: dict) -> dict:
    match call["method"]:
        case "said":
            return {"result": {"data": list(said)}}
        case "present":
            return {"result": {"data": sorted(present)}}
    return {"error": {"code": 404, "message": "unknown method; use said or present"}}


def take(call: dict) -> None:
    node = call["node"]
    if node not in seen and not SEVERAL_NODES:
        # The only node has started again, and everybody connects anew.
        seen.clear()
        heard.clear()
        present.clear()
    for notice in call["notices"]:
        # What comes again has been taken already.
        if notice["number"] <= seen.get(node, 0):
            continue
        seen[node] = notice["number"]
        # What another node said later may have come before.
        if notice["at"] < heard.get(notice.get("user"), 0):
            continue
        match notice["notice"]:
            case "user_joined":
                present.add(notice["user"])
                heard[notice["user"]] = notice["at"]
            case "user_left":
                present.discard(notice["user"])
                heard[notice["user"]] = notice["at"]


# Whether nodes share a broker: then who was on one that ends is told as gone by another.
SEVERAL_NODES = os.environ.get("SEVERAL_NODES") == "1"

# Seconds that a request may be old.
AGE_MAX = 60
