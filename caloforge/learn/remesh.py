r"""A trained network on a mesh of other cells: its trunk as it is, its borders resampled.

The blocks know tokens, conditions and positions in radiation lengths and Moliere radii, nothing of
cells. What knows cells are the layers that read or write a patch, a layer of the calorimeter or a
coarse cell of the sketch. They are linear, so a field on new cells can be given to them as the
field it makes on the old ones: with :math:`S_{on}`, the share of the old cell o that the new cell n
covers, inputs become :math:`W S` and outputs :math:`S^T W` normalised. A field that is constant
within old cells is then read exactly as before (`tests/learn/test_remesh.py`). Meshes are compared
by their share of the whole in r and phi, as meshes are made to hold a shower, and cell by cell in
depth, where the descriptors say how long a cell is.

Tokens stay as close to the old ones as the new mesh allows. What a voxel is believed to be before
anything is known, and the whitening of the energies, are then fitted to the new showers.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import Conditions
from caloforge.learn.models.diffusion import DiffusionConfig, DiffusionTransformer
from caloforge.learn.preprocess import ShowerScale

__all__ = ["RESHAPED", "overlap", "remeshed", "reshaped_config"]

# Prefixes of the weights that see cells; the convolutions over neighbours fit every mesh.
_RESAMPLED = ("embed_voxels", "embed_maps", "embed_layers", "embed_hits", "embed_sketch",
            "head_voxels", "head_layers", "head_hits", "head_sketch")  # fmt: skip
_DIRECTIONS = ("whiten", "colour", "head_spread")  # of the energies, as many as cells make them
RESHAPED = (*_RESAMPLED, *_DIRECTIONS, "neighbours")
Shape = tuple[int, int, int]


def overlap(new: int, old: int) -> Tensor:
    """Share (old, new) of each of `old` equal cells of a line that each of `new` cells covers."""
    edges_new = torch.arange(new + 1, dtype=torch.float64) / new
    edges_old = torch.arange(old + 1, dtype=torch.float64) / old
    low = torch.maximum(edges_old[:-1, None], edges_new[None, :-1])
    high = torch.minimum(edges_old[1:, None], edges_new[None, 1:])
    return ((high - low).clamp(min=0.0) * old).float()


def reshaped_config(config: DiffusionConfig, shape: Shape) -> DiffusionConfig:
    """Return the network's shape on a mesh of `shape` cells: as many tokens and coarse cells."""
    p_r, s_r, p_phi, s_phi = (
        shape[axis] // _nearest(shape[axis], config.shape[axis] // cut[axis])
        for axis in (0, 1)
        for cut in (config.patch, config.sketch)
    )
    # In depth a token and a coarse cell keep their number of layers where these divide the mesh.
    p_z = math.gcd(config.patch[2], shape[2])
    most = max(config.sketch[2], p_z)
    s_z = max(k for k in range(p_z, most + 1, p_z) if shape[2] % k == 0)
    return replace(config, shape=shape, patch=(p_r, p_phi, p_z), sketch=(s_r, s_phi, s_z))


def _nearest(n: int, wanted: int) -> int:
    """Divisor of n that is nearest to `wanted` in ratio."""
    divisors = [k for k in range(1, n + 1) if n % k == 0]
    return min(divisors, key=lambda k: abs(math.log(k / wanted)))


@torch.no_grad()
def remeshed(
    base: Model, voxels: Tensor, given: Conditions
) -> tuple[DiffusionTransformer, ShowerScale]:
    """Network and preprocessing of a model on the mesh of showers (N, R, PHI, Z) in MeV."""
    old, (_, n_r, n_phi, n_z) = base.network, voxels.shape
    network = DiffusionTransformer(reshaped_config(old.config, (n_r, n_phi, n_z)))
    state, fresh = old.state_dict(), network.state_dict()
    left = (*_RESAMPLED, *_DIRECTIONS)
    state = {name: value for name, value in state.items() if not name.startswith(left)}
    if "place" in state and state["place"].shape != fresh["place"].shape:
        state["place"] = overlap(len(fresh["place"]), len(state["place"])).mT @ state["place"]
        state["place"] /= overlap(len(fresh["place"]), len(old.place)).sum(0)[:, None]
    network.load_state_dict(state, strict=False)
    scale = _scale(base.scale, network)
    _borders(old, network)
    seen = scale(voxels, given, torch.Generator().manual_seed(0))
    if network.config.process == "beliefs":
        network.fit_directions(seen.energies)
    _centre(network, seen.voxels)
    return network, scale


def _borders(old: DiffusionTransformer, new: DiffusionTransformer) -> None:
    """Resample the layers that read or write cells."""
    cells = torch.ones(1, 1)
    for p_new, p_old in zip(new.config.patch, old.config.patch, strict=True):
        cells = torch.kron(cells, overlap(p_new, p_old))  # (old cells, new cells)
    depth = overlap(new.config.patch[2], old.config.patch[2])
    across = torch.ones(1, 1)
    for g_new, g_old in zip(new.sketch.grid[:2], old.sketch.grid[:2], strict=True):
        across = torch.kron(across, overlap(g_new, g_old))
    parts = new.numbers
    for name, share, times in (
        ("embed_voxels", cells, 1), ("embed_maps", cells, 2), ("embed_layers", depth, 1),
        ("embed_hits", depth, 1), ("embed_sketch", across, 1),
    ):  # fmt: skip
        _read(getattr(old, name), getattr(new, name), share, times)
    for name, share, times in (
        ("head_voxels", cells, parts), ("head_layers", depth, 2), ("head_hits", depth, 2),
        ("head_sketch", across, 2),
    ):  # fmt: skip
        _write(getattr(old, name), getattr(new, name), share, times)


def _read(old: nn.Linear, new: nn.Linear, share: Tensor, times: int) -> None:
    """Inputs in `times` blocks of cells, resampled by `share` (old, new)."""
    blocks = old.weight.reshape(len(old.weight), times, -1) @ share  # (D, times, new)
    new.weight.copy_(blocks.flatten(1))
    if new.bias is not None:
        new.bias.copy_(old.bias)


def _write(old: nn.Linear, new: nn.Linear, share: Tensor, times: int) -> None:
    """Outputs in `times` blocks of cells, each new one the mean of the old ones that it covers."""
    mean = (share / share.sum(0)).mT  # (new, old)
    new.weight.copy_((mean @ old.weight.reshape(times, share.shape[0], -1)).flatten(0, 1))
    new.bias.copy_((old.bias.reshape(times, -1) @ mean.mT).flatten())


def _scale(old: ShowerScale, network: DiffusionTransformer) -> ShowerScale:
    """The whitening on the new mesh: each new quantity like the old one at its place."""
    scale = ShowerScale(network.sketch, network.config.counted)
    state = {k: v for k, v in old.state_dict().items() if ".residual." not in k}
    z_new, z_old = network.sketch.shape[2], old.sketch.shape[2]
    layer = torch.arange(z_new).clamp(max=z_old - 1)
    coarse = torch.arange(math.prod(old.sketch.grid)).reshape(old.sketch.grid)
    at = []
    for axis, (new, before) in enumerate(zip(network.sketch.grid, old.sketch.grid, strict=True)):
        place = (
            torch.arange(new) if axis == 2 else ((torch.arange(new) + 0.5) * before / new).long()
        )
        at.append(place.clamp(max=before - 1))
    coarse = coarse[at[0]][:, at[1]][:, :, at[2]].flatten()
    rows = [torch.zeros(1).long(), 1 + layer, 1 + z_old + layer, 1 + 2 * z_old + coarse]
    if old.counted:
        rows.append(torch.tensor([1 + 2 * z_old + old.sketch.tokens]))
    which = torch.cat(rows)
    last = f"energies.net.{len(old.energies.net) - 1}"
    for kind in ("weight", "bias"):
        mean, spread = state[f"{last}.{kind}"].chunk(2)
        state[f"{last}.{kind}"] = torch.cat([mean[which], spread[which]])
    scale.load_state_dict(state)
    return scale


def _centre(network: DiffusionTransformer, voxels: Tensor) -> None:
    """Move what is believed of voxels (N, R, PHI, Z) at first to what they are on this mesh."""
    if network.config.head != "bayes":
        return
    filled = voxels[voxels > network.empty + 1e-3]
    share = torch.tensor(len(filled) / voxels.numel())
    m = network.config.mixture
    belief = network.head_voxels.bias.reshape(network.numbers, -1)  # odds, means, spreads, shares
    belief[0] += share.logit() - belief[0].mean()
    belief[1 : 1 + m] += filled.mean() - belief[1 : 1 + m].mean()
    if m == 1:
        belief[2] += filled.std().log() - belief[2].mean()
