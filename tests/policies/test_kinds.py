from __future__ import annotations

import pytest

from policies.kinds import CONFIDENCES, PROVIDERS, KindError, is_class_path, resolve


@pytest.mark.parametrize("kind", ["a:B", "package.module:Class", "_x.y1:_Z"])
def test_class_path_names_a_module_and_a_class(kind):
    assert is_class_path(kind)


@pytest.mark.parametrize(
    "kind", ["", "openai", "a.b.C", "a:", ":B", "a:b.c", "a b:C", "a..b:C", "1:A"]
)
def test_anything_else_is_no_class_path(kind):
    assert not is_class_path(kind)


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
def test_every_provider_of_the_table_is_there(kind):
    assert resolve(PROVIDERS, kind).__name__.endswith("Provider")


@pytest.mark.parametrize("kind", sorted(CONFIDENCES))
def test_every_confidence_of_the_table_is_there(kind):
    assert resolve(CONFIDENCES, kind).__name__.endswith("Scorer")


def test_class_of_an_outsider_is_found():
    assert resolve(PROVIDERS, "collections:OrderedDict").__name__ == "OrderedDict"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("opnai", "expected one of .*, or package.module:Class; found 'opnai'"),
        ("no_such_module:Class", "cannot import no_such_module"),
        ("json:NoSuchClass", "json has no class NoSuchClass"),
        ("json:dumps", "expected json:dumps to be a class, found function"),
    ],
)
def test_kind_without_a_class_is_refused(kind, message):
    with pytest.raises(KindError, match=message):
        resolve(PROVIDERS, kind)
