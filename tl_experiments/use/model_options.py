"""A trained model as a person asks for it: whose it is, and where and how it computes."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tl_experiments.build import build_classifier
from tl_experiments.inference.image_classifier import Classifier
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.memory import is_out_of_memory
from tl_experiments.runtime.precision import AUTO, PRECISIONS
from tl_experiments.runtime.process import num_cores
from tl_experiments.tracking.named_run import model_folder


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What was typed.

    Attributes:
        run: as `tracking.named_run.model_folder` takes it.
        tracking_uri: where MLflow ids are looked for; None is $MLFLOW_TRACKING_URI, else the default store.
        allow_targets: prefixes of the caller's own code that the model may be built with.
        device: auto, cpu, cuda or cuda:N.
        precision: fp32, bf16, or auto for what is fastest.
        batch_size: images at once; None is what suits the device.
        workers: processes that decode; None takes one for each core, 0 none.
    """

    run: str
    tracking_uri: str | None = None
    allow_targets: Sequence[str] = ()
    device: str = AUTO
    precision: str = "fp32"
    batch_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        """Raises SettingError: a value is none that can be."""
        if self.batch_size is not None and self.batch_size < 1:
            raise SettingError(f"--batch-size {self.batch_size}: expected 1 or more")
        if self.workers is not None and self.workers < 0:
            raise SettingError(f"--workers {self.workers}: expected 0 or more")
        if self.precision not in (*PRECISIONS, AUTO):
            raise SettingError(f"--precision {self.precision}: expected {', '.join(PRECISIONS)} or {AUTO}")

    @property
    def num_workers(self) -> int:
        return num_cores() if self.workers is None else self.workers

    def folder(self) -> Path:
        """Return the absolute folder of the model; raises SettingError where there is none."""
        return model_folder(self.run, tracking_uri=self.tracking_uri)

    def classifier(self, folder: Path) -> AbstractContextManager[Classifier]:
        """Load the model of a folder; raises UserError where it cannot be loaded."""
        return build_classifier(
            folder,
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            allow_targets=self.allow_targets,
        )


@contextmanager
def failures_told(classifier: Classifier) -> Iterator[None]:
    """Turn memory that is too small, or a worker that was killed, into one line.

    Raises:
        RunFailed: that happened inside the block.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            told = f"memory is too small for {classifier.batch_size} images at once; try a smaller --batch-size"
        elif "DataLoader worker" in str(error):
            told = "a process that decodes was killed, perhaps for want of memory; try fewer --workers"
        else:
            raise
        raise RunFailed(told) from error
