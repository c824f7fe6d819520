"""`/docs` on the admin port: every endpoint and shape, as a page that needs nothing from elsewhere.

Written from the same OpenAPI document that `/openapi.json` gives, without a script: so it
opens offline, behind any prefix, and under the strictest content policy.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_STYLE = """
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 22%,transparent)}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{margin-top:2.5rem;font-size:1.2rem}
h3{font:600 1rem ui-monospace,monospace;margin:1.6rem 0 .2rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:.4rem 0}
th,td{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0}
th,td{border-bottom:1px solid var(--line)}
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}p{margin:.3rem 0}
nav a{margin-right:1rem}a:focus-visible{outline:2px solid}
"""
_METHODS = ("get", "post", "put", "patch", "delete")
Node = Mapping[str, Any]


def docs_routes(app: FastAPI) -> None:
    """Add `/docs`, in place of the page that loads its parts from elsewhere."""

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """Return the page."""
        digest = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
        headers = {
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }
        return HTMLResponse(page(app.openapi()), headers=headers)


def page(told: Node) -> str:
    """Return an OpenAPI document as HTML."""
    title = escape(str(told["info"]["title"]))
    groups: dict[str, list[str]] = defaultdict(list)
    for path, item in told["paths"].items():
        for method in _METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["admin"])[0]
                groups[tag].append("".join(_operation(method, path, item[method])))
    schemas = told.get("components", {}).get("schemas", {})
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in (*groups, "shapes"))
    body = "".join(
        f'<section aria-labelledby="{escape(tag)}"><h2 id="{escape(tag)}">{escape(tag)}</h2>'
        f"{''.join(operations)}</section>"
        for tag, operations in groups.items()
    )
    shapes = "".join("".join(_shape(name, schema)) for name, schema in sorted(schemas.items()))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}: the admin port</title><style>{_STYLE}</style>"
        f"<main><h1>{title}: the admin port</h1>"
        "<p>Send a key as <code>Authorization: Bearer KEY</code>; its scope is "
        "<code>admin</code>, or <code>read</code> for what changes nothing. The same as JSON: "
        f'<a href="openapi.json">openapi.json</a>.</p><nav aria-label="Parts">{links}</nav>'
        f'{body}<section aria-labelledby="shapes"><h2 id="shapes">shapes</h2>{shapes}</section>'
        "</main></html>"
    )


def _operation(method: str, path: str, told: Node) -> Iterator[str]:
    yield f"<h3>{method.upper()} {escape(path)}</h3>"
    yield f"<p>{escape(told.get('description') or told.get('summary') or '')}</p>"
    if parameters := told.get("parameters"):
        yield _table(
            ("parameter", "in", "type", ""),
            [
                (
                    each["name"], each["in"], _kind(each["schema"]),
                    escape(each.get("description") or each["schema"].get("description") or ""),
                )
                for each in parameters
            ],
        )  # fmt: skip
    if "requestBody" in told:
        yield f"<p>Takes {_content(told['requestBody'])}.</p>"
    if content := _content(told["responses"].get("200", {})):
        yield f"<p>Returns {content}.</p>"


def _shape(name: str, told: Node) -> Iterator[str]:
    yield f'<h3 id="shape-{escape(name)}">{escape(name)}</h3>'
    yield f"<p>{escape(told.get('description') or '')}</p>"
    required = told.get("required", ())
    if properties := told.get("properties"):
        yield _table(
            ("member", "type", ""),
            [
                (each, _kind(schema), "" if each in required else "optional")
                for each, schema in properties.items()
            ],
        )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table; the first cell of a row is code, the others are HTML already."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join(
        f"<tr><td><code>{escape(row[0])}</code></td>"
        + "".join(f"<td>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _content(told: Node) -> str:
    kinds = told.get("content", {})
    return " or ".join(
        _kind(each["schema"]) if each.get("schema") else f"<code>{escape(kind)}</code>"
        for kind, each in kinds.items()
    )


def _kind(schema: Node) -> str:
    """Return a type as HTML, each shape a link."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return f'<a href="#shape-{escape(name)}">{escape(name)}</a>'
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(_kind(each) for each in schema[word])
    if "enum" in schema:
        return " or ".join(f"<code>{escape(repr(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return f"<code>{escape(str(schema.get('type', 'any')))}</code>"
