"""A finished run as its folder tells: what it was asked to do, what it came to, and in which circumstances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.config.record import read_record
from tl_experiments.runtime.errors import SettingError
from tl_experiments.tracking.metrics_log import read_metrics
from tl_experiments.tracking.result import is_finished, read_result
from tl_experiments.tracking.run_record import CONFIG, RunRecord
from tl_experiments.tracking.tags import WITHOUT_EFFECT, run_fingerprint
from tl_experiments.verify.verdict import CODE, CONFIGURATION, DATA, NO_COMMIT, WEIGHTS, Ending

SUMMARY = ("val/acc_best", "val/epoch_best", "test/loss", "test/acc")  # of every result; others depend on the classes
MEASURED = ("val/", "test/")
AS_RESOLVED = ("device", "threads")  # of `runtime`, which the result tells as they were


@dataclass(frozen=True)
class Recorded:
    """A finished run.

    Attributes:
        folder: of its files.
        record: what it is called.
        config: its configuration, checked.
        ending: what it came to.
        circumstances: by names for people, in the order in which they are shown.
    """

    folder: Path
    record: RunRecord
    config: dict[str, Any]
    ending: Ending
    circumstances: Mapping[str, str]


def read_recorded(folder: Path, *, allow_targets: Sequence[str]) -> Recorded:
    """Read a finished run.

    Args:
        folder: of its files.
        allow_targets: prefixes of the caller's own code that its configuration may name.

    Raises:
        ConfigError: its configuration is none, or names code that is not allowed.
        SettingError: no run began there, it has not finished, or a file is missing or spoilt.
    """
    record = RunRecord.load(folder)
    result = read_result(folder)
    if not is_finished(result, uid=record.uid):
        way_on = f"-m sweep.resume={folder.parent}" if record.sweep_id else f"resume={folder}"
        raise SettingError(
            f"{folder}: the run has not finished, so that there is nothing to compare with; "
            f"to go on with it: python run.py {way_on}"
        )
    if result["status"] == "PRUNED":
        raise SettingError(f"{folder}: its search stopped the run before its end; expected a run that was tested")
    config = read_record(folder / CONFIG, allow_targets=allow_targets)
    try:
        return Recorded(
            folder=folder,
            record=record,
            config=config,
            ending=_ending(folder, result),
            circumstances=_circumstances(config, result),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingError(
            f"{folder}: lacks what a finished run leaves, or it was changed: {type(error).__name__}: {error}; "
            "expected result.json, metrics.jsonl and predictions.csv as the run wrote them"
        ) from error


def _ending(folder: Path, result: Mapping[str, Any]) -> Ending:
    epochs = [
        {key: value for key, value in row.items() if not key.startswith("perf/")}
        for row in read_metrics(folder / "metrics.jsonl")
    ]
    return Ending(
        weights_sha256=str(result["weights_sha256"]),
        epochs=epochs,
        summary={key: result[key] for key in [*SUMMARY, *(key for key in result if key.startswith(MEASURED))]},
        predictions=(folder / "predictions.csv").read_bytes().splitlines(keepends=True),
    )


def _circumstances(config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, str]:
    """Return what may have decided the bits; an edited configuration does not say how the run was computed."""
    device, own = result["device"], _is_its_own(config, result)
    left_out = (*WITHOUT_EFFECT["runtime"], *AS_RESOLVED)
    runtime = {f"runtime.{key}": str(value) for key, value in config["runtime"].items() if key not in left_out}
    told = {
        CODE: result["git_commit"] or NO_COMMIT,
        CONFIGURATION: "as config.yaml says" if own else "not as config.yaml says",
        DATA: result["dataset_fingerprint"],
        WEIGHTS: result["initial_weights_sha256"],
        "host": result["host"],
        "processor": result["processor"],
        "device": "cpu" if device.startswith("cpu") else device,  # its threads are told below
        "threads": result["threads"],
        "processes": result.get("processes", "1"),  # earlier results are of one
        **(runtime if own else {}),
        **result["versions"],
    }
    return {what: str(value) for what, value in told.items()}


def _is_its_own(config: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """Whether the result was made with this configuration; it may have been edited since."""
    identity = run_fingerprint(
        config,
        dataset=result["dataset_fingerprint"],
        weights=result["initial_weights_sha256"],
        packages=result["versions"],
    )
    return identity == result["fingerprint"]
