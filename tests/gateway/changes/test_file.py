"""A policy's file and its versions: whole, private, bounded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.changes import file as under_test
from gateway.changes.file import PolicyFile

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("one")
    path.chmod(0o640)
    return PolicyFile(path)


def test_a_text_takes_the_place_of_another_with_the_same_rights(file):
    file.write("two ü")

    assert file.read() == "two ü"
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in file.path.parent.iterdir()] == ["policy.yaml"]


def test_versions_are_kept_newest_first_and_only_for_their_owner(file):
    for number, who in enumerate(("file", "boss", "../../evil\n")):
        file.keep(f"text {number}", by=who, at=NOW)
    found = file.versions()

    assert [(each.number, each.by) for each in found] == [
        (3, ".._.._evil_"), (2, "boss"), (1, "file"),
    ]  # fmt: skip
    assert {each.path.stat().st_mode & 0o777 for each in found} == {0o600}
    assert file.folder.stat().st_mode & 0o777 == 0o700
    assert found[0].at == NOW


def test_a_version_is_not_kept_twice_in_a_row(file):
    file.keep("same", by="a", at=NOW)
    file.keep("same", by="b", at=NOW)

    assert [each.by for each in file.versions()] == ["a"]


def test_the_oldest_versions_are_let_go(file, monkeypatch):
    monkeypatch.setattr(under_test, "MOST_VERSIONS", 3)
    for number in range(6):
        file.keep(f"text {number}", by="a", at=NOW)

    assert [each.number for each in file.versions()] == [6, 5, 4]


def test_what_else_lies_in_the_folder_is_passed_over(file):
    file.keep("text", by="a", at=NOW)
    (file.folder / "notes.txt").write_text("mine")

    assert [each.number for each in file.versions()] == [1]
    assert file.version(7) is None
