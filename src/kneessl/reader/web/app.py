"""The application of `kneessl serve`: the pieces of this package, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from kneessl import __version__
from kneessl.reader.answer.assessment import NOTICE, ModelFacts
from kneessl.reader.web import schema
from kneessl.reader.web.pages import STATIC, pages_router
from kneessl.reader.web.routes import answers_router, studies_router
from kneessl.reader.web.security import Access, Guard
from kneessl.reader.web.store import Store
from kneessl.reader.web.worker import Engine, Worker
from kneessl.sources.limits import Limits
from kneessl.sources.volume import DISPLAY

MOST_WAITING = 20
"""Studies; the next one is told to come back later."""
_GZIP_LEVEL = 1
"""Slices have to be there at once, and higher levels save little."""
_LAST_SECONDS = 10.0
"""How long the server waits for the study under way when it stops."""


def create_app(
    engine: Engine, store: Store, access: Access, limits: Limits, most_waiting: int = MOST_WAITING
) -> FastAPI:
    """Make the application.

    Args:
        engine: Answers studies.
        store: Where studies lie; closed when the application stops.
        access: Who may use it.
        limits: On uploads.
        most_waiting: Studies that may wait at once.
    """
    worker = Worker(engine, store, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        await run_in_threadpool(worker.stop, _LAST_SECONDS)
        store.close()

    app = FastAPI(
        title="kneessl",
        version=__version__,
        description=f"Takes knee MR studies, and says what a model sees in them. {NOTICE}",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=_GZIP_LEVEL)
    app.add_middleware(Guard, access=access)  # outermost: it sees all that comes and goes
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.include_router(studies_router(store, worker, limits, most_waiting))
    app.include_router(answers_router(store))
    app.include_router(pages_router(access))
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.get("/api/server", tags=["server"])
    def server() -> schema.Server:
        """What answers here, and what it takes."""
        return schema.Server(
            version=__version__,
            notice=NOTICE,
            model=_model(engine.facts),
            limits=schema.ServerLimits(
                files=limits.files, bytes=limits.bytes, file_bytes=limits.file_bytes, waiting=most_waiting
            ),
            keep_hours=store.keep.total_seconds() / 3600,
            directions=DISPLAY,
        )

    return app


def _model(facts: ModelFacts) -> schema.Model:
    return schema.Model(**asdict(facts), training_data_sha256=dict(facts.data_sha256))


async def _not_understood(_: Request, error: Exception) -> JSONResponse:
    """Name the parameters of a request that are wrong, without quoting their values."""
    wrong = error.errors() if isinstance(error, RequestValidationError) else []
    names = ", ".join(str(one["loc"][-1]) for one in wrong)
    return JSONResponse({"detail": f"The request is not valid: check {names}; /docs describes the parameters."}, 422)
