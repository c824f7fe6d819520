"""Token bytes, characters split over tokens, and stop strings split over tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core

from bench.engine_families import write_tokenizer
from local_engine.errors import CheckpointError, InvalidRequest
from local_engine.tokenizer import TextStream, Tokenizer

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=40)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(path)
    return Tokenizer.load(path)


def write_spaced(directory: Path) -> None:
    """Write a SentencePiece-like tokenizer, as Llama 2 and Mistral have."""
    words = ["<unk>", "</s>", "▁the", "▁fox", "▁", "s", "▁<"]
    vocab = {word: n for n, word in enumerate(words)}
    vocab |= {f"<0x{n:02X}>": len(words) + n for n in range(256)}
    core = Core(models.BPE(vocab, [], byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    core.add_special_tokens([AddedToken("</s>", special=True)])
    core.add_tokens([AddedToken("<think>", special=False)])
    core.save(str(directory / "tokenizer.json"))


def stream(
    tokenizer: Tokenizer, tokens: list[int], stops: tuple[str, ...] = ()
) -> tuple[str, bool]:
    """Push tokens one by one; return the text that left, and whether a stop string ended it."""
    text = TextStream(tokenizer, stops)
    out = ""
    for token in tokens:
        released = text.push(token)
        out += released.text
        if released.is_stopped:
            return out, True
    last = text.finish()
    return out + last.text, last.is_stopped


@given(text=TEXTS)
def test_any_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert stream(tokenizer, list(tokenizer.encode(text, add_special=False)))[0] == text


@given(
    text=TEXTS, stops=st.lists(st.text("ab\u00e4\U0001f98a", min_size=1, max_size=4), max_size=4)
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_text_ends_before_the_first_stop_string_to_be_complete(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    tokens = list(tokenizer.encode(text, add_special=False))

    out, is_stopped = stream(tokenizer, tokens, tuple(stops))

    for count in range(1, len(tokens) + 1):
        seen = stream(tokenizer, tokens[:count])[0].rstrip("\ufffd")
        if places := [at for s in stops if (at := seen.find(s)) >= 0]:
            assert (out, is_stopped) == (text[: min(places)], True)
            return
    assert (out, is_stopped) == (text, False)


@given(text=st.text("ab", max_size=30))
def test_nothing_that_left_is_part_of_a_stop_string_seen_later(
    tokenizer: Tokenizer, text: str
) -> None:
    out, _ = stream(tokenizer, list(tokenizer.encode(text, add_special=False)), ("abab", "bb"))

    assert "abab" not in out
    assert "bb" not in out


def test_character_is_held_until_its_bytes_are_complete(tokenizer: Tokenizer) -> None:
    fox = [tokenizer.data.index(bytes([b])) for b in "\U0001f98a".encode()]
    text = TextStream(tokenizer, ())

    assert [text.push(t).text for t in fox] == ["", "", "", "\U0001f98a"]


def test_broken_bytes_become_replacement_characters(tokenizer: Tokenizer) -> None:
    lead = tokenizer.data.index(b"\xf0")
    letter = tokenizer.data.index(b"a")

    assert stream(tokenizer, [lead, letter])[0] == "\ufffda"
    assert stream(tokenizer, [letter, lead])[0] == "a\ufffd"


def test_special_and_unknown_tokens_are_silent_but_named(tokenizer: Tokenizer) -> None:
    assert stream(tokenizer, [2, 3, 10**6])[0] == ""
    assert tokenizer.label(2) == b"<|end|>"
    assert tokenizer.label(10**6) == b""


def test_lone_surrogate_is_a_bad_request(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        tokenizer.encode("a\ud800", add_special=False)


def test_spaced_tokens_decode_as_their_tokenizer_does(tmp_path: Path) -> None:
    write_spaced(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    core = Core.from_file(str(tmp_path / "tokenizer.json"))
    byte = [7 + b for b in "ä".encode()]
    think = tokenizer.token_id("<think>")
    assert think is not None
    for ids in ([2, 3, 5], [2, *byte, 3], [5, 4, 3], [2, 1, 3], [2, think]):
        assert stream(tokenizer, ids)[0] == core.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda v: v | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}},
            "decoder",
        ),
        (lambda v: v | {"decoder": None}, "decoder"),
        (lambda v: v | {"model": {"type": "Nothing"}}, "not a usable tokenizer"),
        (lambda v: {}, "not a usable tokenizer"),
    ],
)
def test_unreadable_tokenizers_are_named(
    tmp_path: Path, change: Callable[[dict[str, object]], dict[str, object]], match: str
) -> None:
    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))

    with pytest.raises(CheckpointError, match=match):
        Tokenizer.load(tmp_path)


def test_padding_and_truncation_left_in_the_file_are_ignored(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    core = Core.from_file(str(tmp_path / "tokenizer.json"))
    core.enable_padding(length=64)
    core.enable_truncation(2)
    core.save(str(tmp_path / "tokenizer.json"))

    assert 2 < len(Tokenizer.load(tmp_path).encode("quick fox 17", add_special=False)) < 64
