"""Heat maps tell the truth: where the evidence is known, where images are blotted out, and where weights are noise."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from tests.digit_files import MODEL
from tl_experiments.build import build_classifier
from tl_experiments.data.transforms import Canvas, Normalise, draw
from tl_experiments.explain import saliency
from tl_experiments.explain.saliency import GRADCAM, GRADIENTS, explain
from tl_experiments.inference.image_classifier import Classifier, ImageClassifier
from tl_experiments.models.backbone import Backbone
from tl_experiments.models.digest import tensors_sha256
from tl_experiments.models.heads import linear_head
from tl_experiments.models.input_spec import InputSpec
from tl_experiments.models.model import Model
from tl_experiments.models.neighbours import Neighbours, NeighboursHead
from tl_experiments.models.timm_backbone import timm_backbone
from tl_experiments.runtime.errors import RunFailed, SettingError

NUM_DIGITS = 40


@pytest.fixture(scope="module")
def classifier() -> Iterator[Classifier]:
    """The stored run's, of digits at 32 pixels."""
    with build_classifier(MODEL, device="cpu", batch_size=4) as built:
        yield built


@pytest.fixture(scope="module")
def digits(classifier: Classifier) -> torch.Tensor:
    images = [Image.fromarray((image * 15).astype(np.uint8)).convert("RGB") for image in load_digits().images[-80:]]
    return torch.from_numpy(np.stack([draw(image, classifier.description.canvas) for image in images]))


def with_model(classifier: Classifier, model: Model, *, size: int = 32, mirrors: bool = False) -> Classifier:
    description = replace(classifier.description, canvas=Canvas(size, size, "bilinear"), mirrors=mirrors)
    return replace(classifier, description=description, network=ImageClassifier(model, description=description))


def timm_model(name: str) -> Model:
    backbone = timm_backbone(name=name, weights=None, image_size=None, preferred_size=None, seed=0)
    return Model(backbone, linear_head(feature_dim=backbone.feature_dim, num_classes=10, seed=0))


def patches(size: int, *places: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A dark image with coarse noise in some of its quarters: uint8 (3, size, size)."""
    image, half = torch.full((3, size, size), 20, dtype=torch.uint8), size // 2
    noise = torch.randint(0, 256, (1, 3, 10, 10), generator=torch.Generator().manual_seed(seed)).float()
    for row, column in places:
        image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] = F.interpolate(noise, half)[0]
    return image


def made_by_hand(body: nn.Module, head: nn.Module) -> Model:
    spec = InputSpec(size=32, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear", crop_pct=1.0)
    return Model(Backbone(body, name="by hand", feature_dim=2, input_spec=spec, weights_id="none"), head)


def red_or_blue() -> Model:
    """Its classes are the amount of red and the amount of blue, and nothing else."""
    body = nn.Sequential(nn.Conv2d(3, 2, 4, stride=4, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    body[0].weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None].expand(2, 3, 4, 4) / 16
    return made_by_hand(body, nn.Identity())


def test_heat_lies_where_the_evidence_is_known_to_lie(classifier: Classifier) -> None:
    description = replace(classifier.description, class_names=("red", "blue"), normalise=Normalise((0,) * 3, (1,) * 3))
    by_hand = with_model(replace(classifier, description=description), red_or_blue())
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    image[0, 4:12, 20:28], image[2, 16:28, 4:12] = 255, 255  # red above right, blue below left and more of it
    red, blue = (explain(by_hand, image, target=target) for target in (0, 1))
    assert red.method == blue.method == GRADCAM
    assert red.heat[2:14, 18:30].sum() > 0.95 * red.heat.sum()
    assert blue.heat[14:30, 2:14].sum() > 0.95 * blue.heat.sum()
    assert explain(by_hand, image).label == 1
    assert blue.heat.max() == 1.0


@pytest.mark.parametrize("method", ["auto", GRADIENTS])
def test_a_digit_is_lost_where_its_hottest_quarter_is_blotted_out_rather_than_its_coldest(
    method: str, classifier: Classifier, digits: torch.Tensor
) -> None:
    hot_lost, cold_lost = [], []
    for canvas in digits[:NUM_DIGITS]:
        explanation = explain(classifier, canvas, method=method)
        by_heat = np.argsort(explanation.heat.ravel(), kind="stable")
        blotted = canvas.repeat(2, 1, 1, 1)
        for image, quarter in zip(blotted, (by_heat[-256:], by_heat[:256]), strict=True):
            image.view(3, -1)[:, quarter] = canvas.float().mean().byte()
        hot, cold = classifier.logits(blotted).log_softmax(dim=1)[:, explanation.label]
        hot_lost.append(-hot)
        cold_lost.append(-cold)
    assert np.mean(np.array(hot_lost) > np.array(cold_lost)) > 0.8
    assert np.mean(hot_lost) > 5 * np.mean(cold_lost)


def test_each_class_has_a_map_of_its_own(classifier: Classifier, digits: torch.Tensor) -> None:
    maps = [explain(classifier, digits[0], target=target).heat for target in range(10)]
    likeness = np.corrcoef(np.stack([heat.ravel() for heat in maps]))
    assert likeness[~np.eye(10, dtype=bool)].max() < 0.95


def test_a_map_of_random_weights_is_another_one(classifier: Classifier, digits: torch.Tensor) -> None:
    """The sanity check of Adebayo et al. 2018: a method that only finds edges would not notice."""
    likeness = []
    for canvas in digits[:10]:
        learnt = explain(classifier, canvas)
        noise = explain(with_model(classifier, timm_model("test_efficientnet")), canvas, target=learnt.label)
        likeness.append(np.corrcoef(learnt.heat.ravel(), noise.heat.ravel())[0, 1])
    assert np.nanmean(likeness) < 0.4


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_mambaout"])
def test_maps_follow_the_image_and_are_the_same_again(name: str, classifier: Classifier) -> None:
    random = with_model(classifier, timm_model(name), size=160)
    above, below = patches(160, (0, 0)), patches(160, (1, 1))
    explanation = explain(random, above, target=3)
    assert explanation.method == GRADCAM
    assert (explanation.heat.shape, explanation.heat.dtype) == ((160, 160), np.float32)
    assert (explanation.heat.min(), explanation.heat.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(explanation.heat, explain(random, above, target=3).heat)
    assert not np.allclose(explanation.heat, explain(random, below, target=3).heat, atol=0.1)


def test_where_the_mean_over_the_grid_follows_it_is_grad_cam(classifier: Classifier) -> None:
    model = timm_model("test_efficientnet")
    random, canvas = with_model(classifier, model, size=160), patches(160, (0, 1), (1, 0))
    centred = lambda images: (logits := model(images)) - logits.mean(dim=1, keepdim=True)  # noqa: E731 - as captum asks
    images = random.network.normalise(canvas[None])
    other = LayerGradCam(centred, model.backbone.body.get_submodule("bn2")).attribute(images, target=5).relu()
    expected = F.interpolate(other / other.max(), (160, 160), mode="bilinear")[0, 0].detach()
    heat = explain(random, canvas, target=5).heat
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-4)


def test_the_mirror_image_has_the_mirrored_map_where_both_are_looked_at(
    classifier: Classifier, digits: torch.Tensor
) -> None:
    both = with_model(classifier, classifier.network.model, mirrors=True)
    for method in ("auto", GRADIENTS):
        here, there = (
            explain(both, canvas, target=2, method=method).heat for canvas in (digits[2], digits[2].flip(-1))
        )
        np.testing.assert_allclose(here, there[:, ::-1], atol=1e-3)


def test_neighbours_are_explained_by_the_nearest_of_the_class(classifier: Classifier, digits: torch.Tensor) -> None:
    backbone = classifier.network.model.backbone
    head = NeighboursHead(backbone.feature_dim, 10, Neighbours(num_images=40, most=5, temperature=0.07))
    head.k.fill_(5)
    with torch.no_grad():
        features = backbone(classifier.network.normalise(digits[:40]))
    head.remember(features, torch.from_numpy(load_digits().target[-80:-40]))
    nearest = with_model(classifier, Model(backbone, head))
    answer, other = explain(nearest, digits[50]), explain(nearest, digits[50], target=1)
    assert answer.probabilities.max() > 0.99  # a vote of one mind, whose gradient is 0
    assert not answer.is_flat
    assert not np.allclose(answer.heat, other.heat, atol=0.1)


def test_a_network_without_a_grid_is_explained_by_its_gradients(classifier: Classifier) -> None:
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2, bias=False))
    body[1].weight.data.zero_().view(2, 3, 32, 32)[0, :, 20:24, 5:9] = 1.0
    explanation = explain(with_model(classifier, made_by_hand(body, nn.Identity())), patches(32, (0, 0)), target=0)
    assert explanation.method == GRADIENTS
    assert explanation.heat[20:24, 5:9].min() > 0.99
    assert explanation.heat.sum() == pytest.approx(16)


def test_where_nothing_speaks_for_a_class_the_map_is_flat_and_says_so(classifier: Classifier) -> None:
    silent = red_or_blue()
    silent.backbone.body[0].weight.data.zero_()
    for method in ("auto", GRADIENTS):
        explanation = explain(with_model(classifier, silent), patches(32, (0, 0)), target=0, method=method)
        assert explanation.is_flat
        assert not explanation.heat.any()  # nor is it nan


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("method", ["auto", GRADIENTS])
def test_nothing_of_the_model_changes(method: str, context: type, classifier: Classifier, digits: torch.Tensor) -> None:
    network, expected = classifier.network, classifier.probabilities(digits[:4])
    before = tensors_sha256(network.state_dict())
    frozen = next(network.parameters()).requires_grad_(False)
    asks = [parameter.requires_grad for parameter in network.parameters()]
    modes = [module.training for module in network.modules()]
    with context():
        explanation = explain(classifier, digits[0], method=method)
    assert not explanation.is_flat
    assert tensors_sha256(network.state_dict()) == before
    assert [parameter.requires_grad for parameter in network.parameters()] == asks
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(classifier.probabilities(digits[:4]), expected)
    frozen.requires_grad_(True)


def test_the_answer_is_that_of_the_classifier(classifier: Classifier, digits: torch.Tensor) -> None:
    expected = classifier.probabilities(digits[:1])[0]
    explanation = explain(classifier, digits[0])
    assert explanation.label == expected.argmax()
    np.testing.assert_array_equal(explanation.probabilities, expected)


def test_a_class_that_is_none_is_refused(classifier: Classifier, digits: torch.Tensor) -> None:
    with pytest.raises(SettingError, match=r"^class 10: expected 0 to 9$"):
        explain(classifier, digits[0], target=10)


def test_a_network_that_gives_no_gradients_is_told_in_one_line(
    classifier: Classifier, digits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("element 0 of tensors does not require grad\nand more")

    monkeypatch.setattr(saliency, "_gradcam", fail)
    with pytest.raises(SettingError, match=r"^test_efficientnet: its answers cannot be explained: element 0[^\n]*$"):
        explain(classifier, digits[0])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB for gradients"), RunFailed),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), RuntimeError),
    ],
)
def test_a_fault_of_the_machine_is_not_told_as_one_of_the_network(
    error: Exception,
    told: type[Exception],
    classifier: Classifier,
    digits: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(saliency, "_gradcam", fail)
    with pytest.raises(told, match=r"CUDA"):
        explain(classifier, digits[0])


def test_the_layer_is_looked_for_once(classifier: Classifier, digits: torch.Tensor) -> None:
    fresh = with_model(classifier, classifier.network.model)
    passes: list[int] = []
    with fresh.network.model.backbone.body.register_forward_hook(lambda *_: passes.append(1)):
        maps = [explain(fresh, digits[0], target=3).heat]
        first = len(passes)
        maps.append(explain(fresh, digits[0], target=3).heat)
    assert len(passes) - first == first - 1
    np.testing.assert_array_equal(*maps)
