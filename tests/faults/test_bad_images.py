"""Twelve bad files of twelve kinds are named by a scan and by a run's start; good ones of every kind become right."""

import io
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.data.golden import FLOAT_TIFF, GOLDEN, encoded, png
from tests.faults.processes import server
from tests.faults.scorecard import record
from tests.watching import Notes
from tl_experiments import build
from tl_experiments.cli.verbs import main
from tl_experiments.config.member import Member
from tl_experiments.data.decoding import check, decode
from tl_experiments.experiment import run_experiments
from tl_experiments.runtime.errors import DataError

MakeMember = Callable[..., Member]
NOISE = Image.effect_noise((64, 64), 50).convert("RGB")
# 400 megapixels of one bit in 50 kB, a whole file: whoever decodes it needs gigabytes.
BOMB = png(np.zeros((20_000, 2_500), dtype=np.uint8), colour_type=0, bits=1)
CORRUPT = bytearray(encoded(NOISE, "PNG"))
CORRUPT[200:260] = bytes(60)
BAD: dict[str, bytes | str] = {
    "empty.jpg": b"",
    "text.jpg": b"this is text",
    "page.png": b"<!DOCTYPE html><title>404 Not Found</title>",
    "bytes.webp": random.Random(0).randbytes(5000),
    "cut.jpg": encoded(NOISE, "JPEG")[:900],
    "cut.png": encoded(NOISE, "PNG")[:900],
    "corrupt.png": bytes(CORRUPT),
    "float.tif": FLOAT_TIFF,
    "bomb.png": BOMB,
    "icon.png": encoded(NOISE, "ICO"),
    "pipe.jpg": "a pipe",
    "link.jpg": "a link to nowhere",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def root(make_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """Two classes of good images in three splits, and the bad ones among those of train."""
    counts = {f"{split}/{name}": 20 for split in ("train", "val", "test") for name in ("cat", "dog")}
    root = make_folder(counts, tmp_path / "root")
    for at, (name, content) in enumerate(BAD.items()):
        path = root / "train" / ("cat", "dog")[at % 2] / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif "pipe" in content:
            os.mkfifo(path)
        else:
            path.symlink_to("nowhere.jpg")
    return root


def images_of(member: Member, notes: Notes):
    dataset = build.build_dataset(member)
    backbone = build.build_backbone(member, dataset=dataset, strategy=build.build_strategy(member))
    return build.build_images(member, dataset=dataset, backbone=backbone, watch=notes)


def test_twelve_bad_files_are_named_twelve_times(root: Path, make_member: MakeMember, capsys) -> None:
    assert len(BAD) == 12
    start = time.monotonic()
    assert main(["scan", str(root), "--workers", "0"]) == 1
    scanned = capsys.readouterr().out
    seconds = time.monotonic() - start
    by_scan = [name for name in BAD if f"/{name} " in scanned]
    assert " 12 findings: " in scanned, "no good image is accused"

    folder = ("dataset=image_folder", f"dataset.root={root}", "backbone.image_size=32")
    with pytest.raises(DataError, match=r"^12 of 132 images cannot be used; ") as refused:
        images_of(make_member(*folder), Notes())
    _, *listed, more = str(refused.value).splitlines()
    assert [sum(f"/{name}: " in line for line in listed) for name in BAD].count(1) == len(listed) == 10
    assert more == "  and 2 more"
    images = images_of(make_member(*folder, "dataset.on_bad_image=skip"), Notes())
    by_run = [name for name in BAD if any(image.name.endswith(f"/{name}") for image in images.skipped)]
    assert by_scan == by_run == list(BAD)
    assert len(images.train) == 40
    record("bad images", files=len(BAD), by_scan=len(by_scan), by_run=len(by_run), scan_seconds=round(seconds, 2))


@pytest.mark.slow
def test_the_run_ends_without_them_and_keeps_their_list(root: Path, make_member: MakeMember, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    member = make_member(
        "tracking=mlflow", f"tracking.uri={uri}", "dataset=image_folder", f"dataset.root={root}",
        "dataset.on_bad_image=skip", "backbone.image_size=32", "epochs=1",
    )  # fmt: skip
    [result] = run_experiments([member])
    lines = (result.folder / "skipped_images.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(BAD)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tl_experiments")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert "skipped_images.csv" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert run.data.params["dataset.on_bad_image"] == "skip"


@pytest.mark.filterwarnings("ignore:Palette images")
def test_golden_images_are_right_and_the_naive_way_is_not() -> None:
    off: dict[str, int] = {}
    for kind, golden in GOLDEN.items():
        off[kind] = _distance(decode(golden.content, name=kind), golden.pixels)
        naive = _distance(Image.open(io.BytesIO(golden.content)).convert("RGB"), golden.pixels)
        assert (naive <= golden.tolerance) == golden.naive, kind
    right = [kind for kind, golden in GOLDEN.items() if off[kind] <= golden.tolerance]
    with pytest.raises(DataError, match="floating-point"):
        decode(FLOAT_TIFF, name="float")
    naive = sum(golden.naive for golden in GOLDEN.values())
    record("golden images", images=len(GOLDEN), right=len(right), naive_right=naive, refused=1)
    assert right == list(GOLDEN)


def _distance(image: Image.Image, pixels: np.ndarray) -> int:
    """How far the farthest pixel is off."""
    found = np.asarray(image).astype(int)
    return int(abs(found - pixels).max()) if found.shape == pixels.shape else 255


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    """In a process of its own; decoded, it would take 400 MB, and as RGB 1.6 GB."""
    assert len(BOMB) < 100_000
    look = """
import resource, sys
from tl_experiments.data.decoding import check, decode
from tl_experiments.runtime.errors import DataError
content = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for see in (check, decode):
    try:
        see(content, name="bomb.png")
    except DataError as error:
        assert "more than 89,478,485 pixels" in str(error), error
    else:
        sys.exit("it was decoded")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", look], input=BOMB, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    megabytes = int(done.stdout)
    record("bad images", bomb_megapixels=400, bomb_rss_mb=megabytes)
    assert megabytes < 50


@pytest.mark.parametrize("shape", [(1, 1), (10_000, 1), (1, 10_000)])
def test_images_of_odd_shapes_are_drawn(shape: tuple[int, int]) -> None:
    from tl_experiments.data.transforms import Canvas, draw

    content = encoded(Image.new("RGB", shape, "red"), "PNG")
    check(content, name="odd")
    drawn = draw(decode(content, name="odd"), Canvas(size=32, crop=32, interpolation="bilinear"))
    assert (drawn == np.array([255, 0, 0], dtype=np.uint8)[:, None, None]).all()


def test_pipes_devices_and_sockets_are_refused_without_waiting(root: Path, tmp_path: Path) -> None:
    """Nobody writes to the pipe, so that whoever opens it waits for ever, and /dev/zero has no end."""
    (root / "val" / "cat" / "zero.jpg").symlink_to("/dev/zero")
    command = ("scan", str(root), "--workers", "0", "--follow-links")
    start = time.monotonic()
    done = server().start(*command, cwd=tmp_path, logs=tmp_path, program="tlx").end(limit_seconds=60)
    assert done.code == 1, done.err
    assert "a pipe, not a file" in done.out
    assert "a device, not a file" in done.out
    record("bad images", pipe_and_device_seconds=round(time.monotonic() - start, 1))


def test_a_loop_of_links_counts_once(make_folder: Callable[..., Path], tmp_path: Path, capsys) -> None:
    root = make_folder({"cat": 3, "dog": 3}, tmp_path / "loop")
    (root / "cat" / "up").symlink_to("..")
    (root / "dog" / "here").symlink_to(".")
    assert main(["scan", str(root), "--workers", "0"]) == 0
    assert "6 images (6 train): nothing is wrong" in capsys.readouterr().out
    naive = sum(len(files) for _, _, files in os.walk(root, followlinks=True))
    record("bad images", loop_images=6, loop_naive=naive)
    assert naive > 6


@pytest.fixture
def open_folder(make_folder: Callable[..., Path]) -> Iterator[Path]:
    """A folder of images that everybody may look into, as they may not into pytest's."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield make_folder({"cat": 4, "dog": 4}, Path(place) / "root")


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, who may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_named(open_folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    (open_folder / "cat" / "1.png").chmod(0)
    locked = open_folder / "dog" / "locked"
    locked.mkdir(mode=0)
    monkeypatch.setenv("TL_CACHE_DIR", str(open_folder / "none"))
    with nobody():
        assert main(["scan", str(open_folder), "--workers", "0"]) == 1
    table = capsys.readouterr().out
    assert "cat/1.png" in table
    assert "dog/locked" in table
    assert "8 images (8 train): 2 findings: 2 unreadable" in table
    locked.chmod(0o755)
