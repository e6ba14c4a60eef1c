"""Weights of classes are scikit-learn's balanced ones, or those that were named."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from tl_experiments.data.class_weights import class_weights
from tl_experiments.runtime.errors import SettingError

NAMES = ("cat", "dog", "eel")
LABELS = torch.tensor([0] * 7 + [1] * 2 + [2])


def test_auto_is_inverse_frequency_with_a_mean_of_one_over_the_images() -> None:
    weights = class_weights("auto", labels=LABELS, class_names=NAMES)
    assert weights is not None
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
    torch.testing.assert_close(weights, torch.from_numpy(expected).float())
    assert weights[LABELS].mean().item() == pytest.approx(1)


def test_a_class_without_images_spoils_no_other_weight() -> None:
    weights = class_weights("auto", labels=LABELS, class_names=(*NAMES, "fox"))
    assert weights is not None
    assert weights[LABELS].mean().item() == pytest.approx(1)
    assert weights[3] == 0


def test_named_weights_are_taken_as_they_are_and_the_others_are_one() -> None:
    weights = class_weights({"eel": 5, "cat": 0.5}, labels=LABELS, class_names=NAMES)
    assert weights is not None
    assert weights.tolist() == [0.5, 1.0, 5.0]
    assert class_weights(None, labels=LABELS, class_names=NAMES) is None


@pytest.mark.parametrize(("name", "told"), [("dgo", "did you mean dog?"), ("whale", "the 3 classes are cat, dog, eel")])
def test_a_class_that_there_is_not_is_named(name: str, told: str) -> None:
    with pytest.raises(SettingError) as caught:
        class_weights({name: 2.0}, labels=LABELS, class_names=NAMES)
    assert str(caught.value) == f"class_weights: the dataset has no class {name}; {told}"
