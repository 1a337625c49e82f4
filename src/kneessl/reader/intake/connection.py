"""HTTP to an archive: credentials from the environment, certificates checked, answers taken in pieces.

No error contains an address, a credential or the archive's own text: each of them may identify a person.
"""

import ipaddress
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

from kneessl.errors import UserError

try:
    import requests
    from requests.adapters import HTTPAdapter
    from requests.auth import AuthBase, HTTPBasicAuth
    from urllib3.util import Retry
except ModuleNotFoundError:
    raise UserError('requests missing for archives; run `pip install "kneessl[reader]"` first') from None

_CHUNK = 2**20
_TIMEOUTS_S = (10, 300)
"""Time to connect, and between two pieces of an answer: an archive may have to fetch a study from tape."""
_AGAIN = Retry(1, status=0, respect_retry_after_header=False)
"""An idle connection may be closed just as it is used again. Only GET is repeated, and `Retry-After` is ignored."""
_LARGEST_JSON = 64 * 2**20


class UnreachableError(UserError):
    """The archive does not answer, or broke off: it may do so later."""


class MissingError(UserError):
    """The archive does not have what it was asked for."""


class Connection:
    """Requests to one archive.

    Args:
        address: `http(s)://host[:port]/path` that all paths are below.
        credentials: What the names of the environment's variables begin with: `_TOKEN` is sent as a bearer, else
            `_USER` and `_PASSWORD` as basic authentication.

    Raises:
        UserError: not an address, it contains credentials, or they would go unencrypted to another machine.
    """

    def __init__(self, address: str, credentials: str) -> None:
        parts = _parts(address)
        local = _is_loopback(parts.hostname or "")
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its warnings quote the address
        self.address = address.rstrip("/")
        self._variables = credentials
        self._session = requests.Session()
        self._session.auth = _authentication(credentials)
        self._session.headers["Accept-Encoding"] = "identity"
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=_AGAIN))
        self._proxies = {"no_proxy": parts.hostname or ""} if local else {}
        if parts.scheme == "http" and not local and not isinstance(self._session.auth, _NoCredentials):
            raise UserError(
                "the credentials would go unencrypted to another machine; give an https address, or that of a tunnel"
            )

    def json(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        """What the archive answers, as JSON.

        Raises:
            UserError: as `stream`, or the answer is not JSON, or is longer than 64 MiB.
        """
        answer = bytearray()
        with self.stream(path, method=method, body=body) as (_, pieces):
            for piece in pieces:
                answer += piece
                if len(answer) > _LARGEST_JSON:
                    raise UserError("the archive's answer is too long; is the address right?")
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise UserError(
                "the archive does not answer as one does: its answer is not JSON; check its address"
            ) from None

    @contextmanager
    def stream(
        self, path: str, accept: str = "*/*", method: str = "GET", body: bytes | None = None
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """The headers of the archive's answer, and its content in pieces.

        Raises:
            MissingError: the archive does not have it.
            UnreachableError: no answer, or one that breaks off.
            UserError: any other refusal.
        """
        with _translated_errors():
            response = self._session.request(
                method,
                self.address + path,
                data=body,
                headers={"Accept": accept},
                stream=True,
                timeout=_TIMEOUTS_S,
                allow_redirects=False,  # elsewhere is not where the user sent the credentials
                proxies=self._proxies,
            )
        with response:
            self._require_success(response.status_code)
            yield response.headers, _pieces(response)

    def _require_success(self, status: int) -> None:
        if 200 <= status < 300:
            return
        if status in {401, 403}:
            raise UserError(
                f"the archive refuses access (status {status}); set {self._variables}_USER and "
                f"{self._variables}_PASSWORD (or {self._variables}_TOKEN) in the environment"
            )
        if status in {404, 410}:
            raise MissingError(f"the archive does not have this (status {status})")
        if status >= 500 or status == 429:
            raise UnreachableError(f"the archive cannot answer now (status {status})")
        raise UserError(f"the archive answers with status {status}; is the address right?")


def _pieces(response: requests.Response) -> Iterator[bytes]:
    pieces = response.iter_content(_CHUNK)
    while True:
        with _translated_errors():
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn errors of `requests`, whose texts quote the address, into our own."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise UserError(
            "the archive's certificate is not trusted; name the file of your own authority in REQUESTS_CA_BUNDLE"
        ) from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        raise UnreachableError("the archive does not answer, or broke off") from None
    except (requests.RequestException, ValueError):
        raise UserError("the request to the archive failed; check its address and the credentials") from None


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise UserError("this is not the address of an archive; give one such as https://host:port/dicom-web") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not re.fullmatch(r"[\x21-\x7e]+", address):
        raise UserError("this is not the address of an archive; give one such as https://host:port/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise UserError("the archive's address carries credentials, which end up in logs; set them in the environment")
    if parts.query or parts.fragment:
        raise UserError("the archive's address has a ? or #; give it without")
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _NoCredentials(AuthBase):
    """No credentials, not even from ~/.netrc, where `requests` looks unless it is given an authentication."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _authentication(variables: str) -> AuthBase:
    token = os.environ.get(f"{variables}_TOKEN", "").strip()
    user = os.environ.get(f"{variables}_USER", "")
    password = os.environ.get(f"{variables}_PASSWORD", "")
    if token:
        return _Bearer(token)
    return HTTPBasicAuth(user.encode(), password.encode()) if user else _NoCredentials()
