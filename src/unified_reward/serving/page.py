"""/docs: the OpenAPI description as one page, with nothing loaded from elsewhere (a cluster may have no internet)."""

from __future__ import annotations

import json
from html import escape
from typing import Any

EXAMPLES = {
    "/v1/score": {"items": [{"caption": "a red ring", "images": ["data:image/png;base64,..."]}]},
    "/v1/compare": {"items": [{"caption": "a red ring", "images": ["data:image/png;base64,...", "..."]}]},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}, {"type": "text", "text": "..."},
        ]}],
        "temperature": 0, "max_tokens": 64,
    },
}  # fmt: skip
STYLE = "body{font:16px/1.5 system-ui;max-width:56em;margin:2em auto;padding:0 1em}pre{background:#f4f4f4;padding:.7em}"


def docs_page(openapi: dict[str, Any], name: str) -> str:
    parts = [f"<!doctype html><meta charset=utf-8><title>Unified Reward judge</title><style>{STYLE}</style>"]
    parts.append(f"<h1>Unified Reward judge</h1><p>Model <code>{escape(name)}</code>. Machine-readable: ")
    parts.append('<a href="/openapi.json">/openapi.json</a>. Also: /healthz, /readyz, /metrics.</p>')
    for path, methods in openapi["paths"].items():
        for method, route in methods.items():
            parts.append(f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(route.get('description', ''))}</p>")
            if path in EXAMPLES:
                parts.append(f"<pre>{escape(json.dumps(EXAMPLES[path], indent=1))}</pre>")
            told = [f"<li>{code} {escape(answer['description'])}</li>" for code, answer in route["responses"].items()]
            parts.append(f"<ul>{''.join(told)}</ul>")
    for schema, shape in openapi.get("components", {}).get("schemas", {}).items():
        fields = [
            f"<li><code>{escape(field)}</code> {escape(str(about.get('description', about.get('type', ''))))}</li>"
            for field, about in shape.get("properties", {}).items()
        ]
        parts.append(
            f"<h3>{escape(schema)}</h3><p>{escape(shape.get('description', ''))}</p><ul>{''.join(fields)}</ul>"
        )
    return "".join(parts)
