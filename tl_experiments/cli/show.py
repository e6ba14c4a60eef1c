"""`tlx show`: one run on one screen."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tl_experiments.cli.parsing import Verbs, add_run, add_tracking_uri
from tl_experiments.cli.showing import finite, local_time, wide_console
from tl_experiments.tracking.named_run import short_path

if TYPE_CHECKING:
    from rich.table import Table

    from tl_experiments.use.show import Shown, ShownModel

CLASSES_SHOWN = 10
SIDE_BY_SIDE = 100  # columns from which two tables fit

Facts = Iterable[tuple[str, Any]]


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("show", help="show one run: scores, settings, model, files, and what to do next")
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="for programs: one object")
    add_tracking_uri(parser)
    parser.set_defaults(verb=_show)


def _show(options: argparse.Namespace) -> None:
    from tl_experiments.use.show import Shown, model_commands, show

    found = show(options.run, tracking_uri=options.tracking_uri)
    folder = found.run.folder if isinstance(found, Shown) else found.folder
    named = short_path(folder)
    commands = found.next_commands(named) if isinstance(found, Shown) else model_commands(named)
    if options.json:
        fields = _run_fields(found) if isinstance(found, Shown) else {"model": _model_fields(found)}
        print(json.dumps(finite({**fields, "next": commands}), indent=1))
    elif isinstance(found, Shown):
        model = _model_words(found.model) if found.model else ()
        tables = {"settings": _settings(found), "scores": found.scores.items(), "model": model, "made": _made(found)}
        _print(found.run.record.name, _facts(found, named), tables, commands)
    else:
        _print(named, (), {"model": _model_words(found)}, commands)


def _run_fields(found: Shown) -> dict[str, Any]:
    run = found.run
    return {
        "folder": str(run.folder),
        **asdict(run.record),
        "status": run.status,
        "going_on": found.going_on,
        "error": run.own_result.get("error"),
        "run_id": run.run_id,
        "store": found.store,
        "num_epochs": found.num_epochs,
        "scores": found.scores,
        "made": found.made,
        "settings": found.settings,
        "model": _model_fields(found.model) if found.model else None,
        "files": found.files,
        "problems": found.problems,
    }


def _model_fields(model: ShownModel) -> dict[str, Any]:
    return {"folder": str(model.folder), "weights_bytes": model.weights_bytes, **asdict(model.description)}


def _facts(found: Shown, named: str) -> Facts:
    """Yield what is said of a run as a whole."""
    run = found.run
    yield "status", _status(found)
    yield "began", local_time(run.record.began)
    if run.record.sweep_id:
        yield "sweep", short_path(run.folder.parent)
    if found.store:
        yield "MLflow", f"{run.run_id or 'no id yet'} in {found.store}"
    yield "folder", f"{named}: {', '.join(found.files)}"
    for problem in found.problems:
        yield "problem", problem


def _status(found: Shown) -> str:
    epochs = f"{found.num_epochs} of {found.settings.get('epochs', '?')} epochs"
    error = str(found.run.own_result.get("error") or "").partition("\n")[0]
    return {
        "FINISHED": f"FINISHED, {epochs}",
        "PRUNED": f"PRUNED: its search stopped it after {epochs}, untested",
        "UNFINISHED": f"UNFINISHED: {epochs}{', and a process is running it' if found.going_on else ' so far'}",
    }.get(found.run.status, f"{found.run.status} after {epochs}: {error or 'no cause is known'}")


def _settings(found: Shown) -> Facts:
    """Yield what describes a run, for people; how it was computed is told beside its machine."""
    return [(key, value) for key, value in found.settings.items() if not key.startswith("runtime.")]


def _made(found: Shown) -> Facts:
    """Yield from what, where and how the run was made."""
    names = {"num_train_images": "training images", "num_trained_params": "trained parameters", "git_commit": "commit"}
    yield from (
        (names.get(key, key), f"{value:,}" if isinstance(value, int) else value) for key, value in found.made.items()
    )
    precision = (found.settings.get(f"runtime.{phase}_precision") for phase in ("train", "infer"))
    if all(told := tuple(precision)):
        yield "precision", f"{told[0]} in training, {told[1]} in tests"


def _model_words(model: ShownModel) -> Facts:
    """Yield what people ask of a model."""
    from rich.filesize import decimal

    said = model.description
    names, canvas = said.class_names, said.canvas
    more = f", … {names[-1]}" if len(names) > CLASSES_SHOWN else ""
    yield "folder", short_path(model.folder)
    yield "backbone", said.backbone.get("name") or said.backbone["_target_"].rpartition(".")[2]
    yield "pretrained", said.backbone.get("pretrained_weights")
    yield "classes", f"{len(names)}: {', '.join(names[:CLASSES_SHOWN])}{more}"
    mirrors = "; the mean over an image and its mirror image" if said.mirrors else ""
    yield "input", f"{canvas.crop} px of {canvas.size}, {canvas.interpolation}{mirrors}"
    yield "temperature", said.temperature
    yield "weights", decimal(model.weights_bytes)
    yield "examples", len(said.examples)


def _print(title: str, facts: Facts, tables: Mapping[str, Facts], commands: Sequence[str]) -> None:
    """Print a title, facts below it, tables of which the first stands to the left, and commands that can be copied."""
    from rich.table import Table
    from rich.text import Text

    console = wide_console()
    console.print(Text(title, style="bold"))
    console.print(_grid(facts))
    first, *others = [table for name, facts in tables.items() if (table := _titled(name, list(facts)))]
    if console.width >= SIDE_BY_SIDE and others:
        right = Table.grid()
        for table in others:
            right.add_row(table)
        both = Table.grid(padding=(0, 4))
        both.add_row(first, right)
        console.print(both)
    else:
        console.print(first, *others)
    if commands:
        console.print(Text("next", style="bold"))
    for command in commands:
        console.print(f"  {command}", soft_wrap=True, markup=False, emoji=False)


def _titled(name: str, facts: Sequence[tuple[str, Any]]) -> Table | None:
    from rich.table import Table
    from rich.text import Text

    if not facts:
        return None
    table = Table.grid()
    table.add_row(Text(f"\n{name}", style="bold"))
    table.add_row(_grid(facts))
    return table


def _grid(facts: Facts) -> Table:
    """Draw names and values; values are text, never markup."""
    from rich.table import Column, Table
    from rich.text import Text

    table = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    for name, value in facts:
        table.add_row(Text(f"  {name}", style="dim"), Text(_word(value)))
    return table


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, float):
        return f"{value:.5g}"
    from tl_experiments.tracking.params import as_text

    return as_text(value)
