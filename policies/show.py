"""A policy to look at: with its secrets masked, or as a JSON schema for editors."""

from __future__ import annotations

from typing import Any

from policies.schema import Policy

_REFERENCE = {"type": "string", "pattern": r"^.*\$\{[A-Za-z_][A-Za-z0-9_]*\}.*$"}
_MAY_BE_REFERENCED = frozenset({"boolean", "integer", "number"})


def masked(policy: Policy) -> dict[str, Any]:
    """Return what was written, as JSON values, with every secret as `***`."""
    return policy.model_dump(mode="json", by_alias=True, exclude_unset=True)


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a policy file, for editors that check as one types."""
    schema = Policy.model_json_schema(by_alias=True)
    told = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "frugal policy"}
    return {**_with_references(schema), **told}


def _with_references(schema: Any) -> Any:
    """Let numbers and booleans be `${NAME}` as well."""
    if isinstance(schema, list):
        return [_with_references(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    below = {key: _with_references(value) for key, value in schema.items()}
    if below.get("type") not in _MAY_BE_REFERENCED:
        return below
    default = {"default": below.pop("default")} if "default" in below else {}
    return {"anyOf": [below, _REFERENCE], **default}
