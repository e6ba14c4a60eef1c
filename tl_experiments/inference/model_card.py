"""The model card: what a person should know before using a model (Mitchell et al. 2019), as a page of Markdown."""

from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from tl_experiments.inference.description import Description

SHOWN = ("val/acc_best", "test/acc", "test/acc_top5", "test/f1_macro", "test/acc_balanced", "test/ece_calibrated")


def model_card(
    description: Description, *, name: str, dataset: str, training: Mapping[str, object], metrics: Mapping[str, float]
) -> str:
    """Return the card of a model.

    Args:
        description: of it.
        name: of its run.
        dataset: that it learned from.
        training: what else is worth knowing of how it was trained, by names for people.
        metrics: of the best epoch and the test split; those that people look at are shown.
    """
    text = files("tl_experiments.inference").joinpath("model_card.md").read_text(encoding="utf-8")
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text)
    return template.render(
        name=name,
        dataset=dataset,
        backbone=description.backbone,
        head=str(description.head["_target_"]).rpartition(".")[2],
        class_names=description.class_names,
        canvas=description.canvas,
        temperature=description.temperature,
        mirrors=description.mirrors,
        scores={key: metrics[key] for key in SHOWN if key in metrics},
        training={**training, **description.versions},
    )
