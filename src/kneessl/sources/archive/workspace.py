"""Where an import works until it is done: a folder beside the exam folder that only this user may enter."""

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kneessl import __version__
from kneessl.errors import UserError
from kneessl.files import occupied, writing_to
from kneessl.sources.archive.index import Index

_GOES_ON = "what is done is kept, and the same command with --resume goes on from there"


@dataclass
class Workspace:
    """An import that is under way."""

    folder: Path
    index: Index
    keep: bool = field(default=False)
    """Whether a user's error leaves it for `--resume`: there is more in it than the input holds by itself."""

    @property
    def staging(self) -> Path:
        """Where series wait for their names."""
        return self.folder / "series"

    @property
    def exams(self) -> Path:
        """The new exam folder, before it gets its place."""
        return self.folder / "exams"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within it, a user's error ends the import, but what is done is kept."""
        before, self.keep = self.keep, True
        yield
        self.keep = before


@contextmanager
def workspace(out: Path, asked: Mapping[str, object], add: bool, resume: bool) -> Iterator[Workspace]:
    """The workspace of an import into `out`, new or left behind; gone once the body is done.

    Whatever ends the import leaves it, but for an error in the input of one that was begun just now.

    Args:
        out: The exam folder.
        asked: What the result depends on; the same again when it is resumed.
        add: `out` is there already.
        resume: Go on with what was left behind.

    Raises:
        UserError: `out` exists or does not, an import was left behind and is not to be resumed, was begun with other
            settings, or is running.
    """
    folder = out.parent / f".{out.name}.import"
    left_behind = (folder / "index.sqlite").exists()
    _require(out, folder, add, resume, left_behind)
    with writing_to(out):
        if not left_behind:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        space = Workspace(folder, _opened(folder / "index.sqlite", out), keep=left_behind)
        try:
            _require_same(space, out, asked)
            yield space
        except UserError as error:
            if space.keep or isinstance(error.__cause__, BrokenProcessPool):
                print(f"kneessl: {_GOES_ON}", file=sys.stderr)
            else:
                space.index.close()
                shutil.rmtree(folder)
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_GOES_ON) from None
        except Exception:
            print(f"kneessl: {_GOES_ON}", file=sys.stderr)
            raise
        else:
            space.index.close()
            shutil.rmtree(folder)
        finally:
            space.index.close()


def _require(out: Path, folder: Path, add: bool, resume: bool, left_behind: bool) -> None:
    if left_behind:
        if not resume:
            raise UserError(
                f"an import into {out} was interrupted; --resume goes on with it (or remove {folder} to begin anew)"
            )
    elif add:
        if not (out / "exams.csv").is_file():
            raise UserError(f"--add: {out} is no exam folder of `kneessl import` (it has no exams.csv)")
    elif occupied(out):
        raise UserError(
            f"{out} already exists; name a new folder, or remove it first (--add takes new studies into it)"
        )


def _opened(path: Path, out: Path) -> Index:
    try:
        return Index(path)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise UserError(f"another import into {out} is running; wait until it is done") from None


def _require_same(space: Workspace, out: Path, asked: Mapping[str, object]) -> None:
    """Record what was asked for, or compare it with what was when the import was begun."""
    now = json.loads(json.dumps({"version": __version__, **asked}, default=str))
    begun = space.index.about("asked")
    if begun is None:
        space.index.set_about(asked=json.dumps(now))
        return
    before = json.loads(begun)
    for name, value in before.items():
        if now.get(name) != value:
            raise UserError(
                f"the import into {out} was begun with {name} {value}, and not {now.get(name)}; give the same again, "
                f"or remove {space.folder} to begin anew"
            )
