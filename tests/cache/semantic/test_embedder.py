from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from cache.semantic.embedder import (
    EmbedderError,
    SentenceTransformerEmbedder,
    device_of,
    load_embedder,
    model_folder,
)
from cache.semantic.onnx_embedder import OnnxEmbedder, is_plain_bert, onnx_embedder, wants_gpu
from cache.semantic.onnx_graph import Shape

TEXTS = [
    "How do I reset my password?",
    "What is the way to set a new password?",
    "Which planets have rings?",
    "¿Cómo cambio mi contraseña?",
    "x",
]


@pytest.fixture(scope="module")
def folder():
    found = model_folder("all-MiniLM-L6-v2")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def small(folder):
    return OnnxEmbedder(folder)


@pytest.fixture(scope="module")
def whole(folder):
    return OnnxEmbedder(folder, quantized=False)


@pytest.fixture(scope="module")
def reference(folder):
    return SentenceTransformerEmbedder(str(folder))


def test_unquantized_graph_says_what_the_reference_says(whole, reference):
    np.testing.assert_allclose(whole.embed(TEXTS), reference.embed(TEXTS), atol=2e-6)


def test_quantized_vectors_stay_close_to_the_reference(small, whole):
    close = (small.embed(TEXTS) * whole.embed(TEXTS)).sum(axis=1)

    assert close.min() > 0.985


def test_vectors_have_unit_length_and_paraphrases_are_nearest(small):
    rows = small.embed(TEXTS)
    near = rows @ rows.T

    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert near[0, 1] > 0.6 > near[0, 2]


def test_a_vector_does_not_depend_on_what_is_embedded_beside_it(small):
    together = small.embed(TEXTS)

    assert np.array_equal(together, np.concatenate([small.embed([text]) for text in TEXTS]))


def test_a_long_text_is_cut_where_the_reference_cuts_it(whole, reference):
    text = ["word " * 600]

    assert whole.count(text[0]) == reference.count(text[0]) == 602
    np.testing.assert_allclose(whole.embed(text), reference.embed(text), atol=2e-6)


def test_versions_tell_models_and_precisions_apart(small, whole, reference):
    assert len({small.version, whole.version, reference.version}) == 3


def test_the_shipped_model_runs_without_a_hub_under_both_its_names():
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        embedder = load_embedder(name)

        assert isinstance(embedder, OnnxEmbedder)
        assert embedder.width == 384


def test_another_pooling_is_left_to_sentence_transformers(folder, tmp_path):
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "1_Pooling").mkdir()
    told = '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    (tmp_path / "1_Pooling" / "config.json").write_text(told)

    assert is_plain_bert(folder)
    assert not is_plain_bert(tmp_path)


def test_another_architecture_is_refused_by_the_graph():
    with pytest.raises(ValueError, match="expected a BERT encoder"):
        Shape.of({"model_type": "roberta", "hidden_act": "gelu"})


def test_an_unknown_model_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(EmbedderError, match="no-such-model"):
        load_embedder("./no-such-model")


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("device", "providers", "gpu"),
    [
        (None, [CPU], False),
        (None, [CUDA, CPU], True),
        ("cpu", [CUDA, CPU], False),
        ("cuda", [CUDA, CPU], True),
        (None, ["AzureExecutionProvider", CPU], False),
    ],
)
def test_a_gpu_is_used_where_there_is_one_unless_the_name_says_otherwise(device, providers, gpu):
    assert wants_gpu(device, providers) is gpu


def test_a_gpu_that_is_asked_for_and_is_not_there_is_an_error():
    with pytest.raises(EmbedderError, match="onnxruntime-gpu"):
        wants_gpu("cuda", [CPU])


def test_names_say_where_to_run(folder):
    assert device_of("cuda:all-MiniLM-L6-v2") == ("cuda", "all-MiniLM-L6-v2")
    assert device_of("all-MiniLM-L6-v2") == (None, "all-MiniLM-L6-v2")
    assert device_of("C:/models/mine") == (None, "C:/models/mine")
    assert load_embedder("cpu:all-MiniLM-L6-v2").version == OnnxEmbedder(folder).version


def test_without_a_gpu_both_runtimes_say_so_where_one_was_asked_for(folder, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EmbedderError, match=CUDA):
        load_embedder("cuda:all-MiniLM-L6-v2")
    with pytest.raises(EmbedderError, match="could be loaded on cuda"):
        SentenceTransformerEmbedder(str(folder), device="cuda:63")  # more than any machine has


@pytest.mark.skipif(
    CUDA not in onnxruntime.get_available_providers(), reason="ONNX Runtime has no GPU here"
)
def test_a_gpu_says_what_the_processor_says(folder, whole):
    found = onnx_embedder(folder, device="cuda").embed(TEXTS)

    np.testing.assert_allclose(found, whole.embed(TEXTS), atol=1e-3)


def test_texts_of_one_batch_do_not_change_each_other(folder, whole):
    together = OnnxEmbedder(folder, quantized=False)
    together._at_once = 32

    np.testing.assert_allclose(together.embed(TEXTS), whole.embed(TEXTS), atol=1e-5)
