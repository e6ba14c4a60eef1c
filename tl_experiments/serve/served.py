"""The model that is served, and what is known of it beside its network."""

from dataclasses import dataclass, field
from pathlib import Path

from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.serve.answers import InputRules, ModelFacts, ModelName, RequestLimits
from tl_experiments.serve.limits import Limits
from tl_experiments.tracking.result import read_result

SCORES = ("val/", "test/")


@dataclass(frozen=True)
class Served:
    """A classifier with its name.

    Attributes:
        classifier: that answers.
        folder: of the model, where its example images are.
        name: for people.
        scores: of its run.
    """

    classifier: Classifier = field(repr=False)
    folder: Path
    name: str
    scores: dict[str, float]

    @classmethod
    def of(cls, classifier: Classifier, folder: Path) -> "Served":
        """Find the name and the scores of a model beside its folder, where its run has left them."""
        run = read_result(folder.parent)
        if run.get("weights_sha256") != classifier.description.weights_sha256:
            run = {}
        scores = {key: value for key, value in run.items() if key.startswith(SCORES) and isinstance(value, float)}
        return cls(classifier, folder, str(run.get("name") or folder.name), scores)

    @property
    def model(self) -> ModelName:
        return ModelName(name=self.name, weights_sha256=self.classifier.description.weights_sha256)

    @property
    def examples(self) -> list[str]:
        """Names of the example images that are there."""
        return [name for name in self.classifier.description.examples if (self.folder / name).is_file()]

    def facts(self, limits: Limits) -> ModelFacts:
        """Return all that is said of it."""
        description, compute = self.classifier.description, self.classifier.compute
        return ModelFacts(
            name=self.name,
            weights_sha256=description.weights_sha256,
            class_names=list(description.class_names),
            input=InputRules(
                resize_shorter_side=description.canvas.size,
                centre_crop=description.canvas.crop,
                interpolation=description.canvas.interpolation,
                mean=description.normalise.mean,
                std=description.normalise.std,
                mirrors=description.mirrors,
            ),
            temperature=description.temperature,
            scores=self.scores,
            precision=compute.infer.name,
            device=str(compute.device),
            examples=self.examples,
            limits=RequestLimits(
                body_bytes=limits.body_bytes, images=limits.images, pixels=limits.pixels, seconds=limits.seconds
            ),
        )
