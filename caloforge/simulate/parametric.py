"""The parametrised engine: electromagnetic showers drawn from formulas, in milliseconds.

The parametrisation is that of G. Grindhammer and S. Peters, "The parameterized simulation of
electromagnetic showers in homogeneous and sampling calorimeters" (hep-ex/0001020), known as GFlash.
A shower of energy E is a product of three densities,

    dE(t, r, phi) = E f(t) dt f(r) dr dphi / 2 pi,

- *along the axis* (t in radiation lengths) a gamma distribution with shape alpha and maximum
  T = (alpha - 1)/beta; ln T and ln alpha fluctuate from shower to shower as correlated Gaussians
  whose means, widths and correlation depend on y = E/E_c, Z and, for sampling calorimeters, on the
  sampling frequency F_S = X0/pitch and e^ = 1/(1 + 0.007 (Z_p - Z_a)) (their appendices A.1.2,
  A.2.2);
- *across it* (r in Moliere radii) a core and a tail, each 2 r R^2/(r^2 + R^2)^2, whose radii and
  weight depend on the depth in units of the centre of gravity (appendices A.1.3, A.2.3);
- the radial fluctuations come from a finite number of spots of equal energy (A.1.4, A.2.4), those
  of the sampled energy from a gamma distribution of variance c^2 E.

What the publication leaves to its user, and what is done here:

- *Visible energy.* f_vis = (sampling fraction of a minimum-ionising particle) x e^, unless a
  measured `Calibration` is given. The formula for e^ holds for absorbers of about one radiation
  length or more; thinner ones have a larger e/mip, so the formula is then too low by a fifth.
- *Sampling resolution.* c = 2.7 % sqrt(GeV) sqrt(d/f_mip), d the active thickness in mm (Livan and
  Wigmans, arXiv:1704.00661), divided by sqrt(sin theta) for the smaller number of layers that an
  inclined shower crosses; or the `Calibration`. A homogeneous calorimeter has c = 0.
- *Start.* Electrons and positrons start to shower where they enter; photons where they convert,
  after an exponential path of mean 9/7 X0 (PDG 2024, chapter 34).
- *Layers.* Every absorber and its active layer are a period. A spot belongs to the period of its
  own distance from the beam axis, and its visible energy lies in that period's active slice.
- The densities are those of an infinite medium: what they put outside the stack is lost.

Published for 1 to 100 GeV; outside that range the formulas are extrapolated.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainc

from caloforge.detector.descriptors import effective
from caloforge.detector.detector import Detector, Stack
from caloforge.detector.materials import material
from caloforge.errors import RequestError
from caloforge.showers.showers import PER_SHOWER, Showers

__all__ = ["Calibration", "Medium", "calibrate", "mean_profile", "medium", "parametric_showers",
           "radial_profile"]  # fmt: skip

Floats = NDArray[np.float64]

COLUMNS = ("energy", "theta", "phi", "pdg", "seed")
PARTICLES = {11: "e-", -11: "e+", 22: "gamma"}
STEP_X0 = 0.25  # longitudinal step; the energy of a step is exact, only spots inside it are uniform
WIGMANS_A1 = 0.027  # sqrt(GeV)/sqrt(mm), arXiv:1704.00661


@dataclass(frozen=True)
class Calibration:
    """What only a measurement of the calorimeter can give, each `None` for the formula.

    `sampling_fraction`: visible over incident energy (no unit, above 0); `resolution`: sampling
    term c of sigma/E = c/sqrt(E) at normal incidence, in sqrt(GeV), at least 0.
    Raises `RequestError` for values outside these ranges.
    """

    sampling_fraction: float | None = None
    resolution: float | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.sampling_fraction is not None and not 0 < self.sampling_fraction <= 1:
            raise RequestError(
                f"a sampling fraction of {self.sampling_fraction} is impossible; give one in (0, 1]"
            )
        if self.resolution is not None and not 0 <= self.resolution < np.inf:
            raise RequestError(f"a resolution of {self.resolution} is impossible; give c >= 0")


@dataclass(frozen=True)
class Medium:
    """The calorimeter as the formulas see it.

    `x0_mm`, `moliere_mm`: effective radiation length and Moliere radius in mm; `critical_mev`: E_c
    in MeV; `z`: atomic number averaged by mass; `pitch_x0`: 1/F_S at normal incidence (0 if
    homogeneous); `e_hat`: relative response to electrons e/mip; `visible`: share of the energy that
    is seen; `resolution`: c in sqrt(GeV) at normal incidence.
    """

    x0_mm: float
    moliere_mm: float
    critical_mev: float
    z: float
    pitch_x0: float
    e_hat: float
    visible: float
    resolution: float


@lru_cache(maxsize=64)
def medium(stack: Stack, calibration: Calibration | None = None) -> Medium:
    """Reduce a stack to the numbers of the parametrisation (hep-ex/0001020).

    Returns a `Medium`; `calibration` replaces the two numbers the publication leaves open.
    """
    given = calibration or Calibration()
    eff = effective(stack)
    layers = [stack.active, *([stack.absorber] if stack.absorber else [])]
    mass = np.array([material(x.material).density * x.thickness_mm for x in layers])
    charge = np.array([material(x.material).effective_z for x in layers])
    e_hat, resolution = 1.0, 0.0
    if stack.absorber:
        e_hat = 1 / (1 + 0.007 * (eff.absorber_z - eff.active_z))
        resolution = WIGMANS_A1 * np.sqrt(stack.active.thickness_mm / eff.sampling_fraction)
    visible = eff.sampling_fraction * e_hat
    return Medium(
        x0_mm=eff.radiation_length_mm,
        moliere_mm=eff.moliere_radius_mm,
        critical_mev=eff.critical_energy_mev,
        z=float(mass @ charge / mass.sum()),
        pitch_x0=stack.pitch_mm / eff.radiation_length_mm if stack.absorber else 0.0,
        e_hat=e_hat,
        visible=visible if given.sampling_fraction is None else given.sampling_fraction,
        resolution=float(resolution if given.resolution is None else given.resolution),
    )


def mean_profile(med: Medium, energy: float, sin_theta: float = 1.0) -> tuple[float, float]:
    """Depth of the maximum T (in X0) and shape alpha at the mean of their logarithms.

    `energy` in MeV. hep-ex/0001020, A.1.2 (homogeneous) and A.2.2 (sampling); F_S counts the
    layers along the axis of a shower inclined by theta to the beam axis.
    """
    log_y = np.log(energy / med.critical_mev)
    frequency = med.pitch_x0 / sin_theta
    t_max = log_y - 0.812
    alpha = 0.81 + (0.458 + 2.26 / med.z) * log_y
    if med.pitch_x0:
        t_max += -0.55 * frequency - 0.69 * (1 - med.e_hat)
        alpha += -0.476 * frequency
    # Far below the published range both run out of their domain; alpha <= 1 has no maximum.
    return max(float(t_max), 0.1), max(float(alpha), 1.1)


def _draw_profile(
    med: Medium, energy: float, sin_theta: float, stream: np.random.Generator
) -> tuple[float, float, float]:
    """Draw (alpha, beta, mean alpha) of one shower (A.1.2, A.2.2), correlated Gaussians of logs."""
    t_mean, alpha_mean = mean_profile(med, energy, sin_theta)
    log_y = np.log(energy / med.critical_mev)
    if med.pitch_x0:
        widths, rho = (-2.5 + 1.25 * log_y, -0.82 + 0.79 * log_y), 0.784 - 0.023 * log_y
    else:
        widths, rho = (-1.4 + 1.26 * log_y, -0.58 + 0.86 * log_y), 0.705 - 0.023 * log_y
    # 1/(a + b ln y) has a pole at low energy; no shower is known to fluctuate by more than half.
    sigma_t, sigma_alpha = (1 / max(w, 2.0) for w in widths)
    g1, g2 = stream.standard_normal(2)
    plus, minus = np.sqrt((1 + rho) / 2), np.sqrt((1 - rho) / 2)
    t_max = t_mean * np.exp(sigma_t * (plus * g1 + minus * g2))
    alpha = max(alpha_mean * np.exp(sigma_alpha * (plus * g1 - minus * g2)), 1.05)
    return float(alpha), float((alpha - 1) / t_max), alpha_mean


def radial_profile(
    med: Medium, energy: float, tau: ArrayLike, sin_theta: float = 1.0
) -> tuple[Floats, Floats, Floats]:
    """Radius of the core, radius of the tail (both in Moliere radii) and weight of the core.

    `energy` in MeV; `tau` (...,) (depth over centre of gravity, scaled to T for the average
    shower); three arrays (...,). hep-ex/0001020, A.1.3 and, for sampling, A.2.3.
    """
    tau = np.asarray(tau, dtype=np.float64)
    log_e = np.log(energy / 1000.0)
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * med.z) * tau
    k1, k4 = 0.659 - 0.00309 * med.z, 0.3585 + 0.0421 * log_e
    tail = k1 * (np.exp(-2.59 * (tau - 0.645)) + np.exp(k4 * (tau - 0.645)))
    bend = (0.401 + 0.00187 * med.z - tau) / (1.313 - 0.0686 * log_e)
    weight = (2.632 - 0.00094 * med.z) * np.exp(bend - np.exp(bend))
    if med.pitch_x0:
        frequency, lack = med.pitch_x0 / sin_theta, 1 - med.e_hat
        core += -0.0203 * lack + 0.0397 * frequency * np.exp(-tau)
        tail += -0.14 * lack - 0.495 * frequency * np.exp(-tau)
        weight += lack * (0.348 - 0.642 * frequency * np.exp(-((tau - 1) ** 2)))
    return np.maximum(core, 1e-3), np.maximum(tail, 1e-3), np.clip(weight, 0.0, 1.0)


@dataclass(frozen=True)
class _Spots:
    """Spots (M,) of one shower: r, z in mm and phi in rad in the mesh frame, visible energy MeV."""

    r: Floats
    phi: Floats
    z: Floats
    energy: Floats


def _spot_numbers(
    med: Medium, energy: float, alpha: float, beta: float, edges: Floats
) -> NDArray[np.int64]:
    """Spots in each step: A.1.4 (homogeneous), A.2.4 (sampling); at least one, so energy closes."""
    gev, t_max = energy / 1000.0, (alpha - 1) / beta
    if med.pitch_x0:
        number = 10.3 / max(med.resolution, 0.01) * gev**0.959
        t_spot, a_spot = t_max * (0.813 + 0.0019 * med.z), alpha * (0.844 + 0.0026 * med.z)
    else:
        number = 93 * np.log(med.z) * gev**0.876
        t_spot, a_spot = t_max * (0.698 + 0.00212 * med.z), alpha * (0.639 + 0.00334 * med.z)
    a_spot = max(a_spot, 1.05)
    shares = np.diff(gammainc(a_spot, (a_spot - 1) / t_spot * edges))
    numbers: NDArray[np.int64] = np.maximum(np.rint(number * shares), 1).astype(np.int64)
    return numbers


def _draw_spots(
    med: Medium, energy: float, sin_theta: float, length_mm: float, stream: np.random.Generator
) -> _Spots:
    """Draw the spots of an electron shower of `energy` MeV along `length_mm` of its axis."""
    alpha, beta, alpha_mean = _draw_profile(med, energy, sin_theta, stream)
    end = min(length_mm / med.x0_mm, (alpha + 8 * np.sqrt(alpha) + 15) / beta)
    edges = np.linspace(0.0, end, max(2, int(np.ceil(end / STEP_X0)) + 1))
    shares = np.diff(gammainc(alpha, beta * edges)).astype(np.float64)
    visible = _sampled(energy * med.visible * shares, med, sin_theta, stream)
    numbers = _spot_numbers(med, energy, alpha, beta, edges)
    # Depth over the centre of gravity alpha/beta, times <alpha>/(<alpha> - 1): t/T on average.
    tau = (edges[1:] + edges[:-1]) / 2 * beta / alpha * alpha_mean / (alpha_mean - 1)
    core, tail, weight = radial_profile(med, energy, tau, sin_theta)
    step = np.repeat(np.arange(len(numbers)), numbers)
    u = stream.random((4, len(step)))
    radius = np.where(u[0] < weight[step], core[step], tail[step])
    return _Spots(
        r=med.moliere_mm * radius * np.sqrt(u[1] / (1 - u[1])),
        phi=np.pi * (2 * u[2] - 1),
        z=med.x0_mm * (edges[step] + (edges[1] - edges[0]) * u[3]),
        energy=(visible / numbers)[step],
    )


def _sampled(visible: Floats, med: Medium, sin_theta: float, stream: np.random.Generator) -> Floats:
    """Let the visible energy (S,) MeV of each step fluctuate: gamma of variance c^2 E."""
    quantum = 1000.0 * med.resolution**2 / sin_theta * med.visible  # visible MeV
    if quantum == 0:
        return visible
    return np.asarray(stream.standard_gamma(visible / quantum) * quantum)


def _into_active(stack: Stack, theta: float, spots: _Spots) -> tuple[Floats, NDArray[np.bool_]]:
    """Move spots along the axis into the active slice of their period: z (M,) mm, inside (M,).

    The period is that of the spot's own distance R from the beam axis, which in the mesh frame is
    R^2 = (R_in + x' cos(theta) + z' sin(theta))^2 + y'^2; so tilted and lateral spots meet the
    layers where the real cylinders are. `inside` is false outside the stack.
    """
    cos, sin, inner = np.cos(theta), np.sin(theta), stack.inner_radius_mm
    across, y = inner + spots.r * np.cos(spots.phi) * cos, spots.r * np.sin(spots.phi)
    depth = np.hypot(across + spots.z * sin, y) - inner
    inside = (depth >= 0) & (depth < stack.depth_mm)
    if stack.absorber is None:
        return spots.z, inside
    period, phase = np.divmod(depth, stack.pitch_mm)
    phase *= stack.active.thickness_mm / stack.pitch_mm
    radius = inner + period * stack.pitch_mm + stack.absorber.thickness_mm + phase
    return (np.sqrt(np.maximum(radius**2 - y**2, 0)) - across) / sin, inside


def _one(
    detector: Detector, stack: Stack, med: Medium, event: tuple[float, float, int, int]
) -> tuple[NDArray[np.int64], Floats, float]:
    """Make the shower of (energy, theta, pdg, seed): cells (K,), deposits (K,) MeV, leakage MeV."""
    energy, theta, pdg, seed = event
    stream, sin, mesh = np.random.default_rng(seed), np.sin(theta), detector.mesh
    start = stream.exponential(9 / 7 * med.x0_mm) if pdg == 22 else 0.0
    # A spot far off the axis may be in the stack where the axis has already left it.
    length = stack.depth_mm / sin + 3 * med.moliere_mm - start
    if length <= 0:
        return np.empty(0, np.int64), np.empty(0), 0.0
    spots = _draw_spots(med, energy, sin, length, stream)
    z, inside = _into_active(
        stack, theta, _Spots(spots.r, spots.phi, spots.z + start, spots.energy)
    )
    x, y = spots.r * np.cos(spots.phi), spots.r * np.sin(spots.phi)
    # A primary along +z has the mesh frame for its own: no rotation.
    flat = mesh.cells_of(np.stack([x, y, z], axis=1), theta=0.0, phi=0.0)
    kept = inside & (flat >= 0)
    voxels = np.bincount(flat[kept], spots.energy[kept], mesh.n_cells).astype(np.float64)
    cells: NDArray[np.int64] = np.flatnonzero(voxels.astype(np.float32))
    return cells, voxels[cells], float(spots.energy[inside & ~kept].sum())


def parametric_showers(
    detector: Detector,
    energy: ArrayLike,
    theta: ArrayLike,
    phi: ArrayLike,
    pdg: ArrayLike,
    seed: ArrayLike,
    calibration: Calibration | None = None,
) -> Showers:
    """Draw one shower for every primary.

    `energy` (N,) kinetic in MeV, `theta`, `phi` (N,) in rad, `pdg` (N,) of e-, e+ or gamma, `seed`
    (N,) unsigned; scalars are repeated. Every event has its own random stream, so the result does
    not depend on how events are batched. Deposits are raw visible energy in MeV; `leakage` is what
    active layers see outside the mesh. Raises `RequestError` for another particle, a direction that
    never reaches the barrel, an energy that is not positive, or a detector without a [stack].
    """
    stack = detector.stack
    if stack is None:
        raise RequestError(f"'{detector.name}' has no [stack]; the parametrised engine needs one")
    primaries = _primaries(energy, theta, phi, pdg, seed)
    med = medium(stack, calibration)
    # Plain numbers of the float32 columns: the shower belongs to the values that a file keeps.
    events = zip(*(primaries[k].tolist() for k in ("energy", "theta", "pdg", "seed")), strict=True)
    made = [_one(detector, stack, med, event) for event in events]
    cells, deposits = [np.empty(0, np.int64)], [np.empty(0)]
    for own_cells, own_deposits, _ in made:
        cells.append(own_cells)
        deposits.append(own_deposits)
    return Showers(
        **primaries,
        leakage=np.array([leakage for _, _, leakage in made], dtype=np.float32),
        offsets=np.cumsum([len(x) for x in cells]),
        cell=np.concatenate(cells),
        deposit=np.concatenate(deposits).astype(np.float32),
        mesh=detector.mesh,
        detector=detector,
        provenance={"engine": "parametric", "reference": "hep-ex/0001020", "medium": asdict(med)},
    )


def _primaries(
    energy: ArrayLike, theta: ArrayLike, phi: ArrayLike, pdg: ArrayLike, seed: ArrayLike
) -> dict[str, Any]:
    """Columns (N,) by name, in the types of the file, checked for what the formulas can do."""
    columns = np.broadcast_arrays(*(np.atleast_1d(x) for x in (energy, theta, phi, pdg, seed)))
    made = {name: columns[i].astype(PER_SHOWER[name]) for i, name in enumerate(COLUMNS)}
    unknown = sorted(set(made["pdg"].tolist()) - set(PARTICLES))
    if unknown:
        raise RequestError(
            f"the parametrised engine knows e-, e+ and gamma, not PDG code {unknown[0]}; "
            "use the Geant4 engine"
        )
    if not (np.isfinite(made["energy"]) & (made["energy"] > 0)).all():
        raise RequestError("every energy has to be a positive number of MeV")
    if not (np.sin(made["theta"]) > 0.05).all():
        raise RequestError("theta within 0.05 of the beam axis misses the barrel; use (0.05, 3.09)")
    return made


def calibrate(showers: Showers) -> Calibration:
    """Measure the sampling fraction and the sampling term c on electron showers, e.g. of Geant4.

    Takes `Showers` (N >= 2); the fraction is the mean of (visible + leakage)/incident energy, c (in
    sqrt(GeV), at normal incidence) the standard deviation of that ratio over its mean, times
    sqrt(E sin theta). Raises `RequestError` for fewer than two showers.
    """
    if len(showers) < 2:
        raise RequestError("a calibration needs at least two showers")
    energy = showers.energy.astype(np.float64)
    response = (showers.visible() + showers.leakage) / energy
    pull = (response / response.mean() - 1) * np.sqrt(energy / 1000 * np.sin(showers.theta))
    return Calibration(float(response.mean()), float(pull.std()))
