"""The commands that pages show, typed on little data and without the network."""

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.commands import SMALL
from tests.faults.processes import server

ROOT = Path(__file__).parent.parent.parent
README, GUIDE = "README.md", "docs/guide.md"
LITTLE = ("dataset.train_size=40", "epochs=1", "backbone.image_size=32", "runtime.threads=1")
ENDED = ("the run has finished: ", "IDENTICAL: ", "journals delivered to ")
OF_VERBS = (
    " GB in ", "every row is as it was written", "freed ", "80 images (80 train): nothing is wrong", "lr=",
    " images/s: ", "confusion_matrix.png", "same class for 100.0%", "models:/my_model@champion",
    "outputs/explanations/", "outputs/runs/", "the run's own test", "tlx reproduce ", "test/acc", " were known",
    "; dataset=webdataset dataset.root=",
)  # fmt: skip
SERVE = "tlx serve latest"
UI = "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db"


def commands(page: str) -> list[str]:
    """The indented lines of a page that begin with a program, each once."""
    found: dict[str, None] = {}
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if re.match(r" {4,8}(pip|python|pytest|mlflow|tlx|torchrun|scripts/)", line):
            found |= dict.fromkeys(part.strip() for part in line.partition("  #")[0].split("&&"))
    return list(found)


def runs(page: str) -> list[str]:
    return [command for command in commands(page) if command.startswith(("python run.py", "tlx", "torchrun"))]


def type_on_little(command: str, *, images: Path, desk: Path, in_a_fork: bool = True) -> tuple[int, str]:
    """Type a command; returns its exit code and what it said.

    Args:
        command: as a page shows it.
        images: a folder in the place of PATH.
        desk: where it is typed.
        in_a_fork: of a process that has imported what `run.py` needs, which takes the most of a short run.
    """
    program, arguments = on_little(command, images=images)
    return _typed(program, arguments, desk, in_a_fork=in_a_fork)


def on_little(command: str, *, images: Path) -> tuple[str, list[str]]:
    """Return the program and the arguments of a command, on little data and without the network."""
    typed = command.removeprefix("python ").replace("TABLE", str(images)).replace("PATH", str(images))
    program, *arguments = shlex.split(typed)
    if program == "run.py" and "--help" not in arguments:
        arguments = [argument for argument in arguments if not argument.startswith("dataset.train_size")] + [*LITTLE]
    if program == "torchrun":
        arguments = [str(ROOT / argument) if argument == "run.py" else argument for argument in arguments] + [*LITTLE]
    if program == "tlx" and "lr-find" in arguments:
        arguments += [*LITTLE, "batch_size=8"]  # of a hundred steps
    if program == "tlx" and arguments[0] == "extract":
        arguments[1:1] = LITTLE
    fewer = "3" if "sweep.resume=latest" in arguments else "2"
    arguments = [re.sub(r"(?<=num_trials=)\d+", fewer, argument) for argument in arguments]
    if "experiment=image_folder_finetune" in arguments:
        arguments += ["epochs=2"]  # one of them is the warmup
    if "grid=strategies" in arguments:
        arguments += ["seed=0", "strategy.probe_epochs=1"]
    if "strategy=lp_ft" in arguments:
        arguments += ["strategy.probe_epochs=1"]
    if "-m" in arguments:
        arguments += ["sweep.n_jobs=2"]
    if any("resnet" in argument for argument in arguments):
        arguments += ["backbone.weights=null"]
    if any("cifar10" in argument for argument in arguments):
        arguments += ["dataset=image_folder", f"dataset.root={images}"]
    chooses = any(argument.startswith(("backbone=", "experiment=")) for argument in arguments)
    if "strategy=finetune" in arguments and not chooses:  # sweeps fine-tune the embedded one
        arguments += SMALL
    return program, arguments


def shows_its_end(told: str) -> bool:
    """Whether a command said what one says last that did what it was to do."""
    return any(text in told for text in (UI, "report.html", "hydra/launcher", *ENDED, *OF_VERBS))


def _typed(program: str, arguments: Sequence[str], desk: Path, *, in_a_fork: bool) -> tuple[int, str]:
    """Type what is left of a command.

    Args:
        program: `run.py`, `tlx` or `torchrun`.
        arguments: of it.
        desk: where it is typed.
        in_a_fork: of a process that has imported what it needs, which takes the most of a short run.
    """
    if in_a_fork and program != "torchrun":
        forked = server().start(*arguments, cwd=desk, program=program)
        return forked.wait(limit_seconds=300), forked.output
    python = {"run.py": [str(ROOT / program)], "torchrun": ["-m", "torch.distributed.run"]}
    command = [sys.executable, *python.get(program, ["-m", "tl_experiments"]), *arguments]
    done = subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr
