"""What is written of each image: its name, the likeliest classes with their probabilities, or what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch

from tl_experiments.inference.image_list import Listed
from tl_experiments.inference.streaming import Answered
from tl_experiments.runtime.errors import SettingError

FILENAME, ERROR = "filename", "error"
_TEXT, _PROB = pa.string(), pa.float32()
NO_NUMBER = "the model's answer is no number; its weights are damaged, or the precision does not suit it"


@dataclass(frozen=True)
class Columns:
    """Which columns a table of predictions has.

    Attributes:
        class_names: K of them, in the order of the probabilities.
        top_k: likeliest classes that are named, from 1 to K.
        all_probs: whether each class has its column too.
    """

    class_names: tuple[str, ...]
    top_k: int = 1
    all_probs: bool = False

    def __post_init__(self) -> None:
        """Raises SettingError: there are not so many classes."""
        if not 1 <= self.top_k <= len(self.class_names):
            raise SettingError(f"--top-k {self.top_k}: expected 1 to {len(self.class_names)}, the classes of the model")

    @property
    def schema(self) -> pa.Schema:
        """Names and types; of an image that could not be used, all between the name and the error are null."""
        ranks = ["", *(f"_{rank}" for rank in range(2, self.top_k + 1))]
        named = [(f"{name}{rank}", kind) for rank in ranks for name, kind in (("label", _TEXT), ("prob", _PROB))]
        every = [(f"prob[{name}]", _PROB) for name in self.class_names] if self.all_probs else []
        return pa.schema([(FILENAME, _TEXT), *named, *((writable(name), kind) for name, kind in every), (ERROR, _TEXT)])

    def table(self, answers: Sequence[Answered[Listed]]) -> pa.Table:
        """Return the rows of some batches."""
        values = torch.cat([answered.values for answered in answers])
        faults = [fault and fault.reason for answered in answers for fault in answered.faults]
        sound = [at for at, fault in enumerate(faults) if fault is None]
        for at, finite in zip(sound, values.isfinite().all(dim=1).tolist(), strict=True):
            faults[at] = None if finite else NO_NUMBER
        probs, labels = values.topk(self.top_k, dim=1)
        places = _places(faults, sound)
        columns = [pa.array([writable(listed.name) for answered in answers for listed in answered.items], _TEXT)]
        for rank in range(self.top_k):
            names = pa.array([writable(self.class_names[label]) for label in labels[:, rank].tolist()], _TEXT)
            columns += [names.take(places), pa.array(probs[:, rank].numpy()).take(places)]
        if self.all_probs:
            columns += [pa.array(column.numpy()).take(places) for column in values.T.contiguous()]
        return pa.table([*columns, pa.array(faults, _TEXT)], schema=self.schema)


def writable(text: str) -> str:
    """Return a name as it is, but for bytes that are no text, which are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _places(faults: Sequence[str | None], sound: Sequence[int]) -> pa.Array:
    """Return for each image where its values are; null where it has none."""
    where = {at: place for place, at in enumerate(sound)}
    return pa.array([where[at] if fault is None else None for at, fault in enumerate(faults)], pa.int64())
