"""The running policy over HTTP: shown without secrets, tried out, changed, and taken back."""

from __future__ import annotations

import pytest

from tests.support.gateway_app import serving

ADMIN = "sk-admin-0123456789abcdef"
READER = "sk-reader-0123456789abcdef"
PROVIDERS = "sk-provider-0123456789"
TEXT = f"""\
version: 1
access:
  anonymous: loopback
  keys:
    - {{name: boss, key: {ADMIN}, scopes: [admin]}}
    - {{name: finance, key: {READER}, scopes: [read]}}
models:
  large:
    provider: openai
    base_url: http://127.0.0.1:1/v1
    api_key: {PROVIDERS}
    price: {{input_per_mtok_usd: 1, output_per_mtok_usd: 2}}
routes:
  auto: {{model: large}}
"""
AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture
async def gateway(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(TEXT)
    async with serving(TEXT, tmp_path, path=path) as running:
        yield running


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.yaml"


async def _post(gateway, what, headers=AS_ADMIN, **body):
    return await gateway.admin.post(f"/admin/policy/{what}", json=body, headers=headers)


async def _text(gateway, headers=AS_ADMIN):
    return (await gateway.admin.get("/admin/policy/text", headers=headers)).json()


async def test_the_text_is_shown_without_its_secrets(gateway):
    told = await _text(gateway, {"authorization": f"Bearer {READER}"})

    assert not any(secret in told["text"] for secret in (ADMIN, READER, PROVIDERS))
    assert "base_url: http://127.0.0.1:1/v1" in told["text"]
    assert told["file"] == "policy.yaml"


async def test_an_edited_policy_is_followed_and_written_with_its_secrets(gateway, path):
    told = await _text(gateway)
    edited = told["text"].replace("auto: {model: large}", "best: {model: large}")
    answer = await _post(gateway, "apply", text=edited, based_on=told["revision"])
    models = (await gateway.client.get("/v1/models", headers=AS_ADMIN)).json()
    shown = (await gateway.admin.get("/admin/policy", headers=AS_ADMIN)).json()

    assert answer.status_code == 200, answer.text
    assert path.read_text() == TEXT.replace("auto: {", "best: {")
    assert list(shown["routes"]) == ["best"]
    assert models["object"] == "list"


async def test_versions_are_kept_and_one_can_go_back(gateway, path):
    edited = (await _text(gateway))["text"].replace("auto:", "best:")
    await _post(gateway, "apply", text=edited)
    history = (await gateway.admin.get("/admin/policy/history", headers=AS_ADMIN)).json()["data"]
    old = (await gateway.admin.get("/admin/policy/history/1", headers=AS_ADMIN)).json()["text"]
    back = await _post(gateway, "rollback", version=1)

    assert [(each["version"], each["by"], each["is_current"]) for each in history] == [
        (2, "boss", True), (1, "file", False),
    ]  # fmt: skip
    assert "auto:" in old
    assert ADMIN not in old
    assert back.json()["version"] == 3
    assert path.read_text() == TEXT


async def test_faults_are_told_with_their_lines(gateway, path):
    edited = (await _text(gateway))["text"].replace("model: large}", "modle: large}")
    told = (await _post(gateway, "check", text=edited)).json()
    refused = await _post(gateway, "apply", text=edited)

    assert not told["ok"]
    assert (told["problems"][0]["line"], told["problems"][0]["path"]) == (14, "routes.auto.modle")
    assert refused.status_code == 400
    assert refused.json()["problems"] == told["problems"]
    assert path.read_text() == TEXT


async def test_a_policy_that_is_right_has_no_faults(gateway):
    told = (await _post(gateway, "check", text=(await _text(gateway))["text"])).json()

    assert told["ok"]
    assert told["problems"] == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("http://127.0.0.1:1/v1", "https://evil.example/v1", "an address"),
        ("provider: openai", "provider: evil.module:Provider", "a class"),
        ("name: boss", 'name: "${HOME}"', "a reference"),
        ("version: 1", "version: 1\nalerts: {url: https://evil.example/}", "an address"),
        ("version: 1", "version: 1\nstorage: {ledger: /etc/x.db}", "an address"),
        ("{input_per_mtok_usd: 1, output_per_mtok_usd: 2}", "{file: ../../etc/passwd}", "a file"),
    ],
)
async def test_addresses_classes_references_and_files_do_not_come_over_http(
    gateway, path, old, new, what
):
    edited = (await _text(gateway))["text"].replace(old, new)
    answer = await _post(gateway, "apply", text=edited)

    assert answer.status_code == 400
    assert what in answer.text
    assert path.read_text() == TEXT


async def test_an_edit_of_what_is_no_longer_there_is_refused(gateway, path):
    told = await _text(gateway)
    path.write_text(TEXT + "# by hand\n")
    answer = await _post(gateway, "apply", text=told["text"], based_on=told["revision"])

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "policy_outdated"


async def test_what_cannot_be_followed_leaves_the_file_as_it_was(gateway, path):
    text = (await _text(gateway))["text"].replace(
        "auto: {model: large}",
        "auto: {cascade: {tiers: [large], confidence: learned, bundle: none}}",
    )
    answer = await _post(gateway, "apply", text=text)
    shown = (await gateway.admin.get("/admin/policy", headers=AS_ADMIN)).json()

    assert answer.status_code in (400, 409)
    assert path.read_text() == TEXT
    assert shown["routes"]["auto"] == {"model": "large"}


@pytest.mark.parametrize("headers", [{}, {"authorization": f"Bearer {READER}"}])
@pytest.mark.parametrize("what", ["apply", "rollback"])
async def test_only_an_admin_with_a_key_changes_anything(gateway, headers, what):
    body = {"text": TEXT} if what == "apply" else {"version": 1}
    answer = await _post(gateway, what, headers, **body)

    assert answer.status_code == 403


async def test_without_a_file_there_is_nothing_to_change(tmp_path):
    async with serving(TEXT, tmp_path) as gateway:
        answer = await gateway.admin.get("/admin/policy/text", headers=AS_ADMIN)

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "no_policy_file"
