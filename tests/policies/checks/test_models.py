from __future__ import annotations

import pytest

from tests.policies.support import load, told


def _policy(model):
    return f"version: 1\nmodels:\n  m: {{{model}}}"


@pytest.mark.parametrize(
    "model",
    [
        "provider: openai, api_key: sk-1",
        "provider: openai, base_url: https://eu.example.com/v1",
        "provider: sglang, base_url: 'http://[::1]:30000/v1', tls: {}",
        "provider: ollama, base_url: http://127.0.0.1:11434/v1, api_key: any",
        "provider: anthropic, api_key: k, prompt_cache: off",
        "provider: anthropic, base_url: http://h:1/v1, price: {discount: 0.15}",
        "provider: openai, api_key: k, price: {services: {flex: 0.5}, discount: 0}",
        "provider: openai, api_key: k, price: {input_per_mtok_usd: 1, output_per_mtok_usd: 2, "
        "long_prompts: [{over_tokens: 200000, input_per_mtok_usd: 2}], audio_per_mtok_usd: 3}",
        "provider: local, checkpoint: demo/tiny, quantization: int8, kv: int8, threads: 2, "
        "max_batch: 4, max_queue: 9, guesses: 6, draft: demo/tiny, adapters: ., long_context: true",
        "provider: recorded, outcomes: o.parquet, latency: {first_token: 0, tokens_per_second: 50}",
        "provider: 'package.module:Class', base_url: https://h, checkpoint: x, outcomes: y",
        "provider: llamacpp, base_url: http://h:1, price: {file: p.json, output_per_mtok_usd: 1}",
    ],
)
def test_model_with_what_its_provider_needs_is_accepted(model):
    assert load(_policy(model)).models["m"].provider


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        (
            "provider: vlm, base_url: http://h",
            "models.m.provider: unknown provider 'vlm' (did you mean 'vllm'?)",
        ),
        ("provider: zzz", "unknown provider 'zzz' (known: llamacpp, ollama, openai"),
        ("provider: 'os:'", "unknown provider 'os:'"),
        ("provider: openai", "models.m.api_key: https://api.openai.com/v1 needs it"),
        ("provider: anthropic", "models.m.api_key: https://api.anthropic.com needs it (write api"),
        ("provider: anthropic, api_key: k, logprobs: true", "reports no log-probabilities"),
        ("provider: openai, api_key: k, price: {discount: 1}", "models.m.price.discount"),
        ("provider: openai, api_key: k, price: {discount: 15}", "models.m.price.discount"),
        ("provider: openai, api_key: k, prompt_cache: on", "models.m.prompt_cache"),
        (
            "provider: openai, api_key: k, price: {long_prompts: [{input_per_mtok_usd: 1}]}",
            "models.m.price.long_prompts[0]: the key 'over_tokens' is missing",
        ),
        (
            "provider: local, checkpoint: x, prompt_cache: auto",
            "'prompt_cache' means nothing to provider local",
        ),
        ("provider: vllm", "models.m.base_url: provider vllm needs it (for example http://127"),
        ("provider: local", "models.m.checkpoint: provider local needs it"),
        ("provider: recorded", "models.m.outcomes: provider recorded needs it"),
        (
            "provider: vllm, base_url: http://h, checkpoint: x",
            "models.m.checkpoint: 'checkpoint' means nothing to provider vllm",
        ),
        (
            "provider: local, checkpoint: x, api_key: k",
            "models.m.api_key: 'api_key' means nothing to provider local",
        ),
        (
            "provider: recorded, outcomes: x, threads: 2",
            "models.m.threads: 'threads' means nothing",
        ),
        (
            "provider: vllm, base_url: h:8000/v1",
            "models.m.base_url: expected an http:// or https:// URL",
        ),
        ("provider: vllm, base_url: 'ftp://h'", "expected an http:// or https:// URL with a host"),
        ("provider: vllm, base_url: 'http://'", "expected an http:// or https:// URL with a host"),
        (
            "provider: vllm, base_url: 'http://h/a b'",
            "expected an http:// or https:// URL with a host",
        ),
        (
            "provider: vllm, base_url: 'http://h:99999'",
            "expected a URL, found something that is none",
        ),
        ("provider: vllm, base_url: 'http://[::1'", "expected a URL, found something that is none"),
        (
            "provider: vllm, base_url: 'http://me:pw@h/v1'",
            "a URL may not hold credentials: use api_key",
        ),
        (
            "provider: vllm, base_url: 'http://h/v1?key=1'",
            "a base URL has no query and no fragment",
        ),
        ("provider: openai, api_key: 'sk 1'", "models.m.api_key: expected visible ASCII"),
        ("provider: openai, api_key: ''", "models.m.api_key: expected visible ASCII"),
        ("provider: openai, api_key: k, price: {}", "models.m.price: expected at least one price"),
        (
            "provider: openai, api_key: k, price: free",
            "models.m.price: expected unknown_is_free, found 'free'",
        ),
        ("provider: openai, api_key: k, price: 3", "models.m.price: expected a mapping, found 3"),
        (
            "provider: openai, api_key: k, price: {machine_hour_usd: -1}",
            "price.machine_hour_usd: expected at least 0",
        ),
        (
            "provider: openai, api_key: k, price: {machine_hour_usd: .nan}",
            "machine_hour_usd: expected a number",
        ),
        (
            "provider: openai, api_key: k, context: 0",
            "models.m.context: expected more than 0, found 0",
        ),
        (
            "provider: local, checkpoint: x, quantization: int9",
            "nf4 or fp8, found 'int9' (did you mean 'int8'?)",
        ),
    ],
)
def test_model_that_cannot_work_is_refused(model, fault):
    assert any(fault in line for line in told(_policy(model))), told(_policy(model))


def test_price_keeps_every_digit_that_was_written():
    price = load(_policy("provider: openai, api_key: k, price: {output_per_mtok_usd: 0.123456789}"))

    assert str(price.models["m"].price.output_per_mtok_usd) == "0.123456789"


@pytest.mark.parametrize(
    "model",
    [
        "provider: recorded, outcomes: ./none.parquet",
        "provider: local, checkpoint: ./none",
        "provider: vllm, base_url: https://h, tls: {ca_file: none.pem}",
        "provider: vllm, base_url: https://h, price: {file: none.json}",
    ],
)
def test_file_that_is_not_there_is_named(model, tmp_path):
    (line,) = told(_policy(model), folder=tmp_path)

    assert "nothing stands at './none" in line or "nothing stands at 'none." in line
    assert "paths start at the policy's folder" in line


def test_credentials_in_a_url_are_not_repeated():
    (line,) = told(_policy("provider: vllm, base_url: 'http://me:hunter2@h/v1'"))

    assert "hunter2" not in line
