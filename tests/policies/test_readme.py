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
