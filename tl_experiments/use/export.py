"""`tlx export`: a trained model for other programs, published once it has said what the model says."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_experiments.build import build_trained_model
from tl_experiments.inference.description import Description
from tl_experiments.inference.image_classifier import ImageClassifier
from tl_experiments.runtime.errors import RunFailed, SettingError
from tl_experiments.runtime.files import (
    DamageError,
    disk_fault,
    make_folder,
    publish,
    publish_text,
    published_folder,
    unfinished,
    verify_folder,
)
from tl_experiments.tracking.console import Console
from tl_experiments.tracking.named_run import model_folder
from tl_experiments.use.export_check import Check, check
from tl_experiments.use.export_formats import FORMATS, Format, Trained
from tl_experiments.use.export_manifest import as_text, facts_of
from tl_experiments.use.sample_images import read_samples

FACTS = "export.json"  # in a folder; `manifest.json` there holds the checksums of its files


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks for.

    Attributes:
        format: a key of FORMATS.
        output: an absolute path of a file or folder, as the format has it.
        preprocess: whether preprocessing and calibration go into the graph.
        images: source of those to check it on; None takes the few that go with the model.
        overwrite: whether an earlier export may go.
    """

    format: str
    output: Path
    preprocess: bool
    images: str | None
    overwrite: bool


def export(
    run: str, wanted: Wanted, *, tracking_uri: str | None, allow_targets: Sequence[str], console: Console
) -> None:
    """Export the model of a run, with a manifest: `export.json` in a folder, `NAME.json` beside a file.

    Args:
        run: as `tracking.named_run.model_folder` takes it.
        wanted: what and where to.
        tracking_uri: where ids are looked for.
        allow_targets: prefixes of the user's own code.
        console: told what goes on.

    Raises:
        RunFailed: it could not be made, or says something else than the model; nothing was written.
        UserError: the input is wrong.
    """
    form = FORMATS[wanted.format]
    form.require()
    _check_output(wanted, form)
    folder = model_folder(run, tracking_uri=tracking_uri)
    description = Description.load(folder)
    samples = read_samples(description, folder, source=wanted.images)
    model = build_trained_model(folder, description=description, allow_targets=allow_targets)
    network = ImageClassifier(model, description=description)
    trained = Trained(folder, description, network, wanted.preprocess, tuple(allow_targets))

    def make(path: Path) -> Check:
        console.notice(f"writing {wanted.format}")
        form.write(trained, path)
        loaded, advance = form.read(trained, path), console.work(f"checking it on {samples.num_images} images")
        return check(loaded, network, samples, preprocess=wanted.preprocess, on_progress=advance)

    publish_it = _publish_folder if form.suffix is None else _publish_file
    try:
        found = publish_it(wanted.output, make, facts_of(trained, wanted.format))
    except OSError as error:
        raise RunFailed(f"{wanted.output}: could not be written ({disk_fault(error)})") from error
    console.notice(f"{found.whole}")
    if found.resized:
        console.notice(f"resized in the graph, {found.resized}")
    console.notice(f"{wanted.format}   {wanted.output}")


def _check_output(wanted: Wanted, form: Format) -> None:
    """Raises SettingError for a place that the export cannot have."""
    output, named = wanted.output, f"--output {wanted.output}"
    if wanted.preprocess and form.suffix is None:
        raise SettingError(f"--preprocess: {wanted.format} holds no graph; expected --format onnx or pt2")
    if form.suffix is not None and output.suffix != form.suffix:
        raise SettingError(f"{named}: expected a name that ends in {form.suffix}")
    places = (output,) if form.suffix is None else (output, _manifest(output))
    taken = [path for path in places if path.exists()]
    if taken and not wanted.overwrite:
        raise SettingError(f"{named}: {taken[0]} is there already; expected another name, or --overwrite")
    if not output.exists():
        return
    if form.suffix is None:
        _require_export(output, named)
    if form.suffix is not None and not output.is_file():
        raise SettingError(f"{named}: is no file; expected another name")


def _require_export(folder: Path, named: str) -> None:
    """See that a folder holds an export and nothing of the user's own, which would go with it."""
    if not (folder / FACTS).is_file():
        raise SettingError(f"{named}: is no folder that was exported, and is not overwritten; expected another name")
    try:
        verify_folder(folder)
    except (DamageError, OSError) as error:
        raise SettingError(
            f"{named}: is not as it was exported, and is not overwritten ({error}); expected another name"
        ) from error


def _manifest(output: Path) -> Path:
    """Return the place of a file's manifest."""
    return output.with_name(f"{output.name}.json")


def _publish_file(output: Path, make: Callable[[Path], Check], facts: Mapping[str, Any]) -> Check:
    """Write a file, and its manifest last."""
    make_folder(output.parent)
    with unfinished(output.parent) as file:
        found = make(Path(file.name))
        with Path(file.name).open("rb") as written:
            own = {"file": output.name, "sha256": hashlib.file_digest(written, "sha256").hexdigest()}
        publish(file, output)
    publish_text(_manifest(output), as_text({**own, **facts, "check": found.as_json()}))
    return found


def _publish_folder(output: Path, make: Callable[[Path], Check], facts: Mapping[str, Any]) -> Check:
    with published_folder(output) as making:
        found = make(making)
        (making / FACTS).write_text(as_text({**facts, "check": found.as_json()}), encoding="utf-8")
    return found
