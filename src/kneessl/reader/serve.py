"""`kneessl serve`: a web page that takes knee studies and shows what a model says of them."""

import os
import secrets
import socket
import tempfile
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path

from kneessl.errors import UserError

TOKEN = "KNEESSL_TOKEN"
PACKAGES = ("fastapi", "uvicorn", "python_multipart")
_LAST_PORT = 65535
_LAST_SECONDS = 5
"""How long the server waits for requests under way when it stops."""


def serve(
    model: Path, host: str = "127.0.0.1", port: int = 8000, store: Path | None = None, keep_hours: float = 24.0
) -> None:
    """Show a web page that takes knee studies, answers them, and lets a reader check the answers.

    What is uploaded is deleted as soon as it is answered, and the answers, which hold slices, some time after. No
    request leaves the page's own server. Where other computers can reach it, a token is needed: that of the environment
    variable KNEESSL_TOKEN, or one that is made and printed once.

    Args:
        model: Run folder of `kneessl finetune` or `kneessl fuse`.
        host: Address to listen on; by default this computer only.
        port: Port to listen on; 0 takes any that is free.
        store: Folder that keeps studies when the server stops; by default a private one that goes with it.
        keep_hours: For how long an answered study stays.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f'{" and ".join(missing)} missing for the page; run `pip install "kneessl[reader]"` first')
    if not keep_hours > 0:
        raise UserError(f"--keep_hours is {keep_hours}; give a number of hours above 0")
    from kneessl.reader.answer.assess import Assessor
    from kneessl.reader.web.app import create_app
    from kneessl.reader.web.security import Access, is_loopback
    from kneessl.reader.web.store import Store
    from kneessl.sources.limits import Limits

    given = os.environ.get(TOKEN)
    access = Access(host, given or (None if is_loopback(host) else secrets.token_urlsafe(24)))
    with closing(bound_socket(host, port)) as listener:
        assessor = Assessor(model)
        folder = store or Path(tempfile.mkdtemp(prefix="kneessl-"))
        with closing(Store(folder, keep_hours, temporary=store is None)) as studies:
            listener.listen()  # a browser may connect as soon as the address is printed
            print(f"kneessl serve: {page_address(listener)} (Ctrl-C stops it)", flush=True)
            if access.token is not None:
                print(f"token: {access.token}" if given is None else f"token: that of {TOKEN}", flush=True)
            if not is_loopback(host):
                print("note: this is HTTP; put a proxy with TLS before it wherever others can listen in", flush=True)
            run_server(create_app(assessor, studies, access, Limits()), listener)


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not yet listening.

    Raises:
        UserError: no such port or address, or it cannot be bound.
    """
    if not 0 <= port <= _LAST_PORT:
        raise UserError(f"--port is a number from 0 to {_LAST_PORT}, not {port}")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        raise UserError(f"this computer has no address {host} to listen on; name another with --host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        listener.close()
        reason = (error.strerror or type(error).__name__).lower()
        raise UserError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from None
    return listener


def page_address(listener: socket.socket) -> str:
    """The page's address for a browser on this computer."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run_server(app: object, listener: socket.socket) -> None:
    """Answer requests until somebody stops the program."""
    import uvicorn

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
