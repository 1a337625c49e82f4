"""The order of imports that docs/architecture.md prints is the order that the files keep."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src" / "kneessl"
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
ENTRY = {"__init__.py", "__main__.py"}


def files_of(root: Path) -> list[str]:
    """All Python files, as paths within `root`."""
    return sorted(file.relative_to(root).as_posix() for file in root.rglob("*.py"))


def imports_of(root: Path) -> dict[str, set[str]]:
    """Which files of `root` each of its files imports, at its top or within a function."""
    files = set(files_of(root))
    imports: dict[str, set[str]] = {}
    for file in files:
        names: set[str] = set()
        for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                here = [root.name, *Path(file).parent.parts]
                base = ".".join(here[: len(here) + 1 - node.level]) if node.level else None
                names |= {".".join(filter(None, [base, node.module, alias.name])) for alias in node.names}
        imports[file] = {target for name in names if (target := file_of(name, root.name, files))} - {file}
    return imports


def file_of(name: str, root: str, files: set[str]) -> str | None:
    """The file of module a.b.c, or else of a.b that has a c in it; None where it does not belong to `root`."""
    first, *parts = name.split(".")
    if first != root:
        return None
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in files:
                return file
    return "__init__.py"


def read_picture(page: str) -> list[str]:
    """Modules and packages ("exams/") in the order of the page's picture: the names at the beginning of its lines.

    Two spaces stand before what lies in the root, four before what lies in the package above.
    """
    block = re.search(r"^```\w*\nsrc/kneessl/\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert block, "the page has no block that begins with src/kneessl/"
    items: list[str] = []
    package = ""
    for line in block[1].splitlines():
        if names := re.match(r"(  |    )((?:\w+(?:\.py|/)(?: +|$))+)", line):
            within = package if names[1] == "    " else ""
            items += [within + name for name in names[2].split()]
            package = within or items[-1]
    return items


def to_show(root: Path) -> set[str]:
    """What a picture has to show: loose modules, packages, and all that lies in a package with packages in it."""
    files = [file.split("/") for file in files_of(root)]
    divided = {first for first, *rest in files if len(rest) > 1}
    items = {first if not rest else f"{first}/" for first, *rest in files}
    items |= {f"{first}/{rest[0]}{'/' * (len(rest) > 1)}" for first, *rest in files if first in divided}
    return {item for item in items if item.split("/")[-1] not in ENTRY}


def place(file: str, picture: list[str]) -> int:
    """Where in the picture a file stands: by itself, or else with the package that it lies in."""
    if file == "__init__.py":
        return -1
    items = [i for i, item in enumerate(picture) if file == item or (item.endswith("/") and file.startswith(item))]
    return max(items, key=lambda i: len(picture[i]), default=len(picture))


def backward(imports: dict[str, set[str]], picture: list[str]) -> list[str]:
    """Imports of what stands below."""
    return sorted(
        f"{file} imports {target}"
        for file, targets in imports.items()
        for target in targets
        if place(target, picture) > place(file, picture)
    )


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Files that import one another in a circle; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def package_of(file: str, picture: list[str]) -> str:
    """The smallest package of the picture that a file lies in; "" for one outside."""
    return max((p for p in picture if p.endswith("/") and file.startswith(p)), key=len, default="")


PICTURE = read_picture(PAGE)
PACKAGES = [item for item in PICTURE if item.endswith("/")]
IMPORTS = imports_of(SOURCE)


def test_the_picture_shows_what_is_there_and_nothing_else():
    assert len(PICTURE) == len(set(PICTURE))
    assert set(PICTURE) == to_show(SOURCE)


def test_files_import_only_from_their_package_and_from_what_stands_above_it():
    assert backward(IMPORTS, PICTURE) == []


def test_no_files_import_one_another_in_a_circle():
    assert circle(IMPORTS) == []


def test_at_most_nine_modules_lie_outside_packages():
    assert len([item for item in PICTURE if "/" not in item]) <= 9


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_is_in_it_what_it_may_import_and_where_to_begin(package):
    file = f"{package}__init__.py"
    text = " ".join((ast.get_docstring(ast.parse((SOURCE / file).read_text(encoding="utf-8"))) or "").split())
    begin = re.search(r"Begin with `([\w/.]+)`", text)
    assert begin, f"{file} does not say: Begin with `FILE`"
    assert (SOURCE / package / begin[1]).exists(), f"{package} has no {begin[1]}"
    may = re.search(r"May import (any package above it|only [^.]*)\.", text)
    assert may, f"{file} says neither: May import any package above it. nor: May import only ..."
    if may[1].startswith("only"):
        named = {f"{name}/" for name in re.findall(r"`([\w/]+)`", may[1])}
        inside = [file for file in IMPORTS if package_of(file, PICTURE) == package]
        used = {package_of(target, PICTURE) for file in inside for target in IMPORTS[file]}
        assert used - {package, ""} <= named


MADE_UP = """```text
src/kneessl/
  base.py        for all
  left/          first, with
                 more words on it
  right/         second
    early.py     of its own
    inner/       a package in it
    late.py
```
"""


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """Empty files as `MADE_UP` shows them."""
    root = tmp_path / "kneessl"
    for file in ("base.py", "left/a.py", "left/b.py", "right/early.py", "right/inner/c.py", "right/late.py"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    for folder in (".", "left", "right", "right/inner"):
        (root / folder / "__init__.py").touch()
    return root


def test_a_picture_is_read_as_it_is_drawn(made_up):
    picture = read_picture(MADE_UP)
    assert picture == ["base.py", "left/", "right/", "right/early.py", "right/inner/", "right/late.py"]
    assert to_show(made_up) == set(picture)


@pytest.mark.parametrize(
    ("file", "text", "target"),
    [
        ("left/a.py", "from kneessl.right.early import x", "right/early.py"),
        ("left/a.py", "def f():\n    import kneessl.right.inner.c", "right/inner/c.py"),
        ("left/a.py", "from ..right import early", "right/early.py"),
        ("left/__init__.py", "from kneessl.right import late", "right/late.py"),
        ("base.py", "from kneessl import left", "left/__init__.py"),
        ("right/early.py", "from kneessl.right.inner.c import x", "right/inner/c.py"),
        ("right/inner/c.py", "from kneessl.right.late import x", "right/late.py"),
        ("__init__.py", "from kneessl.base import x", "base.py"),
    ],
)
def test_an_import_of_what_stands_below_is_reported(made_up, file, text, target):
    (made_up / file).write_text(text)
    assert backward(imports_of(made_up), read_picture(MADE_UP)) == [f"{file} imports {target}"]


def test_an_import_of_what_stands_above_is_not_reported(made_up):
    (made_up / "right/inner/c.py").write_text("import numpy.linalg\nfrom kneessl.right import early")
    late = "import json\nfrom kneessl import base\nfrom kneessl.left.a import x\nfrom kneessl.right.inner import c"
    (made_up / "right/late.py").write_text(late)
    imports = imports_of(made_up)
    assert imports["right/late.py"] == {"base.py", "left/a.py", "right/inner/c.py"}
    assert backward(imports, read_picture(MADE_UP)) == []
    assert circle(imports) == []


def test_a_circle_within_one_package_is_reported(made_up):
    (made_up / "left/a.py").write_text("from kneessl.left.b import x")
    (made_up / "left/b.py").write_text("def f():\n    from kneessl.left import a")
    assert set(circle(imports_of(made_up))) == {"left/a.py", "left/b.py"}


def test_what_a_picture_lacks_is_reported(made_up):
    for file in ("third/__init__.py", "loose.py", "right/new.py", "right/other/d.py"):
        (made_up / file).parent.mkdir(exist_ok=True)
        (made_up / file).touch()
    assert to_show(made_up) - set(read_picture(MADE_UP)) == {"third/", "loose.py", "right/new.py", "right/other/"}
