"""The page of `kneessl serve` in a real Chromium: the real knee from drop to download, and made answers."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

pytest.importorskip("fastapi", reason="the extra `reader` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
import uvicorn
from helpers.made import made
from helpers.serving import Engine
from playwright.sync_api import sync_playwright

from kneessl.errors import UserError
from kneessl.finetuning.finetune import finetune
from kneessl.reader.serve import bound_socket
from kneessl.reader.web.app import create_app
from kneessl.reader.web.security import Access
from kneessl.reader.web.store import Store
from kneessl.sources.limits import Limits

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SERVE = "import sys; from pathlib import Path; from kneessl.reader.serve import serve; serve(Path(sys.argv[1]), port=0)"
LONG_MS = 60_000
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TOKEN = "a-token-of-some-length"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(browser, address, **settings):
    """A page of a new browser; it may neither complain nor ask any other server."""
    wrong = []
    context = browser.new_context(**{"viewport": DESK, **settings})
    page = context.new_page()
    page.set_default_timeout(LONG_MS)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((address, "blob:")) else wrong.append(asked.url))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    yield page
    assert wrong == []
    context.close()


@pytest.fixture(scope="module")
def real_server(knees, tmp_path_factory):
    """The command itself, with a small model; whatever it kept goes when it is told to stop."""
    folder = tmp_path_factory.mktemp("serve")
    settings = {"epochs": 1, "size": 32, "batch": 4, "slices": 4, "precision": "32", "folds": 2}
    finetune(knees, "acl", folder / "model", **settings)
    own = folder / "temporary"
    own.mkdir()
    command = [sys.executable, "-c", SERVE, str(folder / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(own)}) as process:
        line = process.stdout.readline()
        assert line.startswith("kneessl serve: http://127.0.0.1:")
        yield line.split()[2]
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert [path.name for path in own.iterdir() if path.name.startswith("kneessl-")] == []


@contextmanager
def running(engine, folder, token=None):
    """The application on made answers, on a port of its own."""
    door = bound_socket("127.0.0.1", 0)
    app = create_app(engine, Store(folder, 24, temporary=True), Access("127.0.0.1", token), Limits())
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        door.close()


@pytest.fixture(scope="module")
def a_made(tmp_path_factory):
    """A right knee in three planes."""
    told = made(tmp_path_factory.mktemp("made")).assessment
    sagittal = told.planes["sagittal"]
    coronal = replace(sagittal, facts=replace(sagittal.facts, plane="coronal", number=4))
    return replace(told, planes={**told.planes, "coronal": coronal})


@pytest.fixture
def engine(a_made):
    return Engine(a_made)


@pytest.fixture
def made_page(browser, engine, tmp_path):
    """Open the page of a server on made answers, with one study in it."""
    with ExitStack() as started:

        def start(study=b"pixels", token=None, **settings):
            address = started.enter_context(running(engine, tmp_path / "store", token))
            page = started.enter_context(opened(browser, address, **settings))
            if study is not None:
                page.set_input_files("#files", {"name": "x", "mimeType": "application/dicom", "buffer": study})
                page.wait_for_selector("#answer, #failure, #work", state="visible")
            return page

        yield start


@pytest.fixture
def reader(made_page):
    page = made_page()
    shown(page)
    return page


def shown(page):
    """Wait until slices and heat are on the screen."""
    page.wait_for_selector("#answer", state="visible")
    page.wait_for_selector(".finding.chosen")
    settle(page)


def settle(page):
    """Wait until all is drawn."""
    page.wait_for_selector("#viewer:not([aria-busy=true])", state="attached")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))")


def pixels(page, plane="sagittal"):
    settle(page)
    return page.locator(f"[data-plane={plane}] .screen canvas").evaluate("(canvas) => canvas.toDataURL()")


def slice_at(page, plane="sagittal"):
    settle(page)
    return int(page.locator(f"[data-plane={plane}] .screen canvas").get_attribute("aria-valuenow"))


def colourful(page):
    """How many pixels of the sagittal plane are not grey."""
    settle(page)
    count = """(canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) count += data[i] !== data[i + 1] || data[i] !== data[i + 2];
      return count;
    }"""
    return page.locator("[data-plane=sagittal] .screen canvas").evaluate(count)


def drop(page, *files):
    """Drop files onto the page, as a mouse does."""
    page.evaluate("""() => {
      const hand = Object.assign(document.createElement("input"), { type: "file", id: "hand", multiple: true });
      document.body.append(hand);
    }""")
    page.set_input_files("#hand", files)
    page.evaluate("""() => {
      const hand = document.getElementById("hand");
      const dataTransfer = new DataTransfer();
      for (const file of hand.files) dataTransfer.items.add(file);
      for (const kind of ["dragenter", "dragover", "drop"]) {
        document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
      }
      hand.remove();
    }""")


def test_the_real_knee_from_drop_to_download(browser, real_server, real_data, tmp_path):
    knee = tmp_path / "knee.zip"
    with zipfile.ZipFile(knee, "w") as archive:
        for file in sorted(real_data("knee_mese").glob("*.dcm")):
            archive.write(file, f"study/{file.name}")
    with opened(browser, real_server) as page:
        drop(page, knee)
        page.wait_for_selector("#sending, #work", state="visible")
        shown(page)
        assert page.locator("#study-title").inner_text() == "Study 1 · Right knee"
        assert page.locator(".finding").count() == 1
        assert page.locator(".finding .answer b").inner_text() in {"Yes", "In doubt", "No"}
        assert page.locator("#series .used").count() == 1
        assert page.locator("#series .unused").count() == 7
        canvas = page.locator(".plane .screen canvas")
        assert canvas.get_attribute("aria-valuemax") == "24"

        before, at = pixels(page), slice_at(page)
        canvas.hover()
        page.mouse.wheel(0, 100)
        assert slice_at(page) == at + 1
        assert pixels(page) != before
        page.mouse.wheel(0, -100)
        assert pixels(page) == before
        page.keyboard.press("ArrowDown")
        assert slice_at(page) == at + 1

        page.keyboard.press("1")
        warm = pixels(page)
        page.locator("#opacity").fill("20")
        thin, some = pixels(page), colourful(page)
        assert thin != warm
        assert some > 0
        page.locator("#heat-on").uncheck()
        assert colourful(page) == 0  # slices themselves have no cast
        bare = pixels(page)
        for number, button in enumerate(page.locator(".keys button").all(), start=1):
            button.click()
            settle(page)
            assert f"key {number}" in page.locator(".where").inner_text()

        page.keyboard.press("1")
        box = canvas.bounding_box()
        for dx, dy in ((80, 0), (0, 80)):
            page.mouse.move(box["x"] + 100, box["y"] + 100)
            page.mouse.down()
            page.mouse.move(box["x"] + 100 + dx, box["y"] + 100 + dy, steps=3)
            page.mouse.up()
            assert pixels(page) != bare
            page.mouse.dblclick(box["x"] + 50, box["y"] + 50)
            assert pixels(page) == bare

        with page.expect_download() as waiting:
            page.locator("#download-report").click()
        assert waiting.value.suggested_filename == "kneessl-1-1-report.html"
        waiting.value.save_as(tmp_path / "report.html")
        assert "<h1>" in (tmp_path / "report.html").read_text(encoding="utf-8")
        page.get_by_role("link", name="Studies").click()
        assert page.locator("#study-rows th").inner_text() == "Study 1"


def test_the_keyboard_alone_does_everything(made_page, engine, a_made):
    engine.assessments = (a_made, replace(a_made, laterality="L"))
    page = made_page(study=None)
    press = page.keyboard.press
    page.on("filechooser", lambda _: None)  # from now on: `expect_file_chooser` alone may begin too late to see it
    press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    press("u")
    assert page.evaluate("document.activeElement.id") == "choose-files"
    with page.expect_file_chooser() as chooser:
        press("Enter")
    chooser.value.set_files({"name": "x", "mimeType": "application/dicom", "buffer": b"pixels"})
    shown(page)
    assert page.evaluate("document.activeElement.id") == "study-title"
    press("a")
    assert page.evaluate("document.activeElement.closest('.plane').dataset.plane") == "axial"
    at = slice_at(page, "axial")
    for key, by in (("ArrowDown", 1), ("ArrowUp", -1), ("ArrowRight", 1), ("ArrowLeft", -1)):
        press(key)
        assert slice_at(page, "axial") == at + by
        at += by
    for key, place in (("End", 8), ("PageUp", 3), ("Home", 1), ("PageDown", 6)):
        press(key)
        assert slice_at(page, "axial") == place
    press("1")
    assert (slice_at(page), page.evaluate("document.activeElement.closest('.plane').dataset.plane")) == (3, "sagittal")
    warm = pixels(page)
    for key, back in (("+", "-"), ("Shift+ArrowRight", "r"), ("Shift+ArrowUp", "r"), ("h", "h")):
        press(key)
        assert pixels(page) != warm
        press(back)
        if back != "-":
            assert pixels(page) == warm
    press("-")
    press("f")
    assert page.locator(".finding.chosen").get_attribute("data-task") == "meniscus"
    press("Shift+F")
    assert page.locator(".finding.chosen").get_attribute("data-task") == "acl"
    press("e")
    assert page.locator(".plane:visible").count() == 1
    press("c")
    assert page.locator(".plane:visible").get_attribute("data-plane") == "coronal"
    press("e")
    assert page.locator(".plane:visible").count() == 3
    press("?")
    assert page.locator("#help").is_visible()
    press("Escape")
    assert not page.locator("#help").is_visible()
    with page.expect_download() as waiting:
        press("d")
    assert waiting.value.suggested_filename == "kneessl-1-1-report.html"
    press("k")
    page.wait_for_selector("#study-title:has-text('Left knee')")
    press("l")
    page.wait_for_selector("#study-rows a")
    for _ in range(30):
        if page.evaluate("document.activeElement.dataset.key") == "delete-1":
            break
        press("Tab")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", page.evaluate("document.activeElement.outerHTML")
    press("Enter")
    assert page.locator("#confirm-text").inner_text().startswith("Delete study 1?")
    press("Tab")
    press("Enter")
    page.wait_for_selector("#no-studies", state="visible")


def test_an_answer_says_first_what_to_know_and_names_states_in_words_and_shapes(reader):
    assert reader.locator("#badge").inner_text() == "Not a diagnosis"
    flags = reader.locator(".flag").all_inner_texts()
    assert "synthetic knees (a phantom)" in flags[0]
    assert "Quality, axial" in flags[1]
    words = reader.locator(".finding .answer b").all_inner_texts()
    assert words == ["Yes", "In doubt", "No", "Not assessed"]
    shapes = reader.locator(".finding .shape").evaluate_all("(all) => all.map((one) => one.innerHTML)")
    assert len(set(shapes)) == 4
    first = reader.locator(".finding").first.inner_text()
    for text in ("88 %", "95 % interval 75 to 94 %", "No below 20 %, yes from 70 %", "Said without coronal"):
        assert text in first
    assert reader.locator("[data-task=mcl] .pick").is_disabled()
    assert "slices are missing" in reader.locator("#series .unused").inner_text()
    assert reader.locator("#series p").inner_text() == "Left out: localisers (3)."


def test_planes_stand_side_by_side_and_each_finding_has_its_heat(reader):
    boxes = [plane.bounding_box() for plane in reader.locator(".plane").all()]
    assert len({box["y"] for box in boxes}) == 1
    assert [box["x"] for box in boxes] == sorted({box["x"] for box in boxes})
    assert reader.locator(".plane").evaluate_all("(all) => all.map((one) => one.dataset.plane)") == [
        "sagittal", "coronal", "axial",
    ]  # fmt: skip
    acl = pixels(reader)
    reader.locator("[data-task=abnormal] .pick").click()
    assert pixels(reader) != acl
    assert reader.locator("#heat-of").inner_text() == "Heat of Abnormal"
    reader.locator("[data-task=meniscus] .keys button").click()
    assert slice_at(reader, "axial") == 4


def test_what_is_drawn_is_the_slice_with_its_heat(reader, a_made):
    """At the middle of a flat patch, smoothing does not matter."""
    reader.keyboard.press("1")
    reader.locator("#opacity").fill("50")
    settle(reader)
    drawn = reader.locator("[data-plane=sagittal] .screen canvas").evaluate("""(canvas) => {
      const at = (value) => Math.floor(((value + 0.5) / 256) * canvas.width);
      return [...canvas.getContext("2d").getImageData(at(128), at(128), 1, 1).data];
    }""")
    seen = a_made.planes["sagittal"]
    grey, heat = float(seen.series.volume[2, 128, 128]), float(seen.heat["acl"][2, 128, 128])
    share = 0.5 * heat / 127
    expected = [grey * (1 - share) + share * colour for colour in (0xD9, 0x73, 0x0D)]
    assert heat > 100
    assert all(abs(value - wanted) <= 6 for value, wanted in zip(drawn, expected, strict=False)), (drawn, expected)


def test_on_a_phone_one_plane_at_a_time_and_fingers_go_through_slices(made_page):
    page = made_page(viewport=PHONE, device_scale_factor=2, is_mobile=True, has_touch=True)
    shown(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.locator(".plane:visible").count() == 1
    page.locator("[data-shown=axial]").tap()
    assert page.locator(".plane:visible").get_attribute("data-plane") == "axial"
    canvas = page.locator("[data-plane=axial] .screen canvas")
    canvas.scroll_into_view_if_needed()
    box, at, before = canvas.bounding_box(), slice_at(page, "axial"), pixels(page, "axial")
    x, y = box["x"] + 150, box["y"] + 200
    device = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [(x, y)]),
        ("touchMove", [(x, y - 15)]),
        ("touchMove", [(x, y - 30)]),
        ("touchEnd", []),
    ):
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})
    assert slice_at(page, "axial") == at - 2
    assert pixels(page, "axial") != before
    window = page.locator("[data-plane=axial] .bottom.left")
    assert window.inner_text() == "W 255 L 128"
    for kind, points in (
        ("touchStart", [(x, y), (x + 60, y)]),
        ("touchMove", [(x + 40, y), (x + 100, y)]),
        ("touchEnd", []),
    ):
        touches = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    settle(page)
    assert window.inner_text() != "W 255 L 128"
    page.locator(".mark").tap()
    page.wait_for_selector("#study-rows a")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_a_folder_goes_in_without_hidden_files_and_names(made_page, engine, tmp_path):
    folder = tmp_path / "Planted^Folder"
    (folder / "deep").mkdir(parents=True)
    for name in ("1", "2", "deep/3", ".hidden", "Thumbs.db"):
        (folder / name).write_text(name)
    page = made_page(study=None)
    with page.expect_request("**/api/studies") as sent:
        page.set_input_files("#folder", str(folder))
    assert b"Planted" not in (sent.value.post_data_buffer or b"")
    page.wait_for_selector("#answer", state="visible")
    assert sorted(engine.seen) == [b"1", b"2", b"deep/3"]


def test_a_study_on_its_way_is_followed_and_a_failed_one_says_why(made_page, engine):
    engine.go.clear()
    engine.error = UserError("there is no knee MR series that can be used here")
    page = made_page()
    page.wait_for_selector("#steps .now:has-text('Reading headers')")
    assert page.locator("#steps [aria-current=step]").count() == 1
    engine.go.set()
    page.wait_for_selector("#failure", state="visible")
    assert page.locator("#failure-text").inner_text() == "There is no knee MR series that can be used here."


def test_what_is_too_much_is_not_even_sent(made_page):
    page = made_page(study=None)
    page.set_input_files("#files", {"name": "x", "mimeType": "", "buffer": b""})
    assert page.locator("#problem").inner_text() == "There are no files in that."


def test_the_token_opens_the_page(browser, engine, tmp_path):
    with running(engine, tmp_path / "store", TOKEN) as address, opened(browser, address) as page:
        assert page.url == f"{address}login"
        page.locator("#token").fill("a wrong token, but long")
        page.keyboard.press("Enter")
        page.wait_for_selector("#wrong", state="visible")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#choose-files")
        assert page.url == address
        page.set_input_files("#files", {"name": "x", "mimeType": "application/dicom", "buffer": b"pixels"})
        shown(page)


def test_the_interface_is_described_on_a_page_of_its_own(made_page):
    page = made_page(study=None)
    page.get_by_role("link", name="API").click()
    page.wait_for_selector("#Answer")
    assert "/api/studies/{study}" in page.locator("#paths code").all_inner_texts()


@pytest.mark.parametrize("view", ["home", "answer", "help", "docs"])
def test_text_has_the_contrast_that_wcag_asks_for(reader, view):
    if view == "home":
        reader.keyboard.press("l")
        reader.wait_for_selector("#study-rows a")
    elif view == "help":
        reader.keyboard.press("?")
    elif view == "docs":
        reader.get_by_role("link", name="API").click()
        reader.wait_for_selector("#Answer")
    poor = reader.evaluate("""() => {
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (one) => {
        for (let at = one; at; at = at.parentElement) {
          const found = rgb(getComputedStyle(at).backgroundColor);
          if (found.length < 4 || found[3] > 0) return found;
        }
        return [0, 0, 0];
      };
      return [...document.body.querySelectorAll("*")].filter((one) => one.checkVisibility() && !one.closest(".over")
        && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())).map((one) => {
        const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
        return { text: one.textContent, ratio: (a + 0.05) / (b + 0.05) };
      }).filter(({ ratio }) => ratio < 4.5);
    }""")
    assert poor == []
