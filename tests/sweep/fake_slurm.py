"""Slurm as far as submitit asks for it, on this machine: `install` puts its commands into a folder for PATH.

Its jobs are forks of a process that has imported, which takes the most of a short one.
"""

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
import os, pathlib, signal, sys
from submitit.core import _submit
from tests.faults.processes import server
arguments = sys.argv[1:]
while arguments[0].startswith("--"):
    if arguments[0] == "--output":
        names = {"%A": "77", "%a": os.environ.get("SLURM_ARRAY_TASK_ID", "0"), "%j": "77", "%t": "0"}
        path = arguments[1]
        for pattern, name in names.items():
            path = path.replace(pattern, name)
        log = pathlib.Path(path)
        log.with_suffix("").mkdir(parents=True, exist_ok=True)
    arguments = arguments[1 if arguments[0] == "--unbuffered" else 2:]
assert arguments[1:-1] == ["-u", "-m", "submitit.core._submit"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # which srun hands on
signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
job = server().start(arguments[-1], cwd=pathlib.Path.cwd(), logs=log.with_suffix(""), program=_submit.__file__)
log.unlink(missing_ok=True)
log.symlink_to(job.log)
for number in SIGNALS:
    signal.signal(number, lambda number, _: job.signal(number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
sys.exit(job.wait(limit_seconds=240))
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
