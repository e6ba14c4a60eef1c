"""The reproducibility matrix: what must not change a run's weights, metrics and predictions changes no bit of them."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import SMALL
from tests.faults.processes import ROOT, Strike, Truth, server, two_at_a_time
from tests.faults.scorecard import FULL, record

ROW = "reproducibility"
TINY = (
    *("dataset.train_size=68", "backbone.image_size=32", "runtime.device=cpu", "runtime.threads=1", "epochs=2"),
    *("batch_size=8", "tracking=none"),
)
DROPOUT = ("backbone=mobilenet_v3_large", "backbone.weights=null")  # with dropout before its last layer
MIXED = ("mixup_alpha=0.4", "cutmix_alpha=1.0", "sampler=balanced", "label_smoothing=0.1", "class_weights={0: 2.0}")
KINDS = {
    "feature": ("strategy=feature",),
    "feature, new views": ("strategy=feature", "augmentation=light"),
    "feature, 2 views": ("strategy=feature", "augmentation=light", "strategy.views=2"),
    "finetune": ("strategy=finetune", *SMALL, "augmentation=light"),
    "finetune, dropout": ("strategy=finetune", *DROPOUT, "augmentation=light"),
    "partial": ("strategy=partial", *SMALL),
    "lp_ft": ("strategy=lp_ft", "strategy.probe_epochs=1", *SMALL),
    "gradual": ("strategy=gradual", *SMALL),
    "finetune, mixed": ("strategy=finetune", *SMALL, *MIXED, "head=cosine", "head.dropout=0.5", "augmentation=light"),
    "feature, balanced": ("strategy=feature", "sampler=balanced", "label_smoothing=0.1", "class_weights={0: 2.0}"),
    "finetune, averaged": (
        *("strategy=finetune", *SMALL, "augmentation=light"),
        *("ema_decay=0.9", "clip_grad_norm=0.5", "accumulate_steps=2"),
    ),
    "knn": ("strategy=knn", "strategy.num_neighbours=[5,20]"),
    "logistic": ("strategy=logistic", "strategy.num_c=2"),
    "lora": ("strategy=lora", *SMALL, "strategy.dropout=0.1"),
}
SOLVED = {"knn", "logistic"}  # with nothing drawn at random
LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Desk:
    """A folder in which runs are made, with a cache of its own."""

    folder: Path

    def run(self, *arguments: str, strike: Strike | None = None, environment: Mapping[str, str] | None = None) -> Path:
        """Make a run; returns its folder."""
        folder = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        self.type_in(*arguments, f"hydra.run.dir={folder}", strike=strike, environment=environment)
        return folder

    def type_in(
        self, *arguments: str, strike: Strike | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        variables = {"TL_CACHE_DIR": str(self.folder / "cache"), **(environment or {})}
        program = server().start(*arguments, cwd=self.folder, strike=strike, environment=variables)
        code = program.wait()
        assert code == (0 if strike is None else -strike.number), program.output


DECODED_EACH_TIME = ("runtime.image_memory_gb=0",)  # so that workers decode in every epoch
Cell = Callable[[Desk, tuple[str, ...]], Path]


def with_options(*options: str, **environment: str) -> Cell:
    return lambda desk, typed: desk.run(*typed, *options, environment=environment)


def resumed(*places: str, every_minutes: float = 10.0) -> Cell:
    """Killed at places, and gone on with."""

    def cell(desk: Desk, typed: tuple[str, ...]) -> Path:
        first, *others = (Strike(place) for place in places)
        folder = desk.run(*typed, f"checkpoint.every_minutes={every_minutes}", strike=first)
        for strike in (*others, None):
            desk.type_in(f"resume={folder}", strike=strike)
        return folder

    return cell


def cached(desk: Desk, typed: tuple[str, ...]) -> Path:
    desk.run(*typed)
    return desk.run(*typed)


def elsewhere(desk: Desk, typed: tuple[str, ...]) -> Path:
    """In an interpreter that was started by itself: another folder, zone, language, user, host and hash of strings."""
    cwd, folder = desk.folder / "Ünï çødé", desk.folder / "else where"
    cwd.mkdir()
    other = {
        "PYTHONHASHSEED": "4711",
        "TZ": "Pacific/Kiritimati",
        "LANG": "tr_TR.UTF-8",
        "USER": "nobody",
        "HOME": str(cwd),
    }
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TL_CACHE_DIR": str(desk.folder / "cache"), **other}
    command = [sys.executable, str(ROOT / "run.py"), *typed, f"hydra.run.dir='{folder}'"]
    if os.geteuid() == 0 and shutil.which("unshare"):
        command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh", *command]
    ended = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert ended.returncode == 0, ended.stderr
    return folder


def in_a_sweep(*options: str, which: int) -> Cell:
    """One of several jobs."""

    def cell(desk: Desk, typed: tuple[str, ...]) -> Path:
        desk.type_in("-m", *typed, *options, "hydra.sweep.dir=sweep")
        return desk.folder / "sweep" / str(which)

    return cell


CELLS: dict[str, Cell] = {
    "same seed twice": with_options(),
    "workers 1": with_options("runtime.workers=1", *DECODED_EACH_TIME),
    "workers 2": with_options("runtime.workers=2", *DECODED_EACH_TIME),
    "in a sweep, two at a time": in_a_sweep("lr=1e-2,1e-3", "sweep.n_jobs=2", "sweep.max_heads=1", which=1),
    "in a sweep, after others": in_a_sweep("seed=3,0", "lr=1e-2,1e-3", which=3),
    "resumed in an epoch": resumed("train 2 4", every_minutes=1e-6),
    "resumed between epochs": resumed("train 2 4"),
    "resumed in evaluation": resumed("val 1 2", every_minutes=1e-6),
    # Of lp_ft and gradual, a phase ends with epoch 1: the last step before, the boundary, and the first step after it.
    "resumed between phases": resumed("epoch 1", "train 2 1", "train 2 2", every_minutes=1e-6),
    "resumed twice": resumed("train 1 5", "train 2 2", every_minutes=1e-6),
    "resumed in the test": resumed("test 2 1"),
    "cached": cached,
    "not cached": with_options("runtime.cache=false"),
    "tracking": with_options("tracking=mlflow"),
    "tracking that fails": with_options("tracking=mlflow", "tracking.uri=http://127.0.0.1:1"),
    "looked at in every step": with_options("runtime.log_every_steps=1"),
    "saved in every step": with_options("checkpoint.every_minutes=1e-6", "checkpoint.keep_when_finished=false"),
    "on a terminal": with_options(FORCE_COLOR="1", TTY_COMPATIBLE="1"),
    "elsewhere": elsewhere,
}
ORDINARY = [
    ("feature", "cached"),
    ("feature", "in a sweep, after others"),
    ("finetune", "workers 2"),
    ("finetune", "in a sweep, two at a time"),
    ("lp_ft", "resumed between phases"),
    ("gradual", "resumed between phases"),
    ("finetune, mixed", "resumed twice"),  # with dropout
    ("finetune, averaged", "resumed twice"),
]
CASES = [(kind, cell) for kind in KINDS for cell in CELLS] if FULL else ORDINARY


@functools.cache
def alone(kind: str, *options: str) -> Truth:
    """The run that all others are compared with."""
    with tempfile.TemporaryDirectory() as folder:
        return Truth.of(Desk(Path(folder)).run(*KINDS[kind], *TINY, *options))


def compared_with(kind: str, cell: str) -> Truth:
    """A run whose frozen stages run in every epoch is another one: in training they are not folded."""
    apart = kind in ("partial", "gradual") and cell.startswith("workers")
    return alone(kind, *DECODED_EACH_TIME) if apart else alone(kind)


@pytest.fixture(scope="module")
def cells(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future]]:
    """All cells that were asked for, two at a time."""

    def fill(kind: str, cell: str) -> tuple[Truth, Truth]:
        desk = Desk(tmp_path_factory.mktemp("cell"))
        return Truth.of(CELLS[cell](desk, (*KINDS[kind], *TINY))), compared_with(kind, cell)

    kinds = {kind for kind, _ in CASES}
    with two_at_a_time(fill, request, first=[functools.partial(alone, kind) for kind in kinds]) as filled:
        yield filled


@pytest.mark.parametrize(("kind", "cell"), [pytest.param(*case, id=": ".join(case)) for case in CASES])
def test_no_bit_changes(kind: str, cell: str, cells: Mapping[str, Future]) -> None:
    truth, expected = cells[f"{kind}: {cell}"].result()
    record(ROW, cell=cell, strategy=kind, same_bits=truth == expected)
    assert truth == expected


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    """Nothing that is compared is a constant."""
    for kind in KINDS.keys() - SOLVED if FULL else ("finetune",):
        other = Truth.of(Desk(tmp_path).run(*KINDS[kind], *TINY, "seed=1"))
        differs = [name for name, value in vars(other).items() if value != getattr(alone(kind), name)]
        record(ROW, control="another seed", strategy=kind, differs=", ".join(differs))
        assert {"weights_sha256", "summary", "epochs", "predictions"} <= {*differs}


@pytest.mark.skipif(not FULL, reason="only recorded, by scripts/faults")
def test_the_number_of_threads_is_recorded(tmp_path: Path) -> None:
    for kind in KINDS:
        truth = Truth.of(Desk(tmp_path).run(*KINDS[kind], *TINY, "runtime.threads=2"))
        record(ROW, not_promised="2 threads instead of 1", strategy=kind, same_bits=truth == alone(kind))
        assert len(truth.epochs) == len(alone(kind).epochs)
