"""A fingerprint changes with what it stands for and with nothing else; the facts of machine and code are true."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tl_experiments.runtime.fingerprint import fingerprint, git_commit, versions
from tl_experiments.runtime.process import machine, processor_name

FIELDS = {"lr": 1e-3, "seed": 0, "backbone": {"name": "resnet18", "weights": None}, "betas": [0.9, 0.999]}


def test_the_order_of_the_fields_does_not_count() -> None:
    shuffled = {key: FIELDS[key] for key in reversed(FIELDS)} | {"backbone": {"weights": None, "name": "resnet18"}}
    assert fingerprint(shuffled) == fingerprint(FIELDS)
    assert len(fingerprint(FIELDS)) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1.0001e-3},
        {"seed": 1},
        {"seed": "0"},
        {"seed": None},
        {"backbone": {"name": "resnet18", "weights": "x"}},
        {"betas": [0.999, 0.9]},
        {"more": 1},
    ],
)
def test_every_field_counts(change: dict) -> None:
    assert fingerprint(FIELDS | change) != fingerprint(FIELDS)


def test_a_fingerprint_is_the_same_today_and_tomorrow() -> None:
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_versions_and_machine_are_those_of_this_process() -> None:
    told = versions()
    assert told["torch"] == version("torch")
    assert told["python"] == platform.python_version()
    assert {"torchvision", "timm", "numpy", "pillow"} <= told.keys()
    assert machine("cpu", num_processes=2) == {
        "host": platform.node(),
        "processor": processor_name(),
        "device": "cpu",
        "threads": str(torch.get_num_threads()),
        "processes": "2",
    }


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_says_whether_files_were_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q")
    assert git_commit() is None
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "v1.0")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_commit() == commit
    (tmp_path / "code.py").write_text("2")
    assert git_commit() == f"{commit}-dirty"


def test_outside_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert git_commit() is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit() is None
