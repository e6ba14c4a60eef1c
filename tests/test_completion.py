"""`tlx completion`: a shell takes the script, and completes what a person begins to type."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tl_experiments.cli.verbs import VERBS, main, make_parser

TYPE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=()
_shtab_tlx tlx "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bash") / "tlx.sh"
    with pytest.MonkeyPatch.context() as patch, path.open("w", encoding="utf-8") as file:
        patch.setattr("sys.stdout", file)
        assert main(["completion", "bash"]) == 0
    return path


def complete(script: Path, *words: str, desk: Path) -> list[str]:
    command = ["bash", "-c", TYPE, "bash", str(script), *words]
    return subprocess.run(command, cwd=desk, capture_output=True, text=True, check=True).stdout.split()


def test_bash_takes_the_script(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "complete " in script.read_text()


def test_verbs_options_values_runs_and_folders_are_completed(script: Path, tmp_path: Path) -> None:
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    (tmp_path / "outputs" / "file.txt").write_text("")
    for typed, expected in {
        ("tlx", "repr"): {"reproduce"},
        ("tlx", "runs", "--st"): {"--status"},
        ("tlx", "runs", "--status", "P"): {"PRUNED"},
        ("tlx", "show", "la"): {"latest"},
        ("tlx", "show", "out"): {"outputs"},
        ("tlx", "compare", "best", "outputs/"): {"outputs/runs"},
        ("tlx", "report", "outputs/"): {"outputs/runs", "outputs/file.txt"},
        ("tlx", "cache", "p"): {"prune"},
    }.items():
        assert set(complete(script, *typed, desk=tmp_path)) == expected, typed
    assert {"report", "reproduce"} <= set(complete(script, "tlx", "re", desk=tmp_path))


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_scripts_of_their_own(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert {"zsh": "#compdef tlx", "tcsh": "complete tlx"}[shell] in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_help_tells_every_verb_once_under_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--help"])
    lines = capsys.readouterr().out.splitlines()
    titles = [line.removesuffix(":") for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == list(VERBS)
    names = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert len(names) == len(set(names)) == sum(map(len, VERBS.values()))
    assert {"runs", "show", "compare", "completion"} <= set(names)
