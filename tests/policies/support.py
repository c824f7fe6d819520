"""Short ways to load policies in tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from policies.loader import PolicyError, Problem, parse_policy
from policies.schema import Policy

SMALL = """
version: 1
models:
  tiny: {provider: local, checkpoint: demo/tiny, price: {machine_hour_usd: 0.40}}
  mini: {provider: vllm, base_url: http://vllm:8000/v1, price: unknown_is_free}
  large: {provider: openai, api_key: sk-large}
"""


def load(text: str, env: Mapping[str, str] | None = None, folder: Path | None = None) -> Policy:
    """Parse a policy that is expected to be sound."""
    return parse_policy(text, name="p.yaml", env=env or {}, folder=folder)


def problems(
    text: str, env: Mapping[str, str] | None = None, folder: Path | None = None
) -> tuple[Problem, ...]:
    """Return what is wrong with a policy; nothing where it loads."""
    try:
        load(text, env, folder)
    except PolicyError as exc:
        return exc.problems
    return ()


def told(text: str, env: Mapping[str, str] | None = None, folder: Path | None = None) -> list[str]:
    """Return the problems as a person reads them."""
    return [str(problem) for problem in problems(text, env, folder)]


def routes(text: str) -> str:
    """Return a policy of three models with the given routes, which start on line 7."""
    return SMALL.strip("\n") + "\nroutes:\n" + text
