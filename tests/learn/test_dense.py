"""Dense encoder and decoder: they begin at the mean shower, and a shower does not see others."""

from __future__ import annotations

import torch

from caloforge.learn.models.dense import DenseDecoder, DenseEncoder, Normalisation
from caloforge.learn.preprocess import Scaled

SHAPE, LAYERS = (2, 3, 4), (12, 8)
SIZES = (SHAPE, 1, 5, LAYERS, 3)


def showers(n: int) -> Scaled:
    draw = torch.Generator().manual_seed(4)
    return Scaled(torch.rand(n, *SHAPE, generator=draw), torch.randn(n, 1, generator=draw))


def test_the_decoder_mirrors_the_encoder() -> None:
    encoder, decoder = DenseEncoder(*SIZES), DenseDecoder(*SIZES)

    def nodes(layers: torch.nn.Module) -> list[int]:
        return [m.out_features for m in layers.modules() if isinstance(m, torch.nn.Linear)]

    assert nodes(encoder.hidden) == list(LAYERS) == nodes(decoder.hidden)[::-1]


def test_the_decoder_begins_at_the_mean_shower() -> None:
    clean = showers(50)
    for logits in (True, False):
        decoder = DenseDecoder(*SIZES)
        decoder.fit(clean, logits)
        torch.nn.init.zeros_(decoder.head.weight)
        found = decoder(torch.randn(2, 3), torch.randn(2, 5)).voxels
        found = found.sigmoid() if logits else found
        assert torch.allclose(found, clean.voxels.mean(0).expand(2, *SHAPE), atol=1e-5)


def test_once_trained_a_shower_does_not_depend_on_the_others_of_its_batch() -> None:
    clean, told = showers(20), torch.randn(20, 5)
    encoder = DenseEncoder(*SIZES)
    encoder.fit(clean)
    for _ in range(5):
        encoder(clean, told)  # the normalisations learn
    one = Scaled(*(part[:1] for part in clean))
    whole, alone = encoder.eval()(clean, told).mean, encoder(one, told[:1]).mean
    wider = encoder.train()(clean, told).mean
    assert torch.allclose(alone, whole[:1], atol=1e-5) and not torch.allclose(whole, wider)


def test_what_is_normalised_and_what_it_is_once_trained() -> None:
    x = 3 + 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    layer = Normalisation(4)
    for _ in range(200):
        learned = layer(x)
    assert torch.allclose(learned.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(learned.std(0, correction=0), torch.ones(4), atol=1e-3)
    factor, summand = layer.line()
    assert torch.allclose(layer.eval()(x), learned, atol=1e-4)
    assert torch.allclose(factor * x + summand, learned, atol=1e-4)
