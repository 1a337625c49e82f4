"""The pages: the reader's, the form for the token, and the description of the REST interface."""

from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, RedirectResponse

from kneessl.reader.web.security import COOKIE, Access

STATIC = Path(str(files("kneessl.reader.web"))) / "static"
_FORM_BYTES = 4096


def pages_router(access: Access) -> APIRouter:
    """The routes of the pages.

    Args:
        access: Whose token the form takes.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @router.get("/docs")
    def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    @router.get("/login")
    def form() -> FileResponse:
        # Without a referrer a form would come from the origin "null", and be refused.
        return FileResponse(STATIC / "login.html", headers={"Referrer-Policy": "same-origin"})

    @router.post("/login")
    async def login(request: Request) -> RedirectResponse:
        given = parse_qs((await _form(request)).decode("utf-8", "replace")).get("token", [""])[0]
        if not access.is_token(given.strip()):
            return RedirectResponse("/login#wrong", 303)
        response = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, access.session, httponly=True, samesite="strict", secure=secure)
        return response

    return router


async def _form(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise HTTPException(413, "The form is too long to hold a token.")
    return bytes(body)
