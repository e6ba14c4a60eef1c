"""What the tests of this room share: caches of their own, and a machine without network."""

import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, on machines that have a network as well."""

    def refuse(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # it would ask ten times, for 47 seconds


@pytest.fixture
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:  # noqa: ARG001
    """The empty folder in which PyTorch looks for the weights of torchvision."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:  # noqa: ARG001
    """The empty folder in which the Hugging Face hub keeps what it downloaded, set apart from HF_HOME."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))  # read once, when the hub is imported
    return folder
