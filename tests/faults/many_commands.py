"""Runs many command lines of run.py in one process, each as if it were typed; JSON in, JSON out.

With the word `unprotected` beside it, Hydra sees the command lines as they are.

A process of its own for each would import the same libraries a hundred times. What counts is what a user would see: the
exit code, the lines on stderr, and what lies in the working directory afterwards.
"""

import contextlib
import io
import json
import runpy
import sys
import traceback
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from tl_experiments import door

ROOT = Path(__file__).parents[2]


def main() -> None:
    commands = json.load(sys.stdin)
    script = ROOT / "run.py"
    if "unprotected" in sys.argv:
        door.require_values = lambda _: None
    ended = []
    for command in commands:
        before = {path.name for path in Path().iterdir()}
        HydraConfig.instance().cfg = None
        sys.argv = [str(script), *command]
        out, err, code = io.StringIO(), io.StringIO(), None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as error:
                code = error.code
            except BaseException:
                traceback.print_exc()
                code = 1
        ended.append(
            {
                "code": code,
                "out": out.getvalue(),
                "err": err.getvalue(),
                "made": sorted({path.name for path in Path().iterdir()} - before),
            }
        )
    json.dump(ended, sys.stdout)


if __name__ == "__main__":
    main()
