"""What is known about a run beside its params: identity, place, code and machine, as tags."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_experiments.runtime.fingerprint import fingerprint, git_commit, versions
from tl_experiments.runtime.process import machine

# What may change without changing the result of a run.
WITHOUT_EFFECT = {
    "runtime": ("workers", "cache", "log_every_steps", "on_oom", "rank_timeout"),
    "dataset": ("root", "download"),
}
NOT_THE_RUN = ("tracking", "checkpoint", "allow_targets")
# What the machine decides where it is left open, or that depends on its memory, by which activations of frozen stages
# are kept or computed anew; a run that goes on elsewhere has other bits from there on.
OF_THE_MACHINE = (
    *("device", "threads", "train_precision", "infer_precision", "memory_format", "infer_batch_size"),
    "image_memory_gb",
)


def config_digest(config: Mapping[str, Any]) -> str:
    """Return the identity of what a run is asked to do, whatever machine does it.

    Args:
        config: resolved.
    """
    fields = with_effect(config)
    runtime = {key: value for key, value in fields["runtime"].items() if key not in OF_THE_MACHINE}
    return fingerprint({**fields, "runtime": runtime})


def run_fingerprint(
    config: Mapping[str, Any], *, dataset: str, weights: str, packages: Mapping[str, str] | None = None
) -> str:
    """Return the identity of a run: two runs that share it should give the same result.

    Args:
        config: resolved.
        dataset: fingerprint of the images and splits.
        weights: digest of the deployable before training.
        packages: versions of the libraries; None is those of this process.
    """
    code = dict(packages or versions())
    return fingerprint({"config": with_effect(config), "dataset": dataset, "weights": weights, "versions": code})


def with_effect(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a configuration the result of a run depends on."""
    return {
        group: {key: value for key, value in node.items() if key not in WITHOUT_EFFECT.get(group, ())}
        if isinstance(node, Mapping)
        else node
        for group, node in config.items()
        if group not in NOT_THE_RUN
    }


def run_tags(*, folder: Path, device: str, num_processes: int, facts: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run.

    Args:
        folder: of its files.
        device: as people call it.
        num_processes: that train the run together.
        facts: what else is known of it, such as its fingerprint.
    """
    facts = {
        "run_dir": str(folder),
        **facts,
        "git_commit": git_commit() or "none",
        **machine(device, num_processes=num_processes),
        **{f"version.{package}": number for package, number in versions().items()},
    }
    return {f"tl.{key}": value for key, value in facts.items()}
