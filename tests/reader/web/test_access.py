"""Who may ask `kneessl serve` what, from where, and what its pages may do."""

import pytest

pytest.importorskip("fastapi", reason="the extra `reader` is not installed")
from contextlib import ExitStack

from helpers.made import made
from helpers.serving import HERE, Engine, finished, send, served

from kneessl.errors import UserError
from kneessl.reader.web.security import Access, is_loopback

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(made(tmp_path_factory.mktemp("made")).assessment)


@pytest.fixture
def serving(engine, tmp_path):
    """Start the application with some settings."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(served(engine, tmp_path / "store", **settings))


@pytest.fixture
def client(serving):
    return serving()


@pytest.mark.parametrize("address", ["/", "/api/studies", "/static/app.js", "/login", "/docs", "/nothing-here"])
def test_every_response_forbids_the_browser_what_it_need_not_do(client, address):
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == ("same-origin" if address == "/login" else "no-referrer")
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "10.0.0.5"])
def test_on_loopback_the_server_answers_to_no_other_name(client, host):
    for address in ("/", "/api/studies", "/login"):
        assert client.get(address, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"])
def test_on_loopback_the_server_answers_to_its_own_names(client, host):
    assert client.get("/api/studies", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": HERE},
    ],
)
def test_a_page_of_another_site_changes_nothing(client, headers):
    assert send(client, headers=headers).status_code == 403
    assert client.delete("/api/studies/1", headers=headers).status_code == 403
    assert client.get("/api/studies").json() == []


@pytest.mark.parametrize("headers", [{}, {"Origin": HERE}, {"Sec-Fetch-Site": "same-origin", "Origin": HERE}])
def test_the_own_page_and_programs_may_change_things(client, headers):
    assert client.delete("/api/studies/1", headers=headers).status_code == 404


def test_elsewhere_nothing_can_be_had_without_the_token(serving):
    client = serving(host="0.0.0.0", token=TOKEN)
    for address in ("/", "/api/studies", "/api/server", "/openapi.json", "/docs", "/api/studies/1/report"):
        assert client.get(address).status_code == 401
        assert client.get(address, headers={"Authorization": "Bearer wrong-token-here"}).status_code == 401
        assert client.get(f"{address}?token={TOKEN}").status_code == 401
    assert send(client).status_code == 401
    assert client.get("/static/base.css").status_code == 200
    page = client.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (303, "/login")


def test_the_token_opens_to_programs(serving):
    client = serving(host="0.0.0.0", token=TOKEN)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    client.headers["Host"] = "knees.example:8000"  # no name is wrong where a token is needed
    assert send(client).status_code == 202
    assert finished(client)["stage"] == "done"


def test_the_form_gives_a_session_that_is_not_the_token(serving):
    client = serving(host="0.0.0.0", token=TOKEN)
    wrong = client.post("/login", data={"token": "something else"}, follow_redirects=False)
    assert (wrong.headers["location"], "set-cookie" in wrong.headers) == ("/login#wrong", False)
    right = client.post("/login", data={"token": f" {TOKEN} "}, follow_redirects=False)
    assert (right.status_code, right.headers["location"]) == (303, "/")
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/api/studies").status_code == 200  # the client keeps the cookie
    assert client.post("/api/studies", headers={"Origin": "http://evil.example"}).status_code == 403
    client.cookies.clear()
    assert client.get("/api/studies", headers={"Cookie": f"kneessl_session={TOKEN}"}).status_code == 401
    assert (
        client.get("/api/studies", headers={"Cookie": "kneessl_session=\x01;;=ü".encode("latin-1")}).status_code == 401
    )


def test_the_form_takes_no_more_than_a_form(serving):
    client = serving(host="0.0.0.0", token=TOKEN)
    assert client.post("/login", content=b"token=" + b"x" * 5000).status_code == 413


def test_a_token_on_loopback_is_needed_there_too(serving):
    assert serving(token=TOKEN).get("/api/studies").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "knees.example"])
def test_there_is_no_access_from_elsewhere_without_a_token(host):
    with pytest.raises(UserError, match="needs a token"):
        Access(host, None)


def test_a_short_token_is_refused():
    with pytest.raises(UserError, match="fewer than 16 characters"):
        Access("0.0.0.0", "short")


def test_which_addresses_are_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.example", ""]))


@pytest.mark.parametrize("page", ["index.html", "login.html", "docs.html"])
def test_pages_ask_no_other_server_and_hold_no_script(client, page):
    text = client.get({"index.html": "/", "login.html": "/login", "docs.html": "/docs"}[page]).text
    assert "//" not in text.replace("<!doctype html>", "")
    assert "<script>" not in text
    assert "style=" not in text
    assert " on" + "click" not in text
