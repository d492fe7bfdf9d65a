import numpy as np

from caloforge.evaluate.differences import TAILS, Trend, spread_ratio, tail_share
from caloforge.evaluate.observables import QUANTITIES, measure


def test_the_trend_of_the_reference_leaves_nothing_of_it(reference):
    for name in ("hits", "z_mean", "r_mean"):
        trend = Trend(reference, QUANTITIES[name])
        rest = trend.residual(reference)
        x = np.log(reference.energy)
        assert abs(np.corrcoef(x, rest)[0, 1]) < 0.1
        assert rest.std() < QUANTITIES[name].of(reference).std()


def test_an_effect_has_its_size_whatever_the_energies(reference, toy):
    """Only low energies on one side: a comparison at equal energy does not mind."""
    showers = toy(800, 2)
    low = measure(showers[showers.energy < 15_000])
    for name in ("hits", "z_mean"):
        trend = Trend(reference, QUANTITIES[name])
        seen = trend.difference(trend.residual(low), trend.residual(reference))
        ideal = 1.0 if QUANTITIES[name].relative else 0.0
        assert abs(seen.value - ideal) < 4 * seen.error
    plain = QUANTITIES["hits"].of(low).mean() / QUANTITIES["hits"].of(reference).mean()
    assert plain < 0.8


def test_fluctuations_and_tails_of_a_known_law():
    rng = np.random.default_rng(3)
    reference, wide = rng.normal(size=20_000), 1.2 * rng.normal(size=20_000)
    ratio = spread_ratio(wide, reference)
    assert abs(ratio.value - 1.2) < 4 * ratio.error and ratio.error < 0.02
    share = tail_share(rng.normal(size=20_000), reference)
    assert abs(share.value - 100 * TAILS) < 4 * share.error
    # Of a normal law 1.2 times as wide 5.3 % lie beyond 2.326 standard deviations.
    assert tail_share(wide, reference).value > 4.5


def test_the_error_of_the_tails_is_that_of_repeating():
    rng = np.random.default_rng(5)
    shares = [tail_share(rng.normal(size=400), rng.normal(size=400)) for _ in range(300)]
    seen, said = np.std([s.value for s in shares]), np.mean([s.error for s in shares])
    assert 0.7 < said / seen < 1.4
