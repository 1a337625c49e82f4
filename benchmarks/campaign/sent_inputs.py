"""What others send: zips, uploads to `kneessl serve`, and settings in YAML."""

import io
import json
import struct
import time
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml
from starlette.testclient import TestClient

from campaign.doors import imported, plain, read_by_predict
from campaign.judge import REFUSED, RIGHT, Wrong, tell, temporary_in
from campaign.studies import SECRET, file_of, series
from kneessl import cli
from kneessl.errors import UserError
from kneessl.reader.intake.intake import files_of
from kneessl.reader.web.app import create_app
from kneessl.reader.web.security import Access
from kneessl.reader.web.store import Store
from kneessl.sources.limits import Limits

Random = np.random.Generator


# ---- zips


def hostile_zip(rng: Random, path: Path, contents: Sequence[bytes]) -> bool:
    """Write a zip of files, odd or hostile in most; returns whether nobody may take it in."""
    names = [f"{SECRET[0]}/{number:03d}.dcm" for number in range(len(contents))]
    kind, hostile = int(rng.integers(16)), False
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.7 else zipfile.ZIP_STORED) as archive:
        for name, content in zip(names, contents, strict=True):
            archive.writestr(name, content)
        match kind:
            case 0 | 1:
                name = ("../evil.dcm", "/tmp/evil.dcm", "a/../../evil.dcm", "C:\\evil.dcm", "..\\evil.dcm")[
                    int(rng.integers(5))
                ]
                archive.writestr(name, contents[0])
                hostile = True
            case 2:
                link = zipfile.ZipInfo("link.dcm")
                link.external_attr = 0o120777 << 16
                archive.writestr(link, "/etc/passwd")
                hostile = True
            case 3:
                archive.writestr("bomb.dcm", bytes(150 * 2**20), zipfile.ZIP_DEFLATED)
                hostile = True
            case 4:
                archive.writestr(names[0], contents[1])  # a name twice
            case 5:
                archive.writestr("inner.zip", buffer.getvalue())
            case 6:
                archive.writestr(".hidden", b"x")
                archive.writestr("__MACOSX/._000.dcm", b"x")
            case 7:
                archive.writestr("readme.txt", SECRET[0])
            case 8:
                archive.writestr("a.dcm", contents[0], zipfile.ZIP_BZIP2)
                hostile = True
    data = bytearray(buffer.getvalue())
    match kind:
        case 9:
            del data[int(rng.integers(len(data))) :]
        case 10 | 11:
            for _ in range(int(rng.integers(1, 5))):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
        case 12:
            at = data.index(b"PK\x01\x02")
            struct.pack_into("<I", data, at + 24, int(rng.integers(2**32)))  # the size that the directory gives
        case 13:
            at = data.index(b"PK\x01\x02")
            data[at + 8] |= 1  # encrypted
            hostile = True
        case 14:
            data = bytearray(rng.bytes(50)) + data
    path.write_bytes(data)
    return hostile


def zips(rng: Random, work: Path) -> str:
    """A zipped series, through predict's intake, predict's reading, or import."""
    contents = [file_of(one) for one in series(rng)]
    path = work / f"{SECRET[1]}.zip"
    hostile = hostile_zip(rng, path, contents)
    files = work / "plain"
    files.mkdir()
    for number, content in enumerate(contents):
        (files / f"{number}").write_bytes(content)
    door = int(rng.integers(3))
    if door == 0:
        outcome = read_by_predict(path, work, plain(sorted(files.iterdir())))
    elif door == 1:
        path = path.rename(work / "study.zip")  # a source that the user names may be named
        outcome = imported(path, work, plain(sorted(files.iterdir())))
    else:
        (work / "tmp").mkdir()

        def read() -> list[bytes]:
            with files_of(str(path)) as inside:
                return [file.read_bytes() for file in inside]

        with temporary_in(work / "tmp"):
            told = tell(read, work / "tmp")
        as_it_is = told.value == [path.read_bytes()]  # it does not begin as a zip: one file, which is no DICOM
        if told.value is not None and not as_it_is and not set(contents) <= set(told.value):
            raise Wrong("files of a zip are not what was put in")
        outcome = REFUSED if told.refusal else RIGHT
    if hostile and outcome != REFUSED:
        raise Wrong("a hostile zip was taken in")
    return outcome


# ---- uploads to `kneessl serve`


class Listener:
    """Stands where the model does: notes the files of each study, and answers with a refusal."""

    facts = SimpleNamespace(
        name="m", sha256="0" * 64, tasks=("acl",), planes=("sagittal",), synthetic=True, locked=True
    )

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def knees(self, files: Sequence[Path]) -> list[Any]:
        self.seen = [file.read_bytes() for file in files]
        raise UserError("heard")

    def assess(self, knee: Any) -> Any:
        raise AssertionError(knee)


@cache
def server() -> tuple[TestClient, Listener, Store]:
    """One application for the whole campaign, as `kneessl serve` makes it."""
    listener, stack = Listener(), ExitStack()
    store = Store(Path(mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)), 24.0, temporary=True)
    app = create_app(listener, store, Access("127.0.0.1", None), Limits(files=40, bytes=2**20, file_bytes=2**19), 20)  # type: ignore[arg-type]
    client = stack.enter_context(TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False))
    return client, listener, store


def uploads(rng: Random, work: Path) -> str:
    """A multipart body, whole, cut off or damaged: what the model gets are the parts as they were sent, or nothing."""
    client, listener, store = server()
    boundary = f"{rng.integers(2**60):x}"
    parts = [rng.bytes(int(rng.integers(1, 3000))) for _ in range(int(rng.integers(1, 6)))]
    head = f'Content-Disposition: form-data; name="files"; filename="{SECRET[0]}.dcm"\r\n\r\n'.encode()
    kind = int(rng.integers(12))
    if kind == 0:
        parts[0] = b"\r\n--" + boundary[:-1].encode() + b"\r\n" + parts[0]
    if kind == 1:
        parts.append(b"")
    if kind == 2:
        parts = [bytes(2**19 + 2)] * 3
    if kind == 3:
        parts = [b"x"] * 41
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + head + part + b"\r\n" for part in parts)
    body += b"" if kind == 4 else b"--" + boundary.encode() + b"--\r\n"
    broken = kind in {2, 3, 4}
    if kind == 5:
        body, broken = body[: int(rng.integers(len(body) - 6))], True
    if kind == 6:
        body, broken = body.replace(b"\r\n--", b"\n-", 1), False
        parts = []  # any refusal or any reading that follows the format
    headers = {"content-type": f"multipart/form-data; boundary={'other' if kind == 7 else boundary}"}
    if kind == 8:
        headers["content-type"] = ("text/plain", "multipart/form-data", "", SECRET[0])[int(rng.integers(4))]
    broken |= kind in {7, 8}
    listener.seen = []
    answer = client.post("/api/studies", content=body, headers=headers)
    if any(word in answer.text for word in SECRET):
        raise Wrong("an answer names a patient")
    if answer.status_code >= 500:
        raise Wrong(f"status {answer.status_code}")
    if answer.status_code >= 400:
        if not broken and parts:
            raise Wrong(f"a good upload is refused: {answer.text[:100]}")
        return REFUSED
    study = answer.json()["id"]
    for _ in range(500):
        if client.get(f"/api/studies/{study}").json()["stage"] in {"done", "failed"}:
            break
        time.sleep(0.002)
    if broken or (parts and listener.seen != [part for part in parts if part]):
        raise Wrong("the model got other files than were sent")
    if any(store.incoming(study).glob("*")):
        raise Wrong("what was uploaded is kept after its answer")
    client.delete(f"/api/studies/{study}")
    return RIGHT


# ---- settings in YAML

WORDS = {
    "finetune": ["knees", "--task", "acl", "--out", "runs/x"],
    "pretrain": ["knees", "--out", "runs/x"],
    "import": ["src", "out"],
    "phantom": ["knees"],
}
VALUES = (
    *(
        "3",
        "-1",
        "0",
        "nan",
        ".inf",
        "1e400",
        "1.5",
        "true",
        "no",
        "null",
        '""',
        "abc",
        "[1, 2]",
        "{a: 1}",
        "0x10",
        "1_000",
    ),
    *("!!python/object/apply:os.system [id]", "&a [*a]", "2026-11-28", "'3'", "sagittal", "[]", "~", "'é'", "- x"),
)


@cache
def options(command: str) -> dict[str, Any]:
    """Its options with their defaults."""
    parser, _, _ = cli.make_parser(command)
    defaults = vars(parser.get_defaults().as_flat())
    names = [action.dest for action in parser._actions if action.option_strings]
    return {name: defaults.get(name) for name in names if name.split(".")[-1] not in {"help", "config", "print_config"}}


def configs(rng: Random, work: Path) -> str:
    """A settings file with odd keys and values: each is what the command gets, or it is refused; typed words win."""
    command = list(WORDS)[int(rng.integers(len(WORDS)))]
    words = list(WORDS[command])
    known = [name for name in options(command) if f"--{name}" not in words]
    lines = []
    for _ in range(int(rng.integers(0, 4))):
        key = known[int(rng.integers(len(known)))]
        key = (
            key
            if rng.random() < 0.9
            else ("epoch", "", "no such", "from", key.upper(), f"{key}.{key}", "out")[int(rng.integers(7))]
        )
        given = options(command).get(key)
        plausible = (
            json.dumps(given, default=str)
            if not isinstance(given, int | float) or isinstance(given, bool)
            else given + 1
        )
        lines.append(f"{key}: {plausible if rng.random() < 0.6 else VALUES[int(rng.integers(len(VALUES)))]}")
    text = "\n".join(lines) + "\n"
    if rng.random() < 0.05:
        text = ("\t- a: b", "{", "\x00", "a: b: c", "---\na: 1\n---\nb: 2")[int(rng.integers(5))]
    path = work / "settings.yaml"
    path.write_text(text)
    typed = {}
    if rng.random() < 0.3 and "seed" in known:
        typed = {"seed": int(rng.integers(1000))}
        words += ["--seed", str(typed["seed"])]
    at = int(rng.integers(len(words) // 2, len(words) + 1)) if "--" not in "".join(words) else len(words)
    words[at:at] = ["--config", str(path)]
    got: dict[str, Any] = {}

    def door() -> None:
        parser, _, switches = cli.make_parser(command)
        values = parser.instantiate(parser.parse_args(cli.normalise(words, switches)))
        # jsonargparse marks a name that one of its methods has, such as keys.
        got.update((name.strip("\u200b"), value) for name, value in vars(values).items())
        settings = getattr(
            __import__("sys").modules[cli.COMMANDS[command].function.partition(":")[0]],
            cli.COMMANDS[command].function.partition(":")[2],
        )
        if kind := getattr(settings, "settings", None):
            kind(**cli.given_values(settings, values))

    told = tell(door)
    if told.refusal:
        return REFUSED
    asked = yaml.safe_load(text) or {}
    for key, value in {**asked, **typed}.items():
        if key in cli.COMMANDS[command].positional or f"--{key}" in WORDS[command]:
            continue  # typed
        came = got.get(key.split(".")[0], got)
        for part in key.split(".")[1:]:
            came = getattr(came, part, None)
        if not same(came, value):
            raise Wrong(f"{command}: {key} was {value!r} and became {came!r}")
    return RIGHT


def same(got: Any, asked: Any) -> bool:
    """Whether a setting is what was asked for, up to its type: a path for a text, a tuple for a list."""
    if isinstance(asked, list):
        return isinstance(got, list | tuple) and len(got) == len(asked) and all(map(same, got, asked))
    if isinstance(asked, dict):
        return all(
            same(getattr(got, k, None) if not isinstance(got, dict) else got.get(k), v) for k, v in asked.items()
        )
    if isinstance(asked, float) and asked != asked:
        return got != got
    if isinstance(got, float) and isinstance(asked, str) and got == float(asked):
        return True
    return (
        got == asked
        or str(got) == str(asked)
        or (isinstance(got, list | tuple) and len(got) == 1 and same(got[0], asked))
    )
