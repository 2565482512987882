"""The HTTP interface: OpenAI's routes under /v1, feedback, the guards alone, health, metrics.

Covered: routes and streams. Not covered: what requests and replies look like (`wire`), who may ask (`gateway`), making
a reply (`service`), the page (`page`). Interactive documentation is not mounted, since it would load its script from
elsewhere; `/openapi.json` is there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match

from medtune.serving import wire
from medtune.serving.errors import ServingError, add_handlers
from medtune.serving.gateway import Access, Gateway
from medtune.serving.service import Answer, Ask, Service
from medtune.serving.store import Store
from medtune.types import Reply

EVENT_STREAM = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# FastAPI could hand requests, texts included, to a collector named in the environment.
NO_TELEMETRY: Any = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)

v1 = APIRouter(
    prefix="/v1",
    responses={code: {"model": wire.ErrorBody} for code in (400, 401, 403, 404, 413, 429, 503)},
)
status = APIRouter()
nothing = APIRouter(prefix="/v1", include_in_schema=False)


def create_app(
    service: Service,
    access: Access | None = None,
    *,
    hosts: frozenset[str] = frozenset(),
    ping_seconds: float | None = 15.0,
) -> FastAPI:
    """The application. `hosts` are the names that it answers to (all if empty); None switches the pings off."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(service.watch())
        yield
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await service.aclose()

    app = FastAPI(
        title="medtune",
        description="A guarded medical assistant behind OpenAI's chat interface.",
        docs_url=None, redoc_url=None, lifespan=lifespan, telemetry=NO_TELEMETRY,
    )  # fmt: skip
    app.state.service, app.state.access, app.state.ping_seconds = service, access or Access(), ping_seconds
    app.include_router(v1)
    app.include_router(status)
    app.include_router(nothing)
    add_handlers(app)
    app.add_middleware(Gateway, metrics=service.metrics, hosts=hosts)
    return app


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


def _owner(scope: str) -> Any:
    """A dependency: the id of the key that asks."""

    async def owner(request: Request) -> str:
        access: Access = request.app.state.access
        return access.check(request, scope)

    return Depends(owner)


Serving = Annotated[Service, Depends(_service)]
ChatOwner = Annotated[str, _owner("chat")]
FeedbackOwner = Annotated[str, _owner("feedback")]


@v1.get("/models")
async def models(service: Serving, _: ChatOwner) -> dict[str, Any]:
    """Every served run is a model."""
    return {"object": "list", "data": [wire.model_card(run.id, run.created) for run in service.served.values()]}


@v1.get("/models/{id:path}")
async def model(id: str, service: Serving, _: ChatOwner) -> dict[str, Any]:
    """One of them."""
    run = service.run(id)
    return wire.model_card(run.id, run.created)


@v1.post("/chat/completions")
async def chat(body: wire.ChatRequest, request: Request, service: Serving, owner: ChatOwner) -> Response:
    """The guarded reply to a conversation; whole, or as a stream of server-sent events."""
    run = service.run(body.model)
    ask = Ask(
        run.id,
        wire.messages_of(body),
        wire.sampling_of(body, run.max_new_tokens),
        (body.metadata and body.metadata.conversation) or "",
        owner,
    )
    answer = service.start(ask)
    if not body.stream:
        reply = await _or_gone(request, answer)
        if reply is None:
            return Response(status_code=499)
        return _json(wire.completion(answer.id, run.id, reply, _extra(answer, reply)))
    options = body.stream_options or wire.StreamOptions()
    chunks = wire.Chunks(answer.id, run.id, options.include_usage)
    return _EventStream(answer, _frames(answer, chunks, request.app.state.ping_seconds))


@v1.post("/guard")
async def guard(body: wire.GuardRequest, service: Serving, _: ChatOwner) -> dict[str, Any]:
    """What the guards say of a conversation; nothing is generated."""
    verdicts = await service.guard(body.model, wire.messages_of(body))
    return {"object": "guard", "model": body.model, "verdicts": [wire.verdict_object(verdict) for verdict in verdicts]}


@v1.post("/feedback")
async def feedback(body: wire.FeedbackRequest, service: Serving, owner: FeedbackOwner) -> dict[str, Any]:
    """What a reader thinks of a stored reply; a second one replaces the first."""
    message = body.message_id.removeprefix("chatcmpl-").lower()

    def add(store: Store) -> str | None:
        return store.add_feedback(message, body.rating, body.reason, body.correction, consent=body.consent, owner=owner)

    if (id := await service.in_store(add)) is None:
        raise ServingError(404, "There is no stored reply of that id.", param="message_id")
    return {"id": id, "object": "feedback", "message_id": message}


@v1.delete("/conversations/{id}")
async def delete(id: Annotated[str, Path(pattern=wire.UUID)], service: Serving, owner: FeedbackOwner) -> dict[str, Any]:
    """Delete a stored conversation with everything that hangs on it."""
    if not await service.in_store(lambda store: store.delete(id.lower(), owner)):
        raise ServingError(404, "There is no stored conversation of that id.", param="id")
    return {"id": id, "object": "conversation", "deleted": True}


@status.get("/healthz")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@status.get("/readyz", responses={503: {"description": "An engine is away."}})
async def ready(service: Serving) -> JSONResponse:
    """Every engine has given a token lately."""
    away = service.away
    state = "starting" if away is None else "engine away" if away else "ready"
    return JSONResponse({"status": state, "away": list(away or ())}, 200 if state == "ready" else 503)


@status.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: Serving, _: Annotated[str, _owner("metrics")]) -> Response:
    """For Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


@nothing.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE"])
async def missing(request: Request, path: str) -> None:
    """What no route takes: the page, which is mounted at the root, must not answer for the API."""
    routes = (r for r in v1.routes if r.matches({**request.scope, "path_params": {}})[0] is Match.PARTIAL)
    if allowed := sorted({method for route in routes for method in getattr(route, "methods", ())}):
        message = f"{request.method} is not allowed on /v1/{path[:100]}."
        raise HTTPException(405, message, {"Allow": ", ".join(allowed)})
    raise HTTPException(404, f"There is nothing at /v1/{path[:100]}.")


class _EventStream(StreamingResponse):
    """Server-sent events that close their answer however they end, even before the first one."""

    def __init__(self, answer: Answer, frames: AsyncIterator[str]) -> None:
        super().__init__(frames, media_type="text/event-stream", headers=EVENT_STREAM)
        self.answer = answer

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            self.answer.close()


async def _frames(answer: Answer, chunks: wire.Chunks, ping_seconds: float | None) -> AsyncIterator[str]:
    """Chunks, pings while nothing comes, [DONE]; an error is the last frame."""
    first = _frame(chunks.role())
    try:
        async for events in answer.batches(ping_seconds):
            if not events:
                yield ": ping\n\n"
                continue
            frames = [_frame(chunk) for event in events if (chunk := chunks.event(event))]
            if (reply := events[-1].reply) is not None:
                frames += [_frame(chunk) for chunk in chunks.end(reply, _extra(answer, reply))]
                frames.append("data: [DONE]\n\n")
            yield first + "".join(frames)
            first = ""
    except ServingError as error:
        yield _frame(error.body)


async def _or_gone(request: Request, answer: Answer) -> Reply | None:
    """The reply, or None as soon as the client has gone away."""
    reply, gone = asyncio.ensure_future(answer.reply()), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({reply, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await reply if reply.done() else None
    finally:
        answer.close()
        for task in (reply, gone):
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _extra(answer: Answer, reply: Reply) -> dict[str, Any]:
    ids = {"message_id": answer.id, "conversation_id": answer.conversation, "is_stored": answer.is_stored}
    return wire.medtune_object(reply, **ids)


_dump = partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _frame(value: Mapping[str, Any]) -> str:
    return f"data: {_dump(value)}\n\n"


def _json(value: Mapping[str, Any]) -> Response:
    return Response(_dump(value), media_type="application/json")
