"""A chain of ONNX graphs: one that begins, one that is repeated, one that ends.

What is done a number of times, each time with what the last left, is one graph without loop for
every runtime, and the exporter sees what is repeated only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["chained"]


def chained(first: ModelProto, link: ModelProto, last: ModelProto, count: int) -> ModelProto:
    """Join graphs: `first`, then `link` `count` times, then `last`.

    An output ``next_name`` of a link is the input ``name`` of the next one; the first link, and
    `last`, take from `first` what bears the name. An output ``name#`` of `first` is cut along its
    second dimension, and each link takes one of the parts; those of the links are joined for
    `last`.
    """
    from onnx import ModelProto
    from onnx.helper import make_node

    joined = ModelProto()
    joined.CopyFrom(first)
    graph = joined.graph
    for field in (graph.node, graph.initializer, graph.value_info, graph.output):
        del field[:]
    known = {entry.name: entry.name for entry in graph.input}
    known |= _append(graph, first.graph, "first", known)
    own = [entry.name for entry in link.graph.input if entry.name[-1] == "#"]
    parts = {name: [f"{name}{k}" for k in range(count)] for name in own}
    for name in own:
        graph.node.append(make_node("Split", [known[name]], parts[name], axis=1, num_outputs=count))
    gathered: dict[str, list[str]] = {}
    for k in range(count):
        given = {entry.name: known.get(entry.name, "") for entry in link.graph.input}
        given |= {name: parts[name][k] for name in own}
        found = _append(graph, link.graph, f"link{k}", given, "link", weights=k == 0)
        known |= {name.removeprefix("next_"): place for name, place in found.items()}
        for name in found:
            gathered.setdefault(name, []).append(found[name])
    for name in gathered:
        if name[-1] == "#":
            graph.node.append(make_node("Concat", gathered[name], [f"all_{name}"], axis=1))
            known[name] = f"all_{name}"
    given = {entry.name: known[entry.name] for entry in last.graph.input}
    found = _append(graph, last.graph, "last", given)
    graph.output.extend(last.graph.output)
    for entry in graph.output:
        graph.node.add(op_type="Identity", input=[found[entry.name]], output=[entry.name])
    return joined


def _append(
    whole: GraphProto, part: GraphProto, prefix: str, given: Mapping[str, str],
    shared: str | None = None, weights: bool = True,
) -> dict[str, str]:  # fmt: skip
    """Append the nodes of a part, whose inputs are `given`; returns where its outputs are.

    `shared` is the prefix of its weights, which are appended too if asked for.
    """
    names = {"": "", **given}
    for weight in part.initializer:
        names[weight.name] = f"{shared or prefix}.{weight.name}"
        if weights:
            whole.initializer.add().CopyFrom(weight)
            whole.initializer[-1].name = names[weight.name]
    for node in _needed(part):
        copy = whole.node.add()
        copy.CopyFrom(node)
        copy.name = f"{prefix}.{node.name}" if node.name else ""
        names |= {name: f"{prefix}.{name}" for name in node.output if name}
        copy.input[:] = [names[name] for name in node.input]
        copy.output[:] = [names[name] for name in node.output]
        del copy.metadata_props[:]
    return {entry.name: names[entry.name] for entry in part.output}


def _needed(part: GraphProto) -> Iterable[NodeProto]:
    """The nodes of a graph that its outputs depend on, in their order."""
    wanted = {entry.name for entry in part.output}
    kept: list[NodeProto] = []
    for node in reversed(part.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]
