"""A model for one detector as one function: conditions and noise in, showers out.

What `caloforge.generate` does with arrays on the way is done by tensors here, so that all of it
becomes one graph that another runtime can run: descriptors are constants, maps of active material
are computed from the angle, and the noise is handed in. The number of draws is fixed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from caloforge.detector.descriptors import DESCRIPTOR_NAMES, descriptors
from caloforge.detector.detector import Detector, Stack
from caloforge.detector.mesh import Mesh
from caloforge.errors import RequestError
from caloforge.generate import check_mesh
from caloforge.learn.checkpoint import Model
from caloforge.learn.condition import PARTICLES, PITCH, Conditions
from caloforge.learn.models.samplers import numbers, sample
from caloforge.learn.noise import Dealt
from caloforge.learn.preprocess import Scaled, quantities

__all__ = ["OneCall", "active_maps", "told"]


class OneCall(nn.Module):
    """Showers of one detector in `steps` draws.

    A model of another process than ``beliefs`` draws its energies as it was trained to, in eight
    calls, which the graph then holds. Raises `RequestError` for a model that has no beliefs of
    voxels, and for a mesh that it does not know.
    """

    table: Tensor

    def __init__(self, model: Model, detector: Detector, steps: int) -> None:
        super().__init__()
        config = model.network.config
        if config.head != "bayes" or config.plain or config.detectors:
            raise RequestError(
                "a model without beliefs of voxels, or with an index of detectors, cannot be drawn "
                "in few steps; distil it first: caloforge distill MODEL --out DIR"
            )
        check_mesh(model, detector)
        self.network, self.scale, self.steps = model.network, model.scale, steps
        self.detector = detector
        self.register_buffer("table", torch.from_numpy(descriptors(detector))[None])
        self.noise = numbers(model.network, steps)

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """Showers (B, R, PHI, Z), raw visible energy in MeV.

        conditions (B, 4): kinetic energy in MeV, theta and phi in rad, PDG code; noise (B, M):
        standard normal numbers, M = `self.noise`.
        """
        given = self.told(conditions)
        b, shape = conditions.shape[0], self.network.config.shape
        blank = Scaled(
            conditions.new_zeros((b, *shape)),
            conditions.new_zeros((b, quantities(self.network.sketch, self.network.config.counted))),
        )
        drawn = sample(
            self.network, blank, given, self.steps, "beliefs", fresh=Dealt(noise).fresh,
            hits=lambda energies: self.scale.hits(energies, given),
        )  # fmt: skip
        voxels: Tensor = self.scale.inverse(drawn, given)
        return voxels

    def told(self, conditions: Tensor) -> Conditions:
        """What the network is told of primaries (B, 4); the pitch is one for all (1, 2)."""
        return told(conditions, self.table, self.detector)


def told(conditions: Tensor, table: Tensor, detector: Detector) -> Conditions:
    """What a network is told of primaries (B, 4): kinetic energy in MeV, theta and phi in rad, PDG
    code; `table` (1, D) holds the descriptors of the detector. The pitch is one for all (1, 2).
    """
    energy, theta, _, pdg = conditions.unbind(1)
    critical = table[0, DESCRIPTOR_NAMES.index("log_critical_energy_mev")]
    log = energy.log()
    columns = [log - math.log(1e3), log - critical, theta.cos(), theta.sin()]
    columns += [((pdg - code).abs() < 0.5).to(energy.dtype) for code in PARTICLES]
    primary = torch.stack(columns, dim=1)
    features = torch.cat([primary, table.expand(conditions.shape[0], -1)], dim=1)
    maps = active_maps(detector.described_stack(), detector.mesh, theta)
    return Conditions(features, maps, table[:, PITCH], energy)


def active_maps(stack: Stack, mesh: Mesh, theta: Tensor, lines_r: int = 2) -> Tensor:
    """Active material per cell (N, 2, R, PHI, Z), no unit, for theta (N,) in rad.

    The same as `caloforge.detector.active.active_maps`, which says what it is, by tensors.
    """
    half = (mesh.n_phi + 1) // 2
    radius = (torch.arange(mesh.n_r * lines_r) + 0.5) * (mesh.cell_r_mm / lines_r)
    azimuth = torch.from_numpy(mesh.centres_phi[:half]).float()
    x = torch.outer(radius, azimuth.cos()).reshape(1, -1, 1)
    y2 = torch.outer(radius, azimuth.sin()).square().reshape(1, -1, 1)
    z = torch.from_numpy(mesh.edges_z).float().reshape(1, 1, -1)
    sine, cosine = theta.sin()[:, None, None], theta.cos()[:, None, None]
    plane = stack.inner_radius_mm + x * cosine + z * sine
    depth = ((plane * plane + y2).sqrt() - stack.inner_radius_mm).clamp(0.0, stack.depth_mm)
    active, passive = stack.active.thickness_mm, stack.pitch_mm - stack.active.thickness_mm
    whole = ((depth - 1e-3) / stack.pitch_mm).floor().clamp(min=0.0)
    begun = (depth - whole * stack.pitch_mm - passive).clamp(0.0, active)
    crossed = torch.stack([whole * active + begun, whole * active], dim=1)  # (N, 2, lines, Z + 1)
    average = stack.active.thickness_mm / stack.pitch_mm * mesh.cell_z_mm * sine[:, None]
    maps = (crossed[..., 1:] - crossed[..., :-1]) / average
    maps = maps.reshape(-1, 2, mesh.n_r, lines_r, half, mesh.n_z).mean(dim=3)
    return torch.cat([maps, maps[..., : mesh.n_phi - half, :].flip(-2)], dim=-2)
