"""Dataclasses as JSON: read with every type checked, and described as a JSON schema.

One reading of the type hints serves both, so that the description is true.
"""

import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Kind = TypeVar("Kind")
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON schema of a type: plain ones, dataclasses, Literal, unions, tuples, dict[str, T] and Any."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return {}
    if hint is types.NoneType:
        return {"type": "null"}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if origin is Literal:
        return {"type": "string", "enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(part) for part in parts]}
    if origin in (tuple, list):
        schema: dict[str, Any] = {"type": "array", "items": schema_of(parts[0])}
        return (
            schema if parts[-1] is ... or origin is list else schema | {"minItems": len(parts), "maxItems": len(parts)}
        )
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    if isinstance(hint, type) and is_dataclass(hint):
        hints = get_type_hints(hint)
        named = {field.name: schema_of(hints[field.name]) for field in fields(hint)}
        required = [f.name for f in fields(hint) if f.default is MISSING and f.default_factory is MISSING]
        return {"type": "object", "properties": named, "required": required, "additionalProperties": False}
    raise TypeError(f"no JSON schema for {hint}")


def from_json(kind: type[Kind], value: Any) -> Kind:
    """A dataclass of what was read as JSON; raises ValueError, one line, for keys and values that it has not."""
    if not isinstance(value, dict):
        raise ValueError("is no JSON object")
    hints = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(value) - set(known)):
        raise ValueError(f"has {unknown[0][:40]!r}, which is not known here")
    read = {name: _read(hints[name], given, name) for name, given in value.items()}
    for name, field in known.items():
        if name not in read and field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"lacks {name!r}")
    return kind(**read)


def _read(hint: Any, value: Any, name: str) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Literal and isinstance(value, str) and value in parts:
        return value
    if origin in (Union, types.UnionType):
        for part in parts:
            try:
                return _read(part, value, name)
            except ValueError:
                continue
    elif origin is tuple and isinstance(value, list) and (parts[-1] is ... or len(value) == len(parts)):
        return tuple(_read(parts[0], one, name) for one in value)
    elif origin is dict and isinstance(value, dict):
        return {key: _read(parts[1], one, name) for key, one in value.items()}
    elif isinstance(hint, type) and is_dataclass(hint):
        return from_json(hint, value)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif hint in (str, int, bool, types.NoneType) and type(value) is hint:
        return value
    raise ValueError(f"has {name} = {repr(value)[:60]}, which that cannot be")
