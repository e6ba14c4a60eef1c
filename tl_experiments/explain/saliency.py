"""What in an image speaks for a class, as a heat map."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradientXActivation, Saliency

from tl_experiments.data.transforms import centre_crop
from tl_experiments.explain.evidence_layer import EvidenceLayer, find_evidence_layer
from tl_experiments.inference.image_classifier import Classifier, ImageClassifier
from tl_experiments.models.model import Model
from tl_experiments.models.neighbours import NeighboursHead
from tl_experiments.models.weights import first_line
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.memory import is_out_of_memory
from tl_experiments.runtime.seeding import seeded

AUTO, GRADCAM, GRADIENTS = "auto", "gradcam", "gradients"
METHODS = (AUTO, GRADIENTS)  # to ask for
NUM_NOISY, NOISE = 8, 0.15  # copies, and the noise's share of the range of values (Smilkov et al. 2017)
GRADIENT_TEXTS = ("grad", "backward", "derivative", "differentiated")  # in what PyTorch says where there are none
BRIGHTEST = 0.99  # quantile of gradients that is shown as 1: few pixels would darken all others

# The search passes an image through the network; of a network and its size it finds the same again.
_layers: "WeakKeyDictionary[ImageClassifier, EvidenceLayer | None]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Explanation:
    """Why one image gets its answer.

    Attributes:
        heat: float32 (S, S) on the centre crop, 0 (nothing) to 1 (most evidence for the label); all 0 where nothing
            speaks for it.
        label: index of the class that is explained.
        probabilities: float32 (K,), calibrated.
        method: gradcam or gradients.
    """

    heat: np.ndarray
    label: int
    probabilities: np.ndarray
    method: str

    @property
    def is_flat(self) -> bool:
        """Whether nothing in the image speaks for the label."""
        return not self.heat.any()


def explain(
    classifier: Classifier, canvas: torch.Tensor, *, target: int | None = None, method: str = AUTO
) -> Explanation:
    """Show where in an image the evidence for a class lies.

    auto takes what the network allows:

    gradcam: of a network with a layer on a grid (`find_evidence_layer`): a convolutional one, or a transformer's
        tokens. What each value adds to the class's logit above the mean logit, gradient times value, is summed in each
        cell; what speaks against the class is left out (HiResCAM: Draelos & Carin 2020, arXiv:2011.08891). Where the
        mean over all cells follows, as in ResNet and EfficientNet, this is Grad-CAM (Selvaraju et al. 2017,
        arXiv:1610.02391). Elsewhere, as on finer grids and tokens, Grad-CAM's mean gradient points to cells that
        matter less. Unlike attention rollout (Abnar & Zuidema 2020) it differs from class to class and needs no
        attention weights, which fused attention does not give.
    gradients: of any other: the mean size of the gradient with respect to the pixels of noisy copies (SmoothGrad:
        Smilkov et al. 2017, arXiv:1706.03825). It shows which pixels matter, for or against.

    A classifier that looks at mirror images is explained by the mean of both. k-nearest neighbours, whose votes are
    steps, are explained by the cosine to the nearest training image of the class. Nothing of the model changes.
    While this runs, no other thread may use the classifier: values are read as they pass.

    Args:
        classifier: on any device; computes in float32 here.
        canvas: uint8 (3, C, C), on any device.
        target: index of the class to explain; None is the most probable.
        method: auto, or gradients where single pixels are wanted.

    Raises:
        SettingError: no such class, or a network that gives no gradients.
        RunFailed: memory is too small.
    """
    probabilities = classifier.probabilities(canvas[None])[0].numpy()
    label = int(probabilities.argmax()) if target is None else target
    if not 0 <= label < len(probabilities):
        raise SettingError(f"class {label}: expected 0 to {len(probabilities) - 1}")
    evidence = _Evidence(classifier.network.model)
    backbone = evidence.model.backbone
    try:
        with torch.inference_mode(False), torch.enable_grad():
            images = _inputs(classifier, canvas)
            layer = _layer(classifier.network, images) if method == AUTO else None
            maps = _gradcam(layer, evidence, images, label) if layer else _gradients(evidence, images, label)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise RunFailed(f"{backbone.name}: memory is too small for its gradients: {first_line(error)}") from error
        if not any(text in str(error) for text in GRADIENT_TEXTS):
            raise
        # ConViT keeps what it computes for prediction, which has no gradients.
        raise SettingError(f"{backbone.name}: its answers cannot be explained: {first_line(error)}") from error
    heat = _on_crop(maps, size=images.shape[-1])
    return Explanation(heat, label, probabilities, method=GRADCAM if layer else GRADIENTS)


def _layer(network: ImageClassifier, images: torch.Tensor) -> EvidenceLayer | None:
    if network not in _layers:
        _layers[network] = find_evidence_layer(network.model.backbone, images)
    return _layers[network]


def _inputs(classifier: Classifier, canvas: torch.Tensor) -> torch.Tensor:
    """Return what the network sees: the crop, and its mirror image where that is looked at; (1 or 2, 3, S, S)."""
    network = classifier.network
    crops = centre_crop(canvas[None].to(classifier.compute.device), network.crop)
    seen = torch.cat([crops, crops.flip(-1)]) if network.mirrors else crops
    return network.normalise(seen, network.memory_format).requires_grad_()


class _Evidence(torch.nn.Module):
    """Images → what is said for each class, above what is said for all of them: (B, K).

    Softmax sees no common part, which is another in each class's logit; and the two of two classes are opposites.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        head = self.model.head
        is_vote = isinstance(head, NeighboursHead)
        said = _nearest(head, self.model.backbone(images)) if is_vote else self.model(images)
        return said - said.mean(dim=1, keepdim=True)


def _nearest(head: NeighboursHead, features: torch.Tensor) -> torch.Tensor:
    """Return the cosine to the nearest training image of each class: (B, K)."""
    cosines = F.normalize(features.float(), dim=1) @ head.directions.T
    none = cosines.new_full((len(cosines), head.num_classes), -1.0)
    return none.scatter_reduce(1, head.labels.expand_as(cosines), cosines, reduce="amax")


def _gradcam(layer: EvidenceLayer, evidence: _Evidence, images: torch.Tensor, label: int) -> torch.Tensor:
    """Return maps (B, 1, side, side), 0 or more."""
    found = LayerGradientXActivation(evidence, layer.module).attribute(images, target=label)
    assert isinstance(found, torch.Tensor)  # a tuple only where the layer returns one
    return layer.planes(found).sum(dim=1, keepdim=True).relu()


def _gradients(evidence: _Evidence, images: torch.Tensor, label: int) -> torch.Tensor:
    low, high = images.aminmax()
    with seeded(0):
        noise = torch.randn(NUM_NOISY, *images.shape[1:])
    maps = []
    for image in images.detach():
        noisy = (image + NOISE * (high - low) * noise.to(images.device)).detach().requires_grad_()
        found = Saliency(evidence).attribute(noisy, target=label).mean(dim=0).amax(dim=0)
        maps.append((found / found.quantile(BRIGHTEST).clamp(min=torch.finfo().tiny)).clamp(max=1.0))
    return torch.stack(maps)[:, None]


def _on_crop(maps: torch.Tensor, *, size: int) -> np.ndarray:
    """Enlarge maps (1 or 2, 1, h, w) of an image, and of its mirror image, to the crop: (S, S), at most 1."""
    found = F.interpolate(maps.detach().float(), (size, size), mode="bilinear", align_corners=False)[:, 0]
    heat = found[0] + found[1].flip(-1) if len(found) == 2 else found[0]
    return (heat / heat.max().clamp(min=torch.finfo().tiny)).cpu().numpy()
