"""A web service that answers by a versioned prompt: one lab and one client for the life of the application.

    pip install 'promptab[openai,server]'
    python examples/fastapi_app.py --local
    curl localhost:8000/reply -H 'content-type: application/json' -d '{"user": "u42", "question": "Where is it?"}'

With a key: OPENAI_API_KEY=... uvicorn --app-dir examples fastapi_app:app. The store is the one that PROMPTAB_URL names.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from local_provider import openai_client
from pydantic import BaseModel

import promptab
from promptab import NotFoundError, StoreUnavailableError


class Question(BaseModel):
    user: str
    question: str


class Reply(BaseModel):
    text: str
    call_id: str


class Feedback(BaseModel):
    call_id: str
    rating: float


def create_app(*, local: bool = False) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = openai_client(local=local, answer=lambda asked: "It comes on Friday.")
        async with client as app.state.client, promptab.open() as app.state.lab:
            # a deployment script would do this once; here, so that there is something to serve
            version = await app.state.lab.versions.create_version(
                "reply",
                "system",
                "You help a customer of our shop. Two sentences at most.",
                config={"model": "gpt-4.1-mini"},
                if_changed=True,
            )
            await app.state.lab.versions.promote(version.version_id, reason="start of the application")
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/reply")
    async def reply(asked: Question, request: Request) -> Reply:
        done = await request.app.state.lab.complete(
            "reply",
            user_id=asked.user,
            client=request.app.state.client,
            messages=[{"role": "user", "content": asked.question}],
            # served while the store has never been reached; it counts for no version
            fallback="You help a customer.",
        )
        return Reply(text=done.text, call_id=done.call_id)

    @app.post("/feedback", status_code=204)
    async def feedback(given: Feedback, request: Request) -> None:
        try:
            await request.app.state.lab.feedback(given.call_id, rating=given.rating)
        except NotFoundError as error:
            raise HTTPException(404, str(error)) from error
        except StoreUnavailableError as error:
            raise HTTPException(503, "try again later") from error

    return app


app = create_app()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer questions over HTTP.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--local", action="store_true", help="ask a provider on this machine, without a key")
    arguments = parser.parse_args()
    uvicorn.run(create_app(local=arguments.local), port=arguments.port)
