"""The generated images: the same for a seed, different from each other, with something in them."""

import numpy as np
import pytest

from projects.style.synthetic import STYLES, draw_landscapes, draw_style


def test_landscapes_are_a_function_of_seed_and_number_alone() -> None:
    several = draw_landscapes(3, seed=7, size=40)
    assert several.shape == (3, 40, 40, 3)
    assert several.dtype == np.uint8
    assert np.array_equal(draw_landscapes(2, seed=7, size=40), several[:2])
    assert not np.array_equal(draw_landscapes(1, seed=8, size=40)[0], several[0])
    assert all(image.std() > 15 for image in several)


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_the_same_for_a_seed_and_full_of_contrast(name: str) -> None:
    image = draw_style(name, seed=0, size=64)
    assert np.array_equal(image, draw_style(name, seed=0, size=64))
    assert not np.array_equal(image, draw_style(name, seed=1, size=64))
    assert image.std() > 30
