"""What is typed for Hydra itself may choose and set, and never name code or lead elsewhere."""

import pytest

from tl_experiments.config.command_line import require_values
from tl_experiments.config.errors import ConfigError


@pytest.mark.parametrize(
    "argument",
    [
        "hydra/launcher=joblib",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=gpu",
        "hydra.launcher.additional_parameters={mail-type: END}",
        "hydra.launcher.setup=[module load cuda]",
        "hydra/job_logging=disabled",
        "hydra.job_logging.handlers.file.filename=run.log",
        "hydra.job_logging.root.level=DEBUG",
        "hydra.verbose=[a,b]",
        "hydra.sweeper.params={lr:'1e-3,1e-4',strategy.batchnorm:eval}",
        "+hydra.sweeper.params.lr='1,2'",
        "hydra.run.dir=/data/runs/${now:%H}",
        "hydra.run.dir=../elsewhere",
        "hydra.sweep.dir=${oc.env:SCRATCH}/x",
        "hydra.sweep.subdir=${hydra.job.num}",
        "hydra.output_subdir=null",
        "hydra.output_subdir=.hydra/x",
        "hydra.searchpath=[file:///data/conf]",
        "hydra.job.env_set.OMP_NUM_THREADS=1",
        "hydra.job.env_set={CUDA_VISIBLE_DEVICES:'0'}",
        "hydra.job.chdir=true",
        "~hydra.callbacks",
        "strategy=feature,finetune",
        "experiment=glob(*)",
        "optimizer._target_=os.system",  # of a group, which the checks of the configuration tell
        "lr=../x",
        "dataset.root=../images",
        "-m",
        "--config-dir",
        "--multirun",
        "--info=plugins",
        "lr=[1",
    ],
)
def test_values_pass(argument: str) -> None:
    require_values([argument])


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("hydra.launcher._target_=os.system", "names code"),
        ("hydra.launcher._target_=a,b", "names code"),
        ("++hydra.sweeper={_target_:x}", "names code"),
        ("+hydra.callbacks={x:{y:[{_target_:z}]}}", "names code"),
        ("hydra.x=choice({_target_:x},2)", "names code"),
        ("hydra={callbacks:{x:{_target_:y}}}", "names code"),
        ("+hydra.callbacks.x._args_=[1]", "names code"),
        (r"hydra.job_logging.handlers.console={\(\):os.system}", "names code"),
        ("hydra.job_logging.handlers.file.class=os.system", "names code"),
        ("hydra.hydra_logging.handlers={x:{class:os.system}}", "names code"),
        ("hydra.job_logging.formatters.simple.format='ext://os.system'", "names code"),
        ("hydra.job_logging.formatters.simple.format=cfg://x", "names code"),
        ("hydra.sweeper.params={strategy._target_:x}", "names code"),
        ("hydra.sweeper.params={hydra.job_logging:x}", "sets Hydra's configuration in a roundabout way"),
        ("+hydra.sweeper.params.hydra.job_logging=x", "sets Hydra's configuration in a roundabout way"),
        ("hydra.searchpath=[file:///conf,pkg://os]", "names code"),
        ("hydra.callbacks=${x}", "Hydra would build"),
        ("hydra.launcher={n_jobs:'${x}'}", "Hydra would build"),
        ("hydra=${x}", "Hydra would build"),
        ("hydra.output_subdir=../x", "leads out of the folder of the run"),
        ("hydra.output_subdir=/x", "leads out of the folder of the run"),
        ("hydra.sweep.subdir='${hydra.job.num}/../../x'", "leads out of the folder of the run"),
        ("hydra.job.env_set.LD_PRELOAD=x", "decides which code is loaded"),
        ("hydra.job.env_set.path=x", "decides which code is loaded"),
        ("+hydra.job.env_set={PYTHONPATH:x}", "decides which code is loaded"),
        ("experiment=../x", "leads out of the folder of configurations"),
        ("experiment=/x", "leads out of the folder of configurations"),
        ("+experiment=cifar10_resnet18/../../x", "leads out of the folder of configurations"),
        ("backbone=resnet18,../x", "leads out of the folder of configurations"),
        ("hydra/launcher=../x", "leads out of the folder of configurations"),
        ("+tracking@hydra.callbacks.x=none", "options are not for Hydra's own configuration"),
        ("+tracking@hydra=none", "options are not for Hydra's own configuration"),
        ("--experimental-rerun=x", "stands for --experimental-rerun, whose pickle can run code"),
        ("--experimental-rerun", "stands for --experimental-rerun, whose pickle can run code"),
        ("--experiment=cifar10_resnet18", "stands for --experimental-rerun, whose pickle can run code"),
        ("--exp", "stands for --experimental-rerun, whose pickle can run code"),
        ("--e=x", "stands for --experimental-rerun, whose pickle can run code"),
        ("epochs=" + "9" * 5000, "Exceeds the limit"),
    ],
)
def test_code_and_ways_out_do_not(argument: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_values(["lr=1", argument])
    line = str(caught.value)
    assert f": {told}" in line
    assert line.startswith(argument[:100])
    assert "expected " in line
    assert len(line) < 400
    assert "\n" not in line


def test_each_argument_has_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        require_values(["hydra.x._target_='a\nb'", "lr=1", "experiment=../x"])
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "hydra.x._target_='a\\nb'",
        "experiment=../x",
    ]
