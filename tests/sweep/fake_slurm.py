"""Slurm as far as submitit asks for it, on this machine: `install` puts its commands into a folder for PATH."""

import sys
from pathlib import Path

SBATCH = r"""
import os, pathlib, re, subprocess, sys
script, place = pathlib.Path(sys.argv[-1]), pathlib.Path(__file__).parent
text = script.read_text()
(place / "script.sh").write_text(text)
array = re.search(r"--array=0-(\d+)%", text)
own = {"SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1"}
for index in range(int(array.group(1)) + 1) if array else [None]:
    task = {} if index is None else {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": str(index)}
    process = subprocess.Popen(["bash", str(script)], env=os.environ | own | task, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (place / f"77_{index or 0}.pid").write_text(str(process.pid))
print("Submitted batch job 77")
"""
SRUN = r"""
import os, pathlib, sys
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    if arguments[0] == "--output":
        names = {"%A": "77", "%a": os.environ.get("SLURM_ARRAY_TASK_ID", "0"), "%j": "77", "%t": "0"}
        path = arguments[1]
        for pattern, name in names.items():
            path = path.replace(pattern, name)
        pathlib.Path(path).parent.mkdir(exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
    arguments = arguments[1 if arguments[0] == "--unbuffered" else 2:]
os.execvp(arguments[0], arguments)
"""
SACCT = r"""
import os, pathlib
print("JobID|State|NodeList")
for path in pathlib.Path(__file__).parent.glob("*.pid"):
    state = pathlib.Path(f"/proc/{path.read_text()}/stat")
    alive = state.exists() and ") Z" not in state.read_text()
    print(f"{path.stem}|{'RUNNING' if alive else 'COMPLETED'}|here")
"""
SCANCEL = r"""
import os, pathlib, signal, sys
if sys.argv[1] == "--signal=INT":
    for name in sys.argv[2:]:
        group = int((pathlib.Path(__file__).parent / f"{name}.pid").read_text())
        try:
            os.killpg(group, signal.SIGINT)
        except ProcessLookupError:
            pass
"""


def install(folder: Path) -> None:
    """Write sbatch, srun, sacct and scancel; the last script that was submitted is kept as `script.sh`."""
    for name, program in {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "scancel": SCANCEL}.items():
        command = folder / name
        command.write_text(f"#!{sys.executable}\n{program}")
        command.chmod(0o755)
