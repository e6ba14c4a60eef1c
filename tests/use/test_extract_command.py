"""`tlx extract`: workers side by side fill the cache with all that a run reads, bit for bit."""

import importlib
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import SMALL
from tests.conftest import compose_test_member
from tests.runtime.row_store.filling import ended, in_child
from tl_experiments.cli.verbs import main
from tl_experiments.config.member import Member
from tl_experiments.experiment import run_experiments
from tl_experiments.features.extract import Extractor
from tl_experiments.runtime import shard_writer
from tl_experiments.runtime.cache_entries import verify

TINY = (
    *("dataset.train_size=100", "epochs=1", "runtime.device=cpu", "runtime.threads=1"),
    *SMALL,
    "backbone.image_size=32",
)
SEEN = 100 + 143 + 359  # digits of train, val and test


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for every test, and a folder in which nothing else appears."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def extract(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[int]]:
    """Types `tlx extract`; returns how many features it says were computed and were known."""

    def run(*arguments: str) -> list[int]:
        assert main(["extract", *TINY, *arguments]) == 0
        *_, line = capsys.readouterr().out.splitlines()
        found = re.fullmatch(
            r"(?:all|part \d+ of \d+): (\d+) features computed in [\d.]+ s(?:, [\d,]+ a second)?; (\d+) were known",
            line,
        )
        assert found, line
        return [int(number) for number in found.groups()]

    return run


@pytest.fixture
def images(make_folder: Callable[..., Path]) -> list[str]:
    """24 images in each split."""
    root = make_folder({f"{split}/{name}": 12 for split in ("train", "val", "test") for name in ("cat", "dog")})
    return ["dataset=image_folder", f"dataset.root={root}", "dataset.train_size=null"]


def result(member: Member) -> dict[str, Any]:
    """What a run found, without its times."""
    [ended] = run_experiments([member])
    figures = {key: value for key, value in ended.summary.items() if not key.startswith("perf/")}
    return {**figures, "weights": ended.weights_sha256}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run finds that extracts by itself and keeps nothing."""
    return result(compose_test_member(tmp_path_factory.mktemp("alone") / "run", *TINY, "runtime.cache=false"))


@pytest.mark.parametrize(
    "typed",
    [
        ["strategy=feature"],
        ["strategy=knn", "augmentation=light"],
        ["strategy=lp_ft", "strategy.probe_epochs=1"],
    ],
    ids=lambda typed: typed[0],
)
def test_after_all_parts_in_any_order_a_run_extracts_nothing(
    typed: list[str],
    extract: Callable[..., list[int]],
    make_member: Callable[..., Member],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = [extract(*typed, "--part", f"{number}/2") for number in (2, 1)]
    assert parts == [[100 // 2 + 71 + 179, 0], [100 // 2 + 72 + 180, 0]]
    assert list(Path().iterdir()) == [], "no run was made"
    monkeypatch.setattr(Extractor, "outputs", pytest.fail)
    run_experiments([make_member(*TINY, *typed)])


def test_views_and_mirror_images_are_extracted_too(
    extract: Callable[..., list[int]],
    images: list[str],
    make_member: Callable[..., Member],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    typed = [*images, "augmentation=light", "strategy.views=3", "tta=flip"]
    assert [extract(*typed, "--part", f"{number}/2")[0] for number in (1, 2)] == [3 * 12 + 2 * 24] * 2
    assert extract(*typed) == [0, 2 * (3 * 12 + 2 * 24)]
    uncached = result(make_member(*TINY, *typed, "runtime.cache=false"))
    monkeypatch.setattr(Extractor, "outputs", pytest.fail)
    assert result(make_member(*TINY, *typed)) == uncached


def test_parts_at_once_and_twice_are_the_whole(
    alone: dict[str, Any],
    cache: Path,
    extract: Callable[..., list[int]],
    make_member: Callable[..., Member],
) -> None:
    children = [
        in_child(lambda number=number: os._exit(main(["extract", *TINY, "--part", f"{number}/2"])))
        for number in (1, 2, 1)
    ]
    assert [ended(child) for child in children] == [0, 0, 0]
    assert extract() == [0, SEEN]
    assert list(verify(cache)) == []
    digests = [json.loads(path.read_bytes()).get("digests") for path in cache.glob("features/*/*.json")]
    kept = [digest for shard in digests if shard for digest in shard]
    assert len(kept) == len(set(kept)) == SEEN, "who came second has waited"
    assert result(make_member(*TINY)) == alone


def test_a_worker_that_is_killed_costs_what_it_had_not_published(
    alone: dict[str, Any],
    cache: Path,
    extract: Callable[..., list[int]],
    make_member: Callable[..., Member],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_ROWS", 8)
    outputs = Extractor.outputs

    def dying(self: Extractor, *arguments: Any, **options: Any) -> Iterator[Any]:
        for number, rows in enumerate(outputs(self, *arguments, **options)):
            if number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows

    def work() -> None:
        monkeypatch.setattr(Extractor, "outputs", dying)
        main(["extract", *TINY, "runtime.infer_batch_size=20", "--part", "1/2"])

    assert ended(in_child(work)) == -signal.SIGKILL
    small = "runtime.infer_batch_size=20"
    assert extract(small, "--part", "2/2")[1] == 0
    assert extract(small, "--part", "1/2") == [50 + 72 + 180 - 40, 40]
    assert extract(small) == [0, SEEN]
    assert list(verify(cache)) == []
    assert result(make_member(*TINY, small))["test/acc"] == alone["test/acc"]


def test_a_worker_reads_the_images_of_its_part_alone(
    extract: Callable[..., list[int]], images: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train" / "dog" / "9.png").write_bytes(b"no image")
    assert extract(*images, "--part", "1/2") == [36, 0]
    assert main(["extract", *TINY, *images, "--part", "2/2"]) == 2
    assert "train/dog/9.png" in capsys.readouterr().err
    assert extract(*images, "dataset.on_bad_image=skip", "--part", "2/2") == [35, 0]
    assert extract(*images, "dataset.on_bad_image=skip") == [0, 71]


def test_tasks_of_an_array_share_the_images(
    extract: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    array = {"ID": "7", "MIN": "5", "MAX": "9", "COUNT": "3", "STEP": "2"}
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    middle = extract()
    assert middle == extract("--part", "2/3")[::-1]
    assert extract("--part", "1/1") == [SEEN - middle[0], middle[0]], "what is typed counts"
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "11")
    assert main(["extract", *TINY]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("expected an array without gaps, such as --array=1-16; or --part I/N")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["strategy=finetune"], "strategy=finetune has no features to extract; expected one that learns from them"),
        (["augmentation=light"], "strategy=feature would not read features: augmentation is random (strategy.views=4"),
        (["mixup_alpha=0.2", "strategy=lp_ft"], "strategy=lp_ft would not read features: images are mixed"),
        (["runtime.cache=false"], "features would not be kept; expected runtime.cache=true"),
        (["grid=strategies"], "grid=strategies: a sweep, not one run; "),
        (["--part", "0/4"], "--part 0/4: expected I/N, I from 1 to N"),
        (["--part", "5/4"], "--part 5/4: expected I/N, I from 1 to N"),
        (["--part", "half"], "--part half: expected I/N, I from 1 to N"),
        (["--ray", "0"], "--ray 0: expected a number of parts"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(typed: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", *TINY, *typed]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


@pytest.mark.parametrize(
    ("limit", "code", "told"),
    [
        (
            "1e-6",
            2,
            r"all features together take [\d.e-]+ GB, and all caches may take 1e-06 GB; raise TL_CACHE_LIMIT_GB",
        ),
        ("20", 1, r"cache: \S+ cannot be written \(Not a directory\)"),
    ],
)
def test_features_that_cannot_be_kept_are_not_extracted_for_nothing(
    limit: str,
    code: int,
    told: str,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TL_CACHE_LIMIT_GB", limit)
    shutil.rmtree(cache, ignore_errors=True)
    cache.touch()
    assert main(["extract", *TINY]) == code
    [line] = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"error: {told}", line), line


def test_a_ray_cluster_that_does_not_answer_is_told_in_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    start = time.monotonic()
    assert main(["extract", *TINY, "--ray", "1"]) == 2
    assert time.monotonic() - start < 60, "Ray itself tries for minutes"
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers")


@pytest.mark.slow
def test_ray_runs_the_parts_and_tries_those_of_a_dead_process_again(
    alone: dict[str, Any],
    extract: Callable[..., list[int]],
    make_member: Callable[..., Member],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else other tests have the processor
    (tmp_path / "deadly.py").write_text(DEADLY, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    deadly = importlib.import_module("deadly")
    monkeypatch.setattr("tl_experiments.use.extract_on_ray._extract_part", deadly.extract_part)
    assert main(["extract", *TINY, "--ray", "2"]) == 0
    assert (tmp_path / "here" / "died").exists()
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [re.match(r"part [12] of 2: (\d+) features computed", line) is not None for line in lines] == [True] * 2
    assert extract() == [0, SEEN]
    assert result(make_member(*TINY)) == alone


DEADLY = """
import os, signal
from pathlib import Path

from tl_experiments.use.extract_on_ray import _extract_part

def extract_part(overrides, folder, share):
    died = folder / "died"
    if share.index == 1 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _extract_part(overrides, folder, share)
"""
