"""What a run sets for the process is in force inside the block and put back after it."""

import os

import pytest
import torch

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.process import CUBLAS, choose_device, describe_device, process_context

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def settings() -> dict[str, object]:
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
        "cublas": os.environ.get(CUBLAS),
    }


@pytest.fixture(autouse=True)
def keep_settings(monkeypatch: pytest.MonkeyPatch):
    """Each test begins with the settings of a fresh process, whatever the one before it left."""
    before = settings()
    monkeypatch.delenv(CUBLAS, raising=False)
    yield
    torch.set_num_threads(before["threads"])
    torch.use_deterministic_algorithms(before["deterministic"], warn_only=before["warn_only"])
    torch.backends.cudnn.benchmark = before["benchmark"]


def test_threads_are_set_inside_the_block_alone() -> None:
    before = settings()
    wanted = 1 if before["threads"] != 1 else 2
    with process_context(device="cpu", threads=wanted, deterministic=False) as device:
        assert device == torch.device("cpu")
        assert torch.get_num_threads() == wanted
        assert not torch.are_deterministic_algorithms_enabled()
    assert settings() == before


def test_no_number_of_threads_keeps_that_of_pytorch() -> None:
    before = torch.get_num_threads()
    with process_context(device="cpu", threads=None, deterministic=False):
        assert torch.get_num_threads() == before


def test_deterministic_refuses_kernels_that_are_not() -> None:
    def put() -> None:
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))

    before = settings()
    torch.backends.cudnn.benchmark = True
    with process_context(device="cpu", threads=None, deterministic=True):
        with pytest.raises(RuntimeError, match="deterministic"):
            put()
        assert not torch.backends.cudnn.benchmark
        assert os.environ[CUBLAS] == ":4096:8"
    put()
    assert settings() == before | {"benchmark": True}


def test_settings_are_put_back_when_the_run_fails() -> None:
    before = settings()
    with pytest.raises(ZeroDivisionError), process_context(device="cpu", threads=1, deterministic=True):
        raise ZeroDivisionError
    assert settings() == before


@NO_GPU
def test_settings_are_put_back_when_the_device_is_missing() -> None:
    before = settings()
    with pytest.raises(SettingError), process_context(device="cuda", threads=1, deterministic=True):
        pytest.fail("there is no such device")
    assert settings() == before


def test_a_caller_who_wanted_warnings_only_gets_them_back() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    before = settings()
    with process_context(device="cpu", threads=None, deterministic=True):
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert settings() == before


def test_the_users_workspace_of_cublas_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS, ":16:8")
    with process_context(device="cpu", threads=None, deterministic=True):
        assert os.environ[CUBLAS] == ":16:8"
    assert os.environ[CUBLAS] == ":16:8"


@NO_GPU
def test_without_a_gpu_auto_is_the_cpu() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


@NO_GPU
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_gpu_that_is_not_there_is_named_with_the_way_out(name: str) -> None:
    with pytest.raises(SettingError, match=rf"^device {name}: .*expected auto or cpu$"):
        choose_device(name)


def test_a_device_of_no_kind_is_told_what_there_is() -> None:
    with pytest.raises(SettingError, match=r"^device gpu: expected auto, cpu, cuda or cuda:N$"):
        choose_device("gpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_machine_with_gpus_auto_is_the_first_and_one_too_many_is_named() -> None:
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(SettingError, match=r"^device cuda:99: this machine has \d+ GPUs"):
        choose_device("cuda:99")


def test_a_cpu_is_described_with_its_threads() -> None:
    with process_context(device="cpu", threads=1, deterministic=False) as device:
        assert describe_device(device) == "cpu (1 threads)"
