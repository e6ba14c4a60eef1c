"""From a checked configuration to objects."""

from tl_experiments.build.checks import (
    bank_rule,
    check_buildable,
    shares_cpu,
)
from tl_experiments.build.described import describe_model, write_card
from tl_experiments.build.ground import (
    Ground,
    build_ground,
    build_images,
    build_materials,
    build_place,
    build_trainer,
    keeps_features,
    range_trainer_factory,
    resolved_config,
)
from tl_experiments.build.parts import (
    at_rate,
    build_augmentation,
    build_backbone,
    build_dataset,
    build_loss,
    build_mixing,
    build_optimizer,
    build_scheduler,
    build_strategy,
    data_source,
    seeks_rate,
    sees_mirrors,
)
from tl_experiments.build.records import (
    build_checkpoints,
    build_lack_notice,
    build_log,
    build_sweep_tracker,
    build_tracker,
)
from tl_experiments.build.trained import build_classifier, build_trained_model

__all__ = [
    "Ground",
    "at_rate",
    "bank_rule",
    "build_augmentation",
    "build_backbone",
    "build_checkpoints",
    "build_classifier",
    "build_dataset",
    "build_ground",
    "build_images",
    "build_lack_notice",
    "build_log",
    "build_loss",
    "build_materials",
    "build_mixing",
    "build_optimizer",
    "build_place",
    "build_scheduler",
    "build_strategy",
    "build_sweep_tracker",
    "build_tracker",
    "build_trained_model",
    "build_trainer",
    "check_buildable",
    "data_source",
    "describe_model",
    "keeps_features",
    "range_trainer_factory",
    "resolved_config",
    "seeks_rate",
    "sees_mirrors",
    "shares_cpu",
    "write_card",
]
