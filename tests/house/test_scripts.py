"""Rules of the dashboard's scripts: what is given is text, nothing is fetched from elsewhere."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch

import pytest

from tests.house.source import ROOT

FOLDER = ROOT / "gateway" / "dashboard"
SCRIPTS = sorted(FOLDER.rglob("*.js"))
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment"
    r"|setHTML|srcdoc|\beval\b|new Function|javascript:|setTimeout\(\s*[\"'`]|\bstyle\s*:"
)
ELSEWHERE = re.compile(r"https?://(?!www\.w3\.org/)|//cdn|@import|url\(")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_no_script_makes_markup_or_code_of_a_string(path):
    found = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MARKUP.search(line)
    ]

    assert not found


def test_nothing_is_fetched_from_elsewhere():
    files = [*SCRIPTS, *FOLDER.rglob("*.css"), *FOLDER.rglob("*.html")]
    found = [path.name for path in files if ELSEWHERE.search(path.read_text(encoding="utf-8"))]

    assert files
    assert not found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_every_script_says_what_it_is_for_and_documents_what_it_exports(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    exported = re.compile(r"export (async )?function|export class")
    bare = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if exported.match(line)
        and not before.endswith("*/")
        # What every view has is told once, in CONTRIBUTING.
        and not re.match(r"export (async )?function (load|draw)\(", line)
    ]

    assert lines[0].startswith("// ")
    assert not bare


def test_every_file_of_the_dashboard_is_in_the_package():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = told["tool"]["setuptools"]["package-data"]["gateway"]
    files = [path.relative_to(ROOT / "gateway") for path in FOLDER.rglob("*") if path.is_file()]

    assert [f for f in map(str, files) if not any(fnmatch(f, p) for p in patterns)] == []
