"""From a checked configuration to objects."""

from tl_experiments.build.checks import (
    bank_rule as bank_rule,
    check_buildable as check_buildable,
    shares_cpu as shares_cpu,
)
from tl_experiments.build.ground import (
    Ground as Ground,
    build_compute as build_compute,
    build_ground as build_ground,
    build_images as build_images,
    build_materials as build_materials,
    build_process as build_process,
    build_trainer as build_trainer,
    keeps_features as keeps_features,
    memory_bytes as memory_bytes,
    range_steps as range_steps,
    resolved_config as resolved_config,
)
from tl_experiments.build.parts import (
    at_rate as at_rate,
    build_augmentation as build_augmentation,
    build_backbone as build_backbone,
    build_dataset as build_dataset,
    build_head as build_head,
    build_loss as build_loss,
    build_mixing as build_mixing,
    build_optimizer as build_optimizer,
    build_scheduler as build_scheduler,
    build_strategy as build_strategy,
    data_source as data_source,
    sampler as sampler,
    samples_per_step as samples_per_step,
    seeks_rate as seeks_rate,
    sees_mirrors as sees_mirrors,
    without_weights as without_weights,
)
from tl_experiments.build.records import (
    build_checkpoints as build_checkpoints,
    build_lack_notice as build_lack_notice,
    build_log as build_log,
    build_sweep_tracker as build_sweep_tracker,
    build_tracker as build_tracker,
)
