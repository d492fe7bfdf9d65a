import numpy as np
import pytest

from caloforge.evaluate.classifier import classifier_auc, features


def test_one_law_gives_a_half(reference):
    x = features(reference)
    seen = classifier_auc(x[:400], x[400:], seed=3)
    assert abs(seen.value - 0.5) < 3 * seen.error
    assert 0.01 < seen.error < 0.06


def test_two_laws_are_told_apart_and_the_seed_repeats(reference):
    x = features(reference)
    shifted = x[400:] + 0.5 * x.std(axis=0)
    first, second = (classifier_auc(x[:400], shifted, seed=3) for _ in range(2))
    assert first == second
    assert first.value > 0.95


def test_features_are_finite_and_know_the_incident_energy(reference):
    x = features(reference)
    mesh = reference.mesh
    assert x.shape == (800, 11 + 2 * mesh.n_z + mesh.n_r + mesh.n_phi)
    assert np.isfinite(x).all()
    np.testing.assert_allclose(x[:, 0], np.log10(reference.energy), rtol=1e-6)


def test_fewer_showers_than_folds_are_refused(reference):
    with pytest.raises(ValueError, match="n_splits"):
        classifier_auc(features(reference)[:3], features(reference)[3:6])


def test_twins_are_not_torn_apart(reference):
    """A copy in the other sample must neither help nor harm: its fold has not seen the original."""
    x = features(reference)[:400]
    primaries = np.concatenate([reference.energy[:400]] * 2)
    apart = classifier_auc(x, x, seed=3)
    together = classifier_auc(x, x, seed=3, groups=primaries)
    assert apart.value < 0.4, "each original tells the wrong side of its copy"
    assert abs(together.value - 0.5) < 4 * together.error
