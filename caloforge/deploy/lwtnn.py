r"""A decoder of dense layers as a JSON file for LWTNN, as Par04's ``Par04LwtnnInference`` reads it.

LWTNN (github.com/lwtnn/lwtnn, doi:10.5281/zenodo.597221) evaluates small networks in C++ with
Eigen alone. A file is a graph: inputs by name, each with an offset and a scale, :math:`(x + o) s`;
nodes; layers with their weights, row after row of (outputs, inputs), a bias and an activation; and
outputs by name. Par04 fills one input, ``node_0``, with ``variable_0``, ``variable_1``, ... (the
latent vector, then the four conditions of `par04.VaeInput`) and reads ``out_0``, ``out_1``, ... in
the order of the cells, as fractions of the incident energy.

A normalisation :math:`g y + h` between two layers is one with the second:
:math:`W (g y + h) + b = (W g) y + (W h + b)`. Which detector it is, Par04 says the same of every
one: it is put into the bias of the first layer, and what Par04 says is not listened to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from caloforge.deploy.par04 import VAE_CONDITIONS
from caloforge.detector.descriptors import descriptors
from caloforge.detector.detector import Detector
from caloforge.errors import RequestError
from caloforge.learn.checkpoint import Model
from caloforge.learn.models.dense import LEAK, Normalisation
from caloforge.learn.models.vae import FourNumbers

__all__ = ["Dense", "Folded", "check_dense", "folded", "write_lwtnn"]

NEEDED = {
    "conditions": "par04", "loss": "bce", "divide": "incident_mev", "transform": "none",
}  # fmt: skip
DIGITS = 9  # What a number of 32 bits has.


@dataclass(frozen=True)
class Dense:
    """One layer: weights (outputs, inputs), bias (outputs,), and whether it is the last."""

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    last: bool

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate the layer: (B, outputs) from x (B, inputs), no unit."""
        y = x @ self.weights.T + self.bias
        return 1 / (1 + np.exp(-y)) if self.last else np.where(y > 0, y, LEAK * y)


@dataclass(frozen=True)
class Folded:
    """A decoder as dense layers only; offset and scale (L + 4,) of its inputs, no unit."""

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    layers: tuple[Dense, ...]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractions of the incident energy (B, cells) from Par04's numbers x (B, L + 4)."""
        x = (x + self.offset) * self.scale
        for layer in self.layers:
            x = layer(x)
        return x


def check_dense(model: Model, name: str) -> None:
    """Raise `RequestError` if a model, opened as `name`, is more than dense layers."""
    if model.family != "vae":
        raise RequestError(
            f"LWTNN knows dense layers only, and '{name}' is of kind '{model.family}'; train a "
            "model of kind 'vae', or use --format onnx"
        )
    config = model.network.config
    has = {"conditions": config.conditions, "loss": config.loss} | config.voxels.model_dump()
    wrong = {key: value for key, value in NEEDED.items() if has[key] != value}
    if wrong:
        raise RequestError(
            f"for LWTNN '{name}' must be trained with "
            + " and ".join(f"{key} = '{value}'" for key, value in wrong.items())
            + "; see recipes/vae-par04.toml, or use --format onnx"
        )


def folded(model: Model, detector: Detector) -> Folded:
    """Return the decoder of a model for one detector; raises `RequestError` for an unknown one."""
    network, told = model.network, model.network.told
    assert isinstance(told, FourNumbers)
    features = torch.from_numpy(descriptors(detector))[None]
    one_hot = told.which(features)[0].double().numpy()
    if one_hot.sum() != 1:
        raise RequestError(
            f"the model tells two detectors apart and '{detector.name}' is neither; name one of "
            + ", ".join(model.valid.detectors)
        )
    latent = network.config.latent
    mean, spread = (x.double().numpy()[:2] for x in (told.mean, told.spread))
    offset, scale = np.zeros(latent + VAE_CONDITIONS), np.ones(latent + VAE_CONDITIONS)
    offset[latent : latent + 2], scale[latent : latent + 2] = -mean, 1 / spread
    return Folded(offset, scale, tuple(_layers(network.decoder, one_hot)))


def _layers(decoder: Any, one_hot: NDArray[np.float64]) -> list[Dense]:
    gain, shift = np.ones(()), np.zeros(())  # of the normalisation before a layer
    layers: list[Dense] = []
    for module in [*decoder.hidden, decoder.head]:
        if isinstance(module, nn.Linear):
            weights, bias = (p.detach().double().numpy() for p in (module.weight, module.bias))
            bias = bias + weights @ np.broadcast_to(shift, weights.shape[1:])
            layers.append(Dense(weights * gain, bias, module is decoder.head))
        elif isinstance(module, Normalisation):
            gain, shift = (x.detach().double().numpy() for x in module.line())
    first = layers[0]
    which = np.zeros(first.weights.shape[1])
    which[-len(one_hot) :] = one_hot
    listened = np.where(np.arange(len(which)) < len(which) - len(one_hot), first.weights, 0.0)
    return [Dense(listened, first.bias + first.weights @ which, False), *layers[1:]]


def write_lwtnn(decoder: Folded, told: Mapping[str, str], path: Path) -> None:
    """Write a decoder, with what is to be `told` of it, as a graph for LWTNN."""
    inputs, cells = len(decoder.offset), len(decoder.layers[-1].bias)
    variables = [
        {"name": f"variable_{k}", "offset": float(o), "scale": float(s)}
        for k, (o, s) in enumerate(zip(decoder.offset, decoder.scale, strict=True))
    ]
    nodes: list[dict[str, Any]] = [{"type": "input", "sources": [0], "size": inputs}]
    nodes += [
        {"type": "feed_forward", "sources": [k], "layer_index": k}
        for k in range(len(decoder.layers))
    ]
    graph = {
        "inputs": [{"name": "node_0", "variables": variables}],
        "input_sequences": [],
        "nodes": nodes,
        "layers": [_plain(layer) for layer in decoder.layers],
        "outputs": {
            "cells": {"node_index": len(nodes) - 1, "labels": [f"out_{k}" for k in range(cells)]}
        },
        "miscellaneous": dict(told),
    }
    path.write_text(json.dumps(graph), "utf-8")


def _plain(layer: Dense) -> dict[str, Any]:
    return {
        "architecture": "dense",
        "weights": [float(f"{w:.{DIGITS}g}") for w in layer.weights.ravel()],
        "bias": [float(f"{b:.{DIGITS}g}") for b in layer.bias],
        "activation": "sigmoid" if layer.last else {"function": "leakyrelu", "alpha": LEAK},
    }
