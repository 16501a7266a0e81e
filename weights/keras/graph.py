"""A Keras model's configuration as a graph: its layers, nested models and all, and what feeds each of them.

Knows the forms that Keras 1 to 3 write; what the layers do is left to `front` and `trunk`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import WeightsError

MAX_LAYERS = 10_000
MAX_NESTING = 16


@dataclass(frozen=True)
class Tensor:
    """What a layer's call gives: the layer's name in its own model, and which of its calls."""

    layer: str
    call: int


@dataclass(frozen=True)
class Call:
    """The arguments of one call; tensors among them are `Tensor`, whatever they are nested in."""

    positional: list[Any]
    named: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        return list(_tensors_in([self.positional, self.named]))


class Layer:
    """One layer that is no model, at its place in the graph."""

    def __init__(self, described: dict[str, Any], model: "Model", group: str) -> None:
        self.kind = str(described["class_name"])
        self.settings: dict[str, Any] = described["config"]
        self.name = str(described.get("name") or self.settings.get("name"))
        self.model = model
        self.group = group
        """Where Keras 3 stores its variables."""
        self.calls = [_call(node) for node in described.get("inbound_nodes") or ()]


class Model:
    """A model, the outermost or one that is a layer of another."""

    def __init__(self, described: dict[str, Any], outer: "Model | None", group: str, nesting: int = 0) -> None:
        if nesting > MAX_NESTING:
            raise WeightsError("its models are nested without end; save it again")
        inner = described["config"]
        self.name = str(described.get("name") or (inner.get("name") if isinstance(inner, dict) else None))
        self.outer = outer
        self.calls = [_call(node) for node in described.get("inbound_nodes") or ()]
        layers = inner if isinstance(inner, list) else inner["layers"]  # Keras 1 stored a Sequential as a list
        self.members: dict[str, Layer | Model] = {}
        numbers: dict[str, int] = {}
        for one in layers[: MAX_LAYERS + 1]:
            snake = _snake_case(str(one["class_name"]))
            numbers[snake] = numbers.get(snake, -1) + 1
            where = f"{group}/layers/{snake}" + (f"_{numbers[snake]}" if numbers[snake] else "")
            member = Model(one, self, where, nesting + 1) if holds_layers(one) else Layer(one, self, where)
            self.members[member.name] = member
        self.order = list(self.members)
        self.is_sequence = isinstance(inner, list) or "output_layers" not in inner
        self.outputs = [] if isinstance(inner, list) else _histories(inner.get("output_layers"))

    def layers(self) -> Iterator[Layer]:
        """Every layer that is no model, nested ones in their place."""
        for member in self.members.values():
            if isinstance(member, Model):
                yield from member.layers()
            else:
                yield member


@dataclass(frozen=True, eq=False)
class Step:
    """A call of a layer, and of the models around it, the innermost last."""

    layer: Layer
    call: int
    around: tuple[int, ...]


def holds_layers(described: Any) -> bool:
    """Whether a configuration lists the layers of a model."""
    if not isinstance(described, dict):
        return False
    inner = described.get("config")
    if isinstance(inner, list):
        return described.get("class_name") == "Sequential"
    return isinstance(inner, dict) and isinstance(inner.get("layers"), list)


def model_of(config: Any) -> Model | None:
    """The model that a parsed configuration describes, or None where it lists no layers."""
    return Model(config, None, "") if holds_layers(config) else None


def first_step(layer: Layer) -> Step:
    """The layer's first call, in the first call of every model around it."""
    depth = 0
    model = layer.model
    while model.outer is not None:
        depth, model = depth + 1, model.outer
    return Step(layer, 0, (0,) * depth)


def arguments(step: Step) -> Call | None:
    """What the step is called with, where the configuration says so."""
    calls = step.layer.calls
    return None if not calls else calls[min(step.call, len(calls) - 1)]


def sources(step: Step) -> list[Step]:
    """The steps that feed `step`; none for what is fed from outside."""
    return _sources(step.layer, step.call, step.around)


def step_of(step: Step, tensor: Tensor) -> list[Step]:
    """The steps behind one of the tensors that `step` is called with."""
    return _resolved(step.layer.model, tensor, step.around)


def _sources(member: Layer | Model, call: int, around: tuple[int, ...]) -> list[Step]:
    model = member.model if isinstance(member, Layer) else member.outer
    if model is None:
        return []
    if model.is_sequence:
        at = model.order.index(member.name)
        if at > 0:
            return _resolved(model, Tensor(model.order[at - 1], 0), around)
    elif member.calls:
        tensors = member.calls[min(call, len(member.calls) - 1)].tensors
        return [step for tensor in tensors for step in _resolved(model, tensor, around)]
    # The first layer of a nested model is fed by what feeds the model.
    return _sources(model, around[-1], around[:-1]) if around else []


def _resolved(model: Model, tensor: Tensor, around: tuple[int, ...]) -> list[Step]:
    """The step whose result `tensor` is: a nested model's is that of its last layer."""
    member = model.members[tensor.layer]
    if isinstance(member, Layer):
        step = Step(member, tensor.call, around)
        if member.kind == "InputLayer" and around:
            return _sources(model, around[-1], around[:-1])
        return [step]
    last = member.outputs or [Tensor(member.order[-1], 0)]
    return _resolved(member, last[0], (*around, tensor.call))


def followers(layer: Layer) -> list[Layer]:
    """The layers that take what `layer` gives, in its own model or in those around it."""
    member: Layer | Model = layer
    while True:
        model = member.model if isinstance(member, Layer) else member.outer
        if model is None:
            return []
        if model.is_sequence:
            at = model.order.index(member.name)
            found = [model.members[name] for name in model.order[at + 1 : at + 2]]
        else:
            found = [
                other
                for other in model.members.values()
                if any(tensor.layer == member.name for call in other.calls for tensor in call.tensors)
            ]
        if found:
            return [one for one in found if isinstance(one, Layer)]
        if not model.is_sequence and member.name not in [tensor.layer for tensor in model.outputs]:
            return []
        member = model


def _snake_case(name: str) -> str:
    """As Keras 3 names groups: Conv2D is conv2d, MaxPooling2D max_pooling2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _call(node: Any) -> Call:
    if isinstance(node, dict):  # Keras 3
        return Call([_plain(value) for value in node.get("args", [])], _plain(node.get("kwargs", {})))
    if node and isinstance(node[0], str):  # an operation of tf.keras: name, call, tensor, keywords
        node = [node]
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for entry in node:
        if entry[0] == "_CONSTANT_VALUE":
            positional.append(entry[2])
        else:
            positional.append(Tensor(str(entry[0]), int(entry[1])))
        if len(entry) > 3 and isinstance(entry[3], dict):
            named |= {key: _keyword(value) for key, value in entry[3].items()}
    return Call(positional, named)


def _keyword(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        return Tensor(value[0], int(value[1]))
    return value


def _plain(value: Any) -> Any:
    """Keras 3's arguments with its wrappings taken off."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind, inner = value.get("class_name"), value.get("config")
    if kind == "__keras_tensor__" and isinstance(inner, dict):
        name, call, _ = inner["keras_history"]
        return Tensor(str(name), int(call))
    if kind in ("__tensor__", "__numpy__") and isinstance(inner, dict):
        return inner["value"]
    if kind == "__ellipsis__":
        return ...
    if kind == "__slice__" and isinstance(inner, dict):
        return slice(inner["start"], inner["stop"], inner["step"])
    return {key: _plain(one) for key, one in value.items()}


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _tensors_in(one)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))


def _histories(stored: Any) -> list[Tensor]:
    """[["a", 0, 0], …] or, for a single one, ["a", 0, 0]."""
    if not isinstance(stored, list) or not stored:
        return []
    if isinstance(stored[0], str):
        stored = [stored]
    return [Tensor(str(entry[0]), int(entry[1])) for entry in stored if isinstance(entry, list)]
