"""A page that shows both documents, for readers: HTML and one style sheet, no script.

It is made of the documents alone, so it says what they say.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

Document = Mapping[str, Any]

STYLE: Final = (files("pushsvc.web.spec") / "page.css").read_text("utf-8")
POLICY: Final = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The content security policy of the page: its own style sheet, and nothing from anywhere."""

MAX_LINE: Final = 84
"""Characters of a line of an example."""

_code = re.compile(r"`([^`]+)`")


def page(openapi: Document, asyncapi: Document) -> bytes:
    """The page, as HTML in UTF-8."""
    groups = _operations(openapi)
    sent, taken = _messages(asyncapi)
    parts = [
        _top(openapi),
        *(_group(name, meaning, operations) for name, meaning, operations in groups),
        _section("messages", "Messages of the socket", _prose(asyncapi["info"]["description"])),
        *(_message(message, asyncapi, "server") for message in sent),
        *(_message(message, asyncapi, "client") for message in taken),
        _section("close-codes", "Close codes", _close_codes(asyncapi)),
        _section("errors", "Errors", _errors(asyncapi)),
        _section("schemas", "Schemas", "<p>The bodies of requests and answers.</p>"),
        *(_schema(name, schema) for name, schema in openapi["components"]["schemas"].items()),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(openapi['info']['title'])} API</title>\n<style>{STYLE}</style>\n</head>\n"
        '<body>\n<a class="skip" href="#content">Skip to the content</a>\n<div class="layout">\n'
        f"{_contents(groups, sent, taken, openapi)}\n"
        f'<main id="content">\n{"".join(parts)}</main>\n</div>\n</body>\n</html>\n'
    ).encode()


# --- what is in the documents --------------------------------------------------------------------

Operation = tuple[str, str, Mapping[str, Any]]


def _operations(openapi: Document) -> list[tuple[str, str, list[Operation]]]:
    """The operations (method, path, what it is) of each tag."""
    found: dict[str, list[Operation]] = {tag["name"]: [] for tag in openapi["tags"]}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            found[operation["tags"][0]].append((method, path, operation))
    for methods in openapi.get("webhooks", {}).values():
        for method, operation in methods.items():
            found[operation["tags"][0]].append((method, "your webhook", operation))
    return [(tag["name"], tag["description"], found[tag["name"]]) for tag in openapi["tags"]]


def _messages(asyncapi: Document) -> tuple[list[str], list[str]]:
    """The messages that the server and the client send."""
    names = list(asyncapi["components"]["messages"])
    return (
        [name for name in names if name.startswith("server.")],
        [name for name in names if name.startswith("client.")],
    )


# --- parts of the page ---------------------------------------------------------------------------


def _top(openapi: Document) -> str:
    info = openapi["info"]
    return (
        f"<h1>{_text(info['title'])} <small>{_text(info['version'])}</small></h1>\n"
        f"{_prose(info['description'])}"
        '<p>As documents: <a href="/openapi.json">OpenAPI 3.1</a> · '
        '<a href="/asyncapi.json">AsyncAPI 3.0</a></p>\n'
    )


def _contents(
    groups: list[tuple[str, str, list[Operation]]],
    sent: Iterable[str],
    taken: Iterable[str],
    openapi: Document,
) -> str:
    lists = [
        (
            name,
            [(op["operationId"], f"{_verb(method)}{_breakable(path)}") for method, path, op in ops],
        )
        for name, _, ops in groups
    ]
    lists += [
        ("server sends", [(name, _text(name.partition(".")[2])) for name in sent]),
        ("client sends", [(name, _text(name.partition(".")[2])) for name in taken]),
        ("tables", [("close-codes", "Close codes"), ("errors", "Errors")]),
        ("schemas", [(f"schema-{n}", _text(n)) for n in openapi["components"]["schemas"]]),
    ]
    shown = "".join(
        f"<b>{_text(title)}</b>\n<ul>"
        + "".join(f'<li><a href="#{_text(target)}">{label}</a></li>' for target, label in links)
        + "</ul>\n"
        for title, links in lists
    )
    return f'<nav aria-label="Contents">\n{shown}</nav>'


def _section(anchor: str, title: str, body: str) -> str:
    return f'<h2 id="{anchor}">{_text(title)}</h2>\n{body}'


def _group(name: str, meaning: str, operations: Iterable[Operation]) -> str:
    return _section(f"group-{name}", name.capitalize(), _prose(meaning)) + "".join(
        _operation(*operation) for operation in operations
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    anchor = _text(operation["operationId"])
    parts = [
        f'<article id="{anchor}">\n',
        f"<h3>{_verb(method)}{_self(anchor, path)}</h3>\n",
        f'<p class="summary">{_inline(operation["summary"])}</p>\n',
        _prose(operation["description"]),
        _needs(operation["security"]),
        _parameters(operation.get("parameters", [])),
        *_bodies(operation.get("requestBody")),
        _answers(operation["responses"]),
        "</article>\n",
    ]
    return "".join(parts)


def _needs(security: Sequence[Mapping[str, Any]]) -> str:
    names = {
        "bearer": "a bearer token",
        "capability": "the capability of a push",
        "ticket": "a ticket (<code>?ticket=</code>)",
    }
    needed = " or ".join(names[name] for each in security for name in each)
    return f'<p class="needs">Authorization: {needed or "none"}.</p>\n'


def _parameters(parameters: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (
            f"<code>{_text(each['name'])}</code>",
            _text(each["in"]),
            _kind(each["schema"]) + _bounds(each["schema"]),
            _inline(each["description"]),
        )
        for each in parameters
    ]
    return _table("Parameters", ("name", "in", "type", "meaning"), rows) if rows else ""


def _bodies(body: Mapping[str, Any] | None) -> Iterable[str]:
    for media_type, content in (body or {"content": {}})["content"].items():
        yield f"<h4>Body <code>{_text(media_type)}</code>: {_kind(content['schema'])}</h4>\n"
        for name, example in content["examples"].items():
            yield _example(example["value"], name if len(content["examples"]) > 1 else "")


def _answers(responses: Mapping[str, Any]) -> str:
    rows = []
    examples = ""
    for status, answer in responses.items():
        kinds = [
            f"{_kind(content['schema'])}<br><span class='soft'>{_text(media_type)}</span>"
            for media_type, content in answer.get("content", {}).items()
            if content["schema"]
        ]
        for content in answer.get("content", {}).values():
            if "example" in content:
                examples += _example(content["example"], f"answer {status}")
        headers = "".join(
            f"<br><span class='soft'>header <code>{_text(name)}</code></span>"
            for name in answer.get("headers", {})
        )
        rows.append((_text(status), _inline(answer["description"]) + headers, "".join(kinds)))
    return _table("Answers", ("status", "when", "body"), rows) + examples


def _message(name: str, asyncapi: Document, sender: str) -> str:
    message = asyncapi["components"]["messages"][name]
    schema = asyncapi["components"]["schemas"][name]
    anchor = _text(name)
    return (
        f'<article id="{anchor}">\n<h3><span class="verb {sender}">{sender.upper()}</span>'
        f"{_self(anchor, message['name'])}</h3>\n"
        f"{_prose(message['summary'])}{_fields(schema)}"
        + "".join(_example(example["payload"]) for example in message["examples"])
        + "</article>\n"
    )


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    anchor = f"schema-{_text(name)}"
    return (
        f'<article id="{anchor}">\n<h3>{_self(anchor, name)}</h3>\n'
        f"{_prose(schema['description'])}{_fields(schema)}</article>\n"
    )


def _close_codes(asyncapi: Document) -> str:
    return "<p>4000 to 4499 means reconnect, 4500 to 4999 stop.</p>\n" + _table(
        "",
        ("code", "reason", "what to do"),
        [
            (str(each["code"]), _text(each["reason"] or "the peer closed"), _text(each["then"]))
            for each in asyncapi["x-close-codes"]
        ],
    )


def _errors(asyncapi: Document) -> str:
    prose = (
        "The `type` of a problem is `urn:pushsvc:problem:` and the code; an `error` message on a "
        "socket has the code alone."
    )
    return _prose(prose) + _table(
        "",
        ("code", "status", "meaning"),
        [
            (
                f"<code>{_text(each['code'])}</code>",
                str(each["status"] or "none"),
                _inline(each["meaning"]),
            )
            for each in asyncapi["x-errors"]
        ],
    )


# --- schemas in words ----------------------------------------------------------------------------


def _fields(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return f"<p>{_kind(schema)}</p>\n"
    required = schema.get("required", [])
    rows = [
        (
            f"<code>{_text(name)}</code>" + ("" if name in required else " <i>optional</i>"),
            _kind(field) + _bounds(field),
            _inline(field.get("description", "")),
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table("", ("field", "type", "meaning"), rows) if rows else ""


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a value in words."""
    if "$ref" in schema:
        name = _text(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "const" in schema:
        return f"<code>{_text(json.dumps(schema['const']))}</code>"
    if "enum" in schema:
        if len(schema["enum"]) > 8:
            return "one of many, see its meaning"
        return " or ".join(f"<code>{_text(json.dumps(each))}</code>" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    kinds = schema.get("type", "any JSON")
    if kinds == "array":
        return f"list of {_kind(schema['items'])}"
    if kinds == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_kind(schema['additionalProperties'])}"
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "minimum": "at least {}",
        "maximum": "at most {}",
        "minItems": "at least {} items",
        "maxItems": "at most {} items",
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "format": "{}",
    }
    told = ", ".join(word.format(schema[name]) for name, word in words.items() if name in schema)
    return f"<br><span class='soft'>{_text(told)}</span>" if told else ""


# --- HTML ----------------------------------------------------------------------------------------


def _text(text: str) -> str:
    return html.escape(text)


def _breakable(path: str) -> str:
    """A path that a narrow column breaks before a slash."""
    return _text(path).replace("/", "<wbr>/")


def _inline(text: str) -> str:
    """Lines of Markdown, of which the documents use backquotes only."""
    return _code.sub(r"<code>\1</code>", _text(text)).replace("\n", "<br>")


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(each)}</p>\n" for each in text.split("\n\n"))


def _self(anchor: str, title: str) -> str:
    """The title of a part, which links to it."""
    return f'<a class="self" href="#{anchor}"><code>{_text(title)}</code></a>'


def _verb(method: str) -> str:
    return f'<span class="verb {method}">{method.upper()}</span>'


def _example(value: Any, title: str = "") -> str:
    shown = value if isinstance(value, str) else _json(value)
    head = f"<h4>Example{': ' + _text(title) if title else ''}</h4>\n"
    return f"{head if title else ''}<pre>{_text(shown.rstrip())}</pre>\n"


def _json(value: Any, indent: str = "") -> str:
    """JSON in few lines: what fits on one is on one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= MAX_LINE or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(name)}: {_json(each, inner)}" for name, each in value.items()]
        begin, end = "{", "}"
    else:
        items = [_json(each, inner) for each in value]
        begin, end = "[", "]"
    return f"{begin}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{end}"


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>\n" for row in rows)
    caption = f"<h4>{_text(title)}</h4>\n" if title else ""
    return f"{caption}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"
