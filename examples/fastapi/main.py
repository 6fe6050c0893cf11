"""A blog whose authors hear at once, in every tab, that someone liked a post of theirs.

Browsers connect to fanfare; this application pushes to it over HTTP.
"""

import asyncio
import os
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import jwt
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

FANFARE_URL = os.environ.get("FANFARE_URL", "http://127.0.0.1:8080")
FANFARE_API_KEY = os.environ["FANFARE_API_KEY"]
SECRET = os.environ["FANFARE_AUTH_HMAC_SECRET"]

POSTS = {7: {"author_id": 42, "title": "On looms"}}


@asynccontextmanager
async def lifespan(app: FastAPI):
    # One client for all requests keeps its connections to fanfare open.
    headers = {"X-API-Key": FANFARE_API_KEY}
    async with httpx.AsyncClient(base_url=FANFARE_URL, headers=headers) as client:
        app.state.fanfare = client
        yield


app = FastAPI(lifespan=lifespan)


def current_user(
    bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())],
) -> dict:
    # fanfare takes numbers as well as strings for `sub`; PyJWT by itself strings alone.
    options = {"require": ["exp", "sub"], "verify_sub": False}
    try:
        return jwt.decode(bearer.credentials, SECRET, algorithms=["HS256"], options=options)
    except jwt.InvalidTokenError as error:
        raise HTTPException(401, "invalid token") from error


@app.post("/posts/{post_id}/like")
async def like_post(
    post_id: int,
    user: Annotated[dict, Depends(current_user)],
    background: BackgroundTasks,
) -> dict:
    post = POSTS.get(post_id)
    if post is None:
        raise HTTPException(404, "no such post")
    author = post["author_id"]
    if str(author) != str(user["sub"]):
        notification = {
            "type": "notification",
            "event": "post_liked",
            "post_id": post_id,
            "post_title": post["title"],
            "liked_by": user.get("name", f"User {user['sub']}"),
        }
        # A like neither waits for its notification nor fails with it.
        background.add_task(send_to_user, app.state.fanfare, author, notification)
    return {"liked": True}


async def send_to_user(fanfare: httpx.AsyncClient, user: int | str, data: dict) -> None:
    """Sends to every tab of a user."""
    for _ in range(ATTEMPTS):
        answer = await fanfare.post("/api/send_to_user", json={"user": user, "data": data})
        if answer.status_code != 503:
            break
        # A 503 says that nothing was delivered, so that trying again cannot notify twice.
        await asyncio.sleep(float(answer.headers["Retry-After"]))
    answer.raise_for_status()


ATTEMPTS = 3
