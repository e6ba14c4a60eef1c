"""What is typed as a path and is none gets one line."""

from pathlib import Path

import pytest

from tl_experiments.runtime.errors import SettingError
from tl_experiments.runtime.typed_path import typed_path


@pytest.mark.parametrize("typed", ["~nobody_of_this_name/x.csv", "a" * 300, "a\0b"])
def test_what_can_be_no_path_is_told_on_one_line(typed: str) -> None:
    with pytest.raises(SettingError, match="cannot be used as a path") as caught:
        typed_path(typed)
    assert "\n" not in str(caught.value)


def test_a_path_need_not_be_there_and_its_home_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert typed_path("~/new/x.csv") == typed_path(Path("new/x.csv")) == tmp_path / "new/x.csv"
    assert typed_path("~/file/x.csv") == tmp_path / "file/x.csv"
    assert typed_path(".") == tmp_path
