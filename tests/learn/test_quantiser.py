"""The quantiser: nearest codes, a gradient that passes, a codebook that lives, the same draws."""

from __future__ import annotations

import pytest
import torch

from caloforge.learn.quantiser import Quantiser, usage

WAYS = [(), (4, 4, 3)]


def made(levels: tuple[int, ...] = (), codes: int = 48) -> Quantiser:
    torch.manual_seed(1)
    return Quantiser(4, codes, levels)


@pytest.mark.parametrize("levels", WAYS)
def test_a_code_is_looked_up_by_its_number(levels: tuple[int, ...]) -> None:
    quantiser = made(levels)
    found, numbers = quantiser(torch.randn(3, 5, 4))
    assert numbers.shape == (3, 5) and int(numbers.max()) < quantiser.codes == 48
    assert torch.allclose(quantiser.look_up(numbers), found, atol=1e-6)


def test_the_nearest_code_is_taken() -> None:
    quantiser = made()
    x = torch.randn(2, 7, 4)
    book = quantiser.look_up(torch.arange(48)[None])[0]
    nearest = torch.cdist(x.reshape(-1, 4), book).argmin(dim=1)
    assert torch.equal(quantiser(x)[1].flatten(), nearest)


@pytest.mark.parametrize("levels", WAYS)
def test_the_gradient_passes_straight_through(levels: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 4, requires_grad=True)
    weights = torch.randn(2, 3, 4)
    (made(levels)(x, seed=0)[0] * weights).sum().backward()
    assert x.grad is not None and float(x.grad.abs().min()) > 0
    if not levels:
        assert torch.allclose(x.grad, weights)


def test_without_a_seed_nothing_is_learned() -> None:
    quantiser = made().train()
    before = {k: v.clone() for k, v in quantiser.state_dict().items()}
    x = torch.randn(2, 3, 4)
    quantiser(x)
    assert all(torch.equal(v, before[k]) for k, v in quantiser.state_dict().items())
    quantiser(x, seed=0)
    assert any(not torch.equal(v, before[k]) for k, v in quantiser.state_dict().items())


def test_the_codebook_is_a_function_of_vectors_and_seeds() -> None:
    """Whatever else draws random numbers, and without disturbing it."""
    batches = torch.randn(40, 2, 8, 4)
    books, after = [], []
    for other in (0, 1):
        quantiser = made()
        torch.manual_seed(other)
        for step, x in enumerate(batches):
            quantiser(x, seed=step)
        books.append(quantiser.look_up(torch.arange(48)[None]))
        after.append(float(torch.rand(())))
    assert torch.equal(books[0], books[1])
    assert after[0] == float(torch.rand((), generator=torch.Generator().manual_seed(0)))


def test_dead_codes_are_revived() -> None:
    """Vectors far from every code at first come to use more than half of the codebook."""
    quantiser, draw = made(), torch.Generator().manual_seed(0)
    x = 5 + torch.randn(8, 60, 4, generator=draw)
    first = usage([quantiser(x)[1]], 48)
    for step in range(60):
        quantiser(5 + torch.randn(8, 60, 4, generator=draw), seed=step)
    last = usage([quantiser(x)[1]], 48)
    assert first["usage"] < 0.5 < last["usage"] and last["perplexity"] > 24


def test_usage_and_perplexity_of_known_laws() -> None:
    even = usage([torch.arange(6).repeat(10)], 8)
    assert even["usage"] == 0.75 and abs(even["perplexity"] - 6) < 1e-9
    one = usage([torch.full((4, 3), 2)] * 2, 8)
    assert one["usage"] == 0.125 and abs(one["perplexity"] - 1) < 1e-9
