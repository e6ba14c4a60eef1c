"""What in an image speaks for a class, as a heat map."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, LayerGradientXActivation, Saliency

from tl_experiments.data.transforms import centre_crop
from tl_experiments.explain.evidence_layer import EvidenceLayer, Layout, find_evidence_layer
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.models.model import Model
from tl_experiments.models.neighbours import NeighboursHead
from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.seeding import seeded

AUTO, GRADCAM, TOKENS, GRADIENTS = "auto", "gradcam", "tokens", "gradients"
METHODS = (AUTO, GRADIENTS)  # to ask for; a network has no choice between the other two
NUM_NOISY, NOISE = 16, 0.15  # copies, and the noise's share of the range of values (Smilkov et al. 2017)
BRIGHTEST = 0.99  # quantile of gradients that is shown as 1: few pixels would darken all others


@dataclass(frozen=True)
class Explanation:
    """Why one image gets its answer.

    Attributes:
        heat: float32 (S, S) on the centre crop, 0 (nothing) to 1 (most evidence for the label); all 0 where nothing
            speaks for it.
        label: index of the class that is explained.
        probabilities: float32 (K,), calibrated.
        method: gradcam, tokens or gradients.
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

    gradcam: of convolutional networks (Selvaraju et al. 2017, arXiv:1610.02391), at the last layer that still has a
        grid. Channels are weighted by the mean gradient of the class's logit; what speaks against it is left out.
    tokens: of transformers whose last block gets a grid of tokens (ViT), and of networks with channels last (Swin):
        gradient times value, summed over each token (HiResCAM: Draelos & Carin 2020, arXiv:2011.08891, which is
        Grad-CAM without the mean; a token's gradient differs from its neighbour's). It needs no attention weights, so
        fused attention stays, and differs from class to class, unlike attention rollout.
    gradients: for whatever is left: the mean size of the gradient with respect to the pixels of noisy copies
        (SmoothGrad: Smilkov et al. 2017, arXiv:1706.03825). It shows which pixels matter, for or against.

    A classifier that looks at mirror images is explained by the mean of both. k-nearest neighbours, whose votes are
    steps, are explained by the cosine to the nearest training image of the class. Nothing of the model changes.
    While this runs, no other thread may use the classifier: values are read as they pass.

    Args:
        classifier: on any device; computes in float32 here.
        canvas: uint8 (3, C, C), on any device.
        target: index of the class to explain; None is the most probable.
        method: auto, or gradients where single pixels are wanted.

    Raises:
        SettingError: no such class.
    """
    probabilities = classifier.probabilities(canvas[None])[0].numpy()
    label = int(probabilities.argmax()) if target is None else target
    if not 0 <= label < len(probabilities):
        raise SettingError(f"class {label}: expected 0 to {len(probabilities) - 1}")
    with torch.inference_mode(False), torch.enable_grad():
        images = _inputs(classifier, canvas)
        evidence = _Evidence(classifier.network.model)
        layer = find_evidence_layer(evidence.model.backbone, images) if method == AUTO else None
        method, maps = _gradients(evidence, images, label) if layer is None else _at(layer, evidence, images, label)
    return Explanation(_on_crop(maps, size=images.shape[-1]), label, probabilities, method)


def _inputs(classifier: Classifier, canvas: torch.Tensor) -> torch.Tensor:
    """Return what the network sees: the crop, and its mirror image where that is looked at; (1 or 2, 3, S, S)."""
    network = classifier.network
    crops = centre_crop(canvas[None].to(classifier.compute.device), network.crop)
    seen = torch.cat([crops, crops.flip(-1)]) if network.mirrors else crops
    return network.normalise(seen, network.memory_format).requires_grad_()


class _Evidence(torch.nn.Module):
    """Images → what is said for each class (B, K), of which the gradient tells something."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        head = self.model.head
        return _nearest(head, self.model.backbone(images)) if isinstance(head, NeighboursHead) else self.model(images)


def _nearest(head: NeighboursHead, features: torch.Tensor) -> torch.Tensor:
    """Return the cosine to the nearest training image of each class: (B, K)."""
    cosines = F.normalize(features.float(), dim=1) @ head.directions.T
    none = cosines.new_full((len(cosines), head.num_classes), -1.0)
    return none.scatter_reduce(1, head.labels.expand_as(cosines), cosines, reduce="amax")


def _at(layer: EvidenceLayer, evidence: _Evidence, images: torch.Tensor, label: int) -> tuple[str, torch.Tensor]:
    if layer.layout is Layout.CHANNELS_FIRST:
        return GRADCAM, LayerGradCam(evidence, layer.module).attribute(images, target=label).relu()
    products = LayerGradientXActivation(evidence, layer.module)
    found = products.attribute(images, target=label, attribute_to_layer_input=layer.at_input)
    return TOKENS, layer.planes(found).sum(dim=1, keepdim=True).relu()


def _gradients(evidence: _Evidence, images: torch.Tensor, label: int) -> tuple[str, torch.Tensor]:
    low, high = images.aminmax()
    with seeded(0):
        noise = torch.randn(NUM_NOISY, *images.shape[1:])
    maps = []
    for image in images.detach():
        noisy = (image + NOISE * (high - low) * noise.to(images.device)).detach().requires_grad_()
        found = Saliency(evidence).attribute(noisy, target=label).mean(dim=0).amax(dim=0)
        maps.append((found / found.quantile(BRIGHTEST).clamp(min=torch.finfo().tiny)).clamp(max=1.0))
    return GRADIENTS, torch.stack(maps)[:, None]


def _on_crop(maps: torch.Tensor, *, size: int) -> np.ndarray:
    """Enlarge maps (1 or 2, 1, h, w) of an image, and of its mirror image, to the crop: (S, S), at most 1."""
    found = F.interpolate(maps.detach().float(), (size, size), mode="bilinear", align_corners=False)[:, 0]
    heat = found[0] + found[1].flip(-1) if len(found) == 2 else found[0]
    return (heat / heat.max().clamp(min=torch.finfo().tiny)).cpu().numpy()
