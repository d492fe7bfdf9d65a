"""ONNX graphs of modules, and files of them.

Written by torch's exporter at opset 20 and IR version 8, which ONNX Runtime loads from 1.17.3 on.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["graph_of", "whole_graph", "write_graph", "write_onnx"]

OPSET, IR_VERSION = 20, 8


def graph_of(
    module: nn.Module, example: tuple[Tensor, ...], inputs: Sequence[str], outputs: Sequence[str],
    shapes: Any,
) -> ModelProto:  # fmt: skip
    """The graph of a module that takes what `example` holds, tensors (B, ...), no unit.

    `shapes`: which of their sizes may be others, as `torch.export` takes it.
    """
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module, example, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=inputs, output_names=outputs, dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None
    proto: ModelProto = program.model_proto
    return proto


def whole_graph(module: nn.Module, example: tuple[Tensor, ...]) -> ModelProto:
    """The graph of a module that makes showers.

    `example`: its inputs, conditions (B, C) and noise (B, M) if it takes that, no unit.
    """
    from torch.export import Dim

    names, batch = ["conditions", "noise"][: len(example)], Dim("batch")
    return graph_of(module, example, names, ["showers"], tuple({0: batch} for _ in example))


def write_graph(proto: ModelProto, told: Mapping[str, str], path: Path) -> None:
    """Write a graph, with what is to be `told` of it, to an ONNX file."""
    import onnx

    proto.ir_version = IR_VERSION
    for key, value in told.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def write_onnx(
    module: nn.Module, example: tuple[Tensor, ...], told: Mapping[str, str], path: Path
) -> None:
    """Write a module that makes showers to an ONNX file; see `whole_graph`, `write_graph`.

    `example`: its inputs, conditions (B, C) and noise (B, M) if it takes that, no unit.
    """
    write_graph(whole_graph(module, example), told, path)


class _quiet:  # noqa: N801
    """Keep torch's exporter from warning of packages that are not needed."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)
