import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntklib import roughness

BOTH = [roughness.total_variation, roughness.high_frequency]


def noise(n=2, side=8, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(n, side, side, channels))


def wave(cycles, axis=1, side=32):
    """A sinusoid along rows or columns, of so many cycles an image."""
    phase = 2 * np.pi * cycles * np.arange(side) / side + 0.3
    x = np.broadcast_to(np.cos(phase), (side, side))
    return (x if axis == 1 else x.T)[None, ..., None]


@pytest.mark.parametrize("rough", BOTH)
def test_a_constant_image_is_not_rough(rough):
    np.testing.assert_allclose(rough(np.full((2, 5, 6, 3), -0.7)), 0, atol=1e-30)


def test_total_variation_by_hand():
    # Steps of 1 and 3 down the columns, of 1 and 1 along the rows, over a sum of 4.
    image = np.array([[0.0, 1.0], [-1.0, -2.0]])[None, ..., None]
    assert roughness.total_variation(image) == pytest.approx([(1 + 3 + 1 + 1) / 4])
    two = np.concatenate([image, np.ones_like(image)], axis=-1)  # channels add up
    assert roughness.total_variation(two) == pytest.approx([6 / 8])


def test_a_board_of_ones_is_as_rough_as_can_be():
    board = (-1.0) ** np.add.outer(np.arange(6), np.arange(6))[None, ..., None]
    assert roughness.total_variation(board) == pytest.approx([2 * 2 * 6 * 5 / 36])
    assert roughness.high_frequency(board) == pytest.approx([1])


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("cycles", "share"), [(1, 0), (7, 0), (8, 0), (9, 1), (16, 1)])
def test_a_sinusoid_is_of_one_frequency(cycles, share, axis):
    found = roughness.high_frequency(wave(cycles, axis))
    np.testing.assert_allclose(found, share, atol=1e-25)


def test_energies_of_sinusoids_add_up_and_diagonals_are_higher():
    np.testing.assert_allclose(roughness.high_frequency(wave(2) + 2 * wave(9)), 0.8)
    diagonal = np.cos(2 * np.pi * 5 / 24 * np.add.outer(np.arange(24), np.arange(24)))
    np.testing.assert_allclose(roughness.high_frequency(diagonal[None, ..., None]), 1)


def test_independent_pixels_are_as_rough_as_is_said():
    images = noise(n=20, side=64, channels=1)
    assert roughness.total_variation(images).mean() == pytest.approx(2 * np.sqrt(2), rel=0.03)
    assert roughness.high_frequency(images).mean() == pytest.approx(1 - np.pi / 16, abs=0.005)


@pytest.mark.parametrize("rough", BOTH)
@given(seed=st.integers(0, 100), scale=st.sampled_from([1e-30, -1e-3, 1e30]))
def test_neither_scale_nor_mirrors_nor_channels_change_it(rough, seed, scale):
    x = noise(seed=seed)
    expected = rough(x)
    assert (expected > 0).all()
    for same in (scale * x, x[:, ::-1], x.swapaxes(1, 2), x[..., ::-1], np.tile(x, 2)):
        np.testing.assert_allclose(rough(same), expected, rtol=1e-9)
    # Gradients come in float32, where the square of 1e-30 is zero.
    small = rough((1e-30 * x).astype(np.float32))
    np.testing.assert_allclose(small, expected, rtol=1e-4)


@pytest.mark.parametrize("rough", BOTH)
@pytest.mark.parametrize(
    ("images", "line"),
    [
        (noise()[0], r"^images: shape \(8, 8, 3\) is not allowed; "),
        (noise()[None], r"^images: shape \(1, 2, 8, 8, 3\) is not allowed; "),
        (noise() * np.arange(2.0)[:, None, None, None], "^images: number 0 is zero everywhere; "),
        (noise() * np.nan, "^images: has values that are not finite"),
    ],
)
def test_what_has_no_roughness_is_refused_in_one_line(rough, images, line):
    with pytest.raises(ValueError, match=line):
        rough(images)
