"""The profile of a shower: its law has mass one, and what is drawn follows it."""

from __future__ import annotations

import torch

from caloforge.learn.models.profile import Profile
from caloforge.learn.models.speaker import Pairs, pairs_of


def some(mixture: int = 3) -> tuple[Profile, torch.Tensor]:
    torch.manual_seed(0)
    profile = Profile(8, mixture)
    for parameter in profile.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return profile.requires_grad_(False), torch.randn(1, 1, 8)


def drawn(
    profile: Profile, x: torch.Tensor, chance: torch.Tensor, normal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs (N, 1, 2) and the places (N, 1, D) that are told them, as a speaker draws them."""
    speaker = Pairs(profile)
    told, three = speaker.draw(x[:, 0], chance, normal[:, 0, [0, 1, 0]])
    return pairs_of(three[:, None]), (told + speaker.bias)[:, None]


def test_the_law_has_mass_one() -> None:
    profile, x = some()
    line = torch.linspace(-15, 15, 451)
    grid = torch.cartesian_prod(line, line)[:, None]  # (N, 1, 2)
    surprise, _ = profile(x.expand(len(grid), -1, -1), grid)
    mass = (-surprise).exp().sum() * (line[1] - line[0]) ** 2
    assert abs(float(mass) - 1) < 1e-2


def test_what_is_drawn_follows_the_law() -> None:
    profile, x = some()
    n = 20_000
    draw = torch.Generator().manual_seed(1)
    chance, normal = torch.rand(n, 1, generator=draw), torch.randn(n, 1, 2, generator=draw)
    x = x.expand(n, -1, -1)
    pairs, told = drawn(profile, x, chance, normal)
    surprise, told_too = profile(x, pairs)
    assert torch.allclose(told, told_too, atol=1e-5)
    # The mean surprise of draws is the entropy of the law, which the grid knows.
    line = torch.linspace(-15, 15, 451)
    grid = torch.cartesian_prod(line, line)[:, None]
    of_grid, _ = profile(x[:1].expand(len(grid), -1, -1), grid)
    density = (-of_grid).exp() * (line[1] - line[0]) ** 2
    entropy = float((density * of_grid).sum())
    error = float(surprise.std()) / n**0.5
    assert abs(float(surprise.mean()) - entropy) < 4 * error + 0.01
    mean = (density * grid[:, 0]).sum(dim=0)
    assert torch.allclose(pairs[:, 0].mean(dim=0), mean, atol=0.05)


def test_hits_and_energy_lean_on_one_another() -> None:
    profile, x = some(1)
    with torch.no_grad():
        profile.head.weight.zero_()
        profile.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 2.0, 0.8, -3.0]))
    normal = torch.randn(5000, 1, 2, generator=torch.Generator().manual_seed(0))
    pairs, _ = drawn(profile, x.expand(5000, -1, -1), torch.rand(5000, 1), normal)
    slope = torch.cov(pairs[:, 0].T)[0, 1] / pairs[:, 0, 0].var()
    assert abs(float(slope) - 0.8) < 0.01
