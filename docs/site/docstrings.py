"""Parameters in our docstrings, `name: what it is` a line, shown as a list; griffe calls this for every object."""

import re
from typing import Any

import griffe

_PARAMETER = re.compile(r"^(\w+(?:, \w+)*): (?=\S)")


class ParametersAsList(griffe.Extension):  # type: ignore[misc]  # whose types are skipped
    """Begins a list item at each line of the kind, in docstrings of functions and classes that have the parameter."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """A function's own parameters."""
        _as_list(func, {parameter.name for parameter in func.parameters})

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """A class's: those of its initializer, and a dataclass's fields."""
        made = cls.members.get("__init__")
        names = {parameter.name for parameter in made.parameters} if isinstance(made, griffe.Function) else set()
        _as_list(cls, names | set(cls.members))


def _as_list(owner: griffe.Object, names: set[str]) -> None:
    if owner.docstring is None:
        return
    lines: list[str] = []
    within = False
    for line in owner.docstring.value.splitlines():
        found = _PARAMETER.match(line)
        if found and set(found[1].split(", ")) <= names:
            lines += ([] if within else [""]) + [f"- **{found[1]}**: {line[found.end() :]}"]
            within = True
        elif within and line.strip() and not line.startswith(" "):
            lines += ["  " + line]
        else:
            within = within and bool(line.strip())
            lines.append(line)
    owner.docstring.value = "\n".join(lines)
