"""Showers of which the beginning is known: the rest is drawn (inpainting).

One network that knows a noise level for each token can be shown some tokens clean and asked for the
others (as in arXiv:2201.09865, but trained for it, not tricked into it). A use of it: the first
layers come from Geant4 or from data, and the model says how such a shower ends.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caloforge import __version__
from caloforge.errors import RequestError
from caloforge.generate import Generator
from caloforge.learn.checkpoint import diffusion_of
from caloforge.learn.models.denoiser import start
from caloforge.learn.models.process import PROCESSES
from caloforge.learn.models.samplers import Known, sample
from caloforge.learn.noise import Noise
from caloforge.learn.preprocess import Scaled
from caloforge.showers.showers import Showers, concatenate
from caloforge.simulate.beam import Primaries

__all__ = ["complete"]


def complete(
    generator: Generator, showers: Showers, layers: int, *, seed: int = 0, batch: int = 64
) -> Showers:
    """Keep the first `layers` cells in depth of N showers and draw the rest anew (energies in MeV).

    What is kept stays as it is; what is drawn follows from it and from the primary. Raises
    `RequestError` if `layers` cuts a token, if the detector is not named in the showers or does not
    fit the model, and for a model without layer energies.
    """
    config = diffusion_of(generator.model, generator.name).config
    if not 0 < layers < config.shape[2] or layers % config.patch[2]:
        raise RequestError(
            f"the layers to keep must be a multiple of {config.patch[2]} below {config.shape[2]}"
        )
    if config.plain or config.head != "bayes":
        raise RequestError(f"'{generator.name}' has no layer energies and cannot complete showers")
    if showers.detector is None:
        raise RequestError("the showers do not say their detector; convert them with --detector")
    primaries = Primaries.like(showers, seed)
    generator.check(showers.detector, primaries)
    some = [slice(start, start + batch) for start in range(0, len(showers), batch)]
    return concatenate([_completed(generator, showers[s], primaries[s], layers) for s in some])


@torch.inference_mode()
def _completed(
    generator: Generator, showers: Showers, primaries: Primaries, layers: int
) -> Showers:
    network, scale = generator.model.network, generator.model.scale
    assert showers.detector is not None
    given = generator.told(showers.detector, primaries)
    device = given.energy.device
    truth = torch.from_numpy(showers.dense()).to(device)
    known, noise = _known(generator, scale(truth, given), layers), Noise(primaries.seed, device)
    process = PROCESSES[network.config.process]
    drawn = sample(
        network, start(network, noise), given, process.steps, process.sampler,
        fresh=noise.fresh, known=known, hits=lambda energies: scale.hits(energies, given),
    )  # fmt: skip
    voxels = scale.inverse(drawn, given)
    # Layers were scaled to the drawn total; the kept ones say by how much, and it is taken back.
    kept = (slice(None), slice(None), slice(None), slice(layers))
    factor = voxels[kept].sum((1, 2, 3)) / truth[kept].sum((1, 2, 3)).clamp(min=1e-6)
    voxels = voxels / torch.where(factor > 0, factor, 1.0)[:, None, None, None]
    voxels[kept] = truth[kept]
    return Showers.from_dense(
        voxels.cpu().numpy(), mesh=showers.mesh, energy=showers.energy, theta=showers.theta,
        phi=showers.phi, pdg=showers.pdg, seed=primaries.seed, detector=showers.detector,
        provenance={"caloforge": __version__, "engine": "model", "model": generator.name,
                    "kept_layers": layers},
    )  # fmt: skip


def _known(generator: Generator, scaled: Scaled, layers: int) -> Known:
    """Tokens of the first layers, their energies and their hits; of the sketch what is whole."""
    network = generator.model.network
    depth = torch.arange(network.config.shape[2], device=scaled.voxels.device)
    everywhere = (depth < layers).expand(network.config.shape)[None].to(scaled.voxels.dtype)
    tokens = network.patches.cut(everywhere)[0].amin(dim=-1) > 0
    sketch = network.sketch.cut(everywhere)[0].amin(dim=-1) > 0
    total: Tensor = torch.zeros(1, dtype=torch.bool, device=depth.device)
    energies = [total, depth < layers, depth < layers, sketch]  # all hits are not known either
    return Known(scaled, tokens, torch.cat(energies + [total] * network.config.counted))
