from __future__ import annotations

import re
from pathlib import Path

from policies.loader import parse_policy

ROOT = Path(__file__).parents[2]
SECRETS = {"CI_KEY": "sk-ci", "OPENAI_API_KEY": "sk-upstream"}


def test_the_policy_of_the_readme_is_one_that_check_accepts() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (whole,) = [block for block in blocks if block.startswith("version:")]
    shipped = ROOT / "local_engine" / "demo" / "checkpoints" / "tiny"
    text = whole.replace("/models/Qwen2.5-0.5B-Instruct", str(shipped))

    assert text != whole
    policy = parse_policy(text, name="README.md", env=SECRETS)
    assert list(policy.routes) == ["auto"]


def test_the_policies_of_the_page_on_resilience_are_ones_that_check_accepts() -> None:
    page = (ROOT / "docs" / "resilience.md").read_text()
    route, deployments = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    price = "price: {input_per_mtok_usd: 1, output_per_mtok_usd: 2}"
    models = "\n".join(
        f"  {name}: {{provider: openai, base_url: 'http://h/v1', {price}}}"
        for name in ("mini", "large")
    )
    known = parse_policy(f"version: 1\nmodels:\n{models}\n{route}", name="a", env={})
    several = f"version: 1\n{deployments}    {price}\n"

    assert known.routes["auto"].hedge is not None
    assert len(parse_policy(several, name="b", env={}).models["m"].deployments) == 2
