"""What is said of a model that a member has trained."""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_experiments.config.member import Member
from tl_experiments.data.dataset_images import DatasetImages
from tl_experiments.data.transforms import Normalise
from tl_experiments.inference.description import Description
from tl_experiments.inference.examples import example_names
from tl_experiments.inference.model_card import model_card
from tl_experiments.models.model import Model
from tl_experiments.runtime.fingerprint import versions

KNOBS = ("lr", "epochs", "batch_size", "seed")


def describe_model(
    member: Member,
    model: Model,
    *,
    head: Mapping[str, Any] | None,
    class_names: Sequence[str],
    images: DatasetImages,
    num_examples: int,
    temperature: float,
    weights_sha256: str,
) -> Description:
    """Say what a model is that was trained by a member or beside it.

    Args:
        member: whose configuration built it.
        model: trained.
        head: how its head is built; None is as the configuration says.
        class_names: in label order.
        images: that it was trained on.
        num_examples: of the images that go with it.
        temperature: that calibrates it.
        weights_sha256: digest of its tensors.
    """
    spec = model.backbone.input_spec
    own = {"weights": None, "image_size": spec.size, "feature_dim": model.backbone.feature_dim}
    return Description(
        backbone=member.config["backbone"] | own | {"pretrained_weights": model.backbone.weights_id},
        head=head or member.config["head"],
        class_names=tuple(class_names),
        canvas=images.canvas,
        normalise=Normalise(spec.mean, spec.std),
        mirrors=member.config["tta"] == "flip",
        temperature=temperature,
        weights_sha256=weights_sha256,
        versions=versions(),
        examples=example_names(num_examples),
    )


def write_card(
    member: Member, description: Description, *, name: str, images: DatasetImages, metrics: Mapping[str, float]
) -> str:
    """Return the model card of a run: its name, where its images are from, and what it came to."""
    training = {
        "strategy": member.choices["strategy"],
        **{knob: member.config[knob] for knob in KNOBS},
        "training images": len(images.train),
    }
    return model_card(description, name=name, dataset=member.choices["dataset"], training=training, metrics=metrics)
