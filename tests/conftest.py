"""What several rooms share: a member as the door would make it, folders of images, one thread for each process."""

import functools
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from PIL import Image

from tl_experiments.config.command_line import require_values
from tl_experiments.config.compose import CONF, composed_member
from tl_experiments.config.member import Member
from tl_experiments.config.register import register
from tl_experiments.sweep.composer import Composer

# Tests run side by side, and so do the commands that they type: more threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # nor do those that are asked for spin while they wait

gc.disable()  # while test files and libraries are imported: they stay, and would be searched again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have most slow tests: these wait a lot, and short files fill the end."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder for the caches of all tests, never the user's; a test that counts what is computed takes its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_CACHE_DIR", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture
def make_member(tmp_path: Path) -> Callable[..., Member]:
    """Compose and check a configuration from overrides; untracked and in a folder of its own."""
    return lambda *overrides: compose_test_member(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", *overrides)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes `counts[folder]` small PNGs of distinct content below `root/folder`; the root is tmp_path by default."""

    def make(counts: Mapping[str, int], root: Path = tmp_path) -> Path:
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                colour = (index % 256, len(folder) * 7 % 256, sum(folder.encode()) % 256)
                Image.new("RGB", (6, 5), colour).save(root / folder / f"{index}.png")
        return root

    return make


def compose_test_member(folder: Path, *overrides: str) -> Member:
    """Compose and check a configuration from overrides; untracked, in a folder that is made."""
    folder.mkdir(parents=True)
    typed = ["tracking=none", *overrides]
    require_values(typed)
    return replace(composed_member(composer()(typed), typed, folder=folder), name="test")


@functools.cache
def composer() -> Composer:
    """As a sweep composes its jobs: each choice of options once in a process, which takes a tenth of a second."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return Composer(loader, loader.load_configuration("config", [], RunMode.RUN))
