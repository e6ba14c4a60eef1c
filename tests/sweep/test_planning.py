"""A command line becomes a plan before anything starts: what is run, what is left out, what is refused."""

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from tl_experiments.config.compose import CONF
from tl_experiments.config.errors import ConfigError
from tl_experiments.config.register import register
from tl_experiments.sweep.composer import Composer
from tl_experiments.sweep.plan import Plan
from tl_experiments.sweep.plan_text import plan_lines
from tl_experiments.sweep.planning import make_plan
from tl_experiments.sweep.resume import disagreements
from tl_experiments.sweep.typed import as_choices, sort_overrides

Planner = Callable[..., Plan]


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planner]:
    """Plan a command line, each once; nothing is written."""
    folder = tmp_path_factory.mktemp("plans") / "sweep"
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        @functools.cache
        def plan(*typed: str) -> Plan:
            master = loader.load_configuration("config", list(typed), RunMode.MULTIRUN)
            parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(typed))
            made, files = make_plan(
                sort_overrides(parsed),
                compose=Composer(loader, master),
                folder=folder,
                hydra_overrides=(),
                settings={"on_error": "continue", "max_heads": 64},
                on_progress=lambda *_: None,
            )
            assert sorted(files) == sorted(
                f"{job.folder}/.hydra/{name}.yaml" for job in made.jobs for name in ("config", "hydra", "overrides")
            )
            assert not folder.exists()
            return made

        yield plan


def names(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs]


def test_every_combination_is_a_job_named_by_what_varies(plan_of: Planner) -> None:
    plan = plan_of("strategy=feature,finetune", "lr=1e-3,1e-4", "epochs=3")
    assert names(plan) == [
        "0 feature lr=0.001", "1 feature lr=0.0001", "2 finetune lr=0.001", "3 finetune lr=0.0001",
    ]  # fmt: skip
    assert [job.config["lr"] for job in plan.jobs] == [1e-3, 1e-4, 1e-3, 1e-4]
    assert [job.choices["strategy"] for job in plan.jobs] == ["feature", "feature", "finetune", "finetune"]
    assert all(job.config["epochs"] == 3 for job in plan.jobs)
    assert plan.groups == ((0,), (1,), (2,), (3,))
    assert plan.varied == {"strategy": ("feature", "finetune"), "lr": ("0.001", "0.0001")}
    assert len({job.uid for job in plan.jobs} | {plan.uid}) == 5


def test_globs_and_ranges_are_choices_too(plan_of: Planner) -> None:
    assert names(plan_of("strategy=glob(f*)", "seed=range(0,2)")) == [
        "0 feature seed=0", "1 feature seed=1", "2 finetune seed=0", "3 finetune seed=1",
    ]  # fmt: skip


def test_the_same_configuration_is_run_once(plan_of: Planner) -> None:
    plan = plan_of("lr=1e-3,0.001,1e-4")
    assert names(plan) == ["0 lr=0.001", "1 lr=0.0001"]
    assert plan.dropped == ("1 × the same configuration as another",)


def test_a_key_that_another_swept_option_has_is_left_out_and_does_not_multiply_jobs(plan_of: Planner) -> None:
    plan = plan_of("strategy=feature,finetune", "strategy.backbone_lr_scale=0.1,1.0")
    assert names(plan) == [
        "0 feature", "1 finetune strategy.backbone_lr_scale=0.1", "2 finetune strategy.backbone_lr_scale=1.0",
    ]  # fmt: skip
    assert "backbone_lr_scale" not in plan.jobs[0].config["strategy"]
    assert "strategy=feature has no such key" in plan.dropped[0]


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["strategy=feature", "strategy.backbone_lr_scale=0.1,1.0"], r"backbone_lr_scale: the chosen strategy has no"),
        (["optimizer=adam,adamw", "optimizer.nesterov=true,false"], r"nesterov: the chosen optimizer has no such key"),
    ],
)
def test_a_key_that_no_swept_option_has_is_an_error(typed: list[str], error: str, plan_of: Planner) -> None:
    with pytest.raises(ConfigError, match=error):
        plan_of(*typed)


def test_a_key_that_all_options_have_goes_to_all_though_one_has_more(plan_of: Planner) -> None:
    plan = plan_of("augmentation=light,randaugment", "augmentation.erase_prob=0.25,0.5", "augmentation.num_ops=3,4")
    made = [job.config["augmentation"] for job in plan.jobs]
    assert [(augmentation["erase_prob"], augmentation.get("num_ops")) for augmentation in made] == [
        (0.25, None), (0.5, None), (0.25, 3), (0.25, 4), (0.5, 3), (0.5, 4),
    ]  # fmt: skip


def test_one_bad_value_of_twenty_is_named_with_its_job(plan_of: Planner) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of("lr=" + ",".join(["1e-3"] + [f"{number}e-4" for number in range(1, 19)] + ["-1"]))
    assert str(caught.value) == "job 19 lr=-1: lr=-1: expected a number above 0, or auto"


def test_all_problems_of_all_jobs_are_told_at_once(plan_of: Planner) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_of("lr=1,-1", "epochs=0,1", "batch_size=0")
    assert sorted(str(caught.value).splitlines()) == [
        "batch_size=0: expected 1 to 65536",  # of all jobs, so that none is named
        "job 0 lr=1 epochs=0, 2 lr=-1 epochs=0: epochs=0: expected 1 to 1000000",
        "job 2 lr=-1 epochs=0, 3 lr=-1 epochs=1: lr=-1: expected a number above 0, or auto",
    ]


def test_an_option_that_is_not_there_is_named(plan_of: Planner) -> None:
    with pytest.raises(ConfigError, match=r"^job 1 adamx: optimizer=adamx: no such option.*did you mean adam"):
        plan_of("optimizer=adam,adamx")


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["tracking.experiment_name=a,b"], "the runs of a sweep are compared in one place"),
        (["sweep.n_jobs=1,2"], "a setting of the sweep itself; expected one value"),
        (["grid=strategies,lr_grid"], "says what varies; expected one of them"),
        (["lr=interval(0,1)"], "expected values to choose from"),
        (["lr=1,2", "hydra.sweep.subdir=same"], "hydra.sweep.subdir=same: the same folder"),
    ],
)
def test_what_would_make_no_sweep_is_refused(typed: list[str], error: str, plan_of: Planner) -> None:
    with pytest.raises(ConfigError, match=error):
        plan_of(*typed)


def test_a_plan_is_the_same_after_it_was_written_and_read(plan_of: Planner, tmp_path: Path) -> None:
    plan = plan_of("strategy=feature,finetune", "strategy.backbone_lr_scale=0.1,1.0", "optimizer.betas=[0.8,0.9]")
    assert plan.groups == tuple((job.index,) for job in plan.jobs)
    together = replace(plan, groups=((0,), (1, 2)))
    together.save(tmp_path)
    assert Plan.load(tmp_path) == together


@pytest.mark.parametrize(
    ("text", "error"),
    [(None, "no sweep was planned here"), ("{", "cannot be read as a plan"), ('{"version": 0}', "a plan of format 0")],
)
def test_a_folder_without_a_plan_that_can_be_read_is_refused(text: str | None, error: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ConfigError, match=error):
        Plan.load(tmp_path)


def test_the_plan_reads_as_text(plan_of: Planner) -> None:
    plan = plan_of("strategy=feature,finetune", "lr=1e-3,0.001", "epochs=3")
    lines = list(plan_lines(plan, folder=Path("/sweeps/a")))
    assert lines[0] == "plan: 2 jobs in 2 processes, /sweeps/a"
    text = "\n".join(lines)
    assert "strategy: feature, finetune" in text
    assert "constant  lr=1e-3,0.001 epochs=3" in text
    assert "together" not in text
    assert "2 × the same configuration" in text


def test_the_plan_names_the_jobs_that_one_process_runs(plan_of: Planner) -> None:
    plan = replace(plan_of("lr=1e-3,1e-4,1e-5", "strategy=feature,finetune"), groups=((0, 2, 4), (1,), (3,), (5,)))
    first, *lines = plan_lines(plan, folder=Path("/sweeps/a"))
    assert first == "plan: 6 jobs in 4 processes, /sweeps/a"
    assert [line for line in lines if "together" in line] == [
        "  together  jobs 0, 2, 4: one pass of the backbone, 3 heads side by side"
    ]
    one = replace(plan, groups=((0, 1, 2, 3, 4, 5),))
    assert next(plan_lines(one, folder=Path("/sweeps/a"))) == "plan: 6 jobs in 1 process, /sweeps/a"


def test_the_log_of_a_job_is_with_the_first_of_its_group(plan_of: Planner) -> None:
    plan = replace(plan_of("lr=1e-3,1e-4,1e-5"), groups=((0, 2), (1,)))
    assert [plan.host(job).index for job in plan.jobs] == [0, 1, 0]


def parse(lines: list[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(lines)


@pytest.mark.parametrize(
    "typed", [[], ["lr=0.001,1e-4"], ["epochs=3"], ["lr=1e-3,1e-4", "epochs=3", "sweep.n_jobs=2", "sweep.max_heads=64"]]
)
def test_what_is_typed_again_may_be_all_some_or_nothing_of_the_plan(typed: list[str], plan_of: Planner) -> None:
    plan = plan_of("lr=1e-3,1e-4", "epochs=3")
    assert disagreements(plan, sort_overrides(parse(typed)), parse=parse) == []


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["lr=1e-3"], r"^lr=1e-3: the plan of sweep has lr=1e-3,1e-4"),
        (["epochs=4"], r"^epochs=4: the plan of sweep has epochs=3"),
        (["seed=1"], r"^seed=1: the plan of sweep has no seed"),
        (["sweep.max_heads=2"], r"^sweep\.max_heads=2: the plan of sweep has 64; leave it out"),
        (["++sweep.max_heads=2"], r"^\+\+sweep\.max_heads=2: the plan of sweep has 64; leave it out"),
    ],
)
def test_what_is_typed_against_the_plan_is_shown_and_refused(typed: list[str], error: str, plan_of: Planner) -> None:
    plan = plan_of("lr=1e-3,1e-4", "epochs=3")
    [line] = disagreements(plan, sort_overrides(parse(typed)), parse=parse)
    assert re.search(error, line)


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (
            ["-m", "strategy=feature,finetune", "strategy.backbone_lr_scale=0.1"],
            "strategy.backbone_lr_scale=choice(0.1)",
        ),
        (["-m", "strategy=glob(*)", "strategy.backbone_lr_scale=0.1"], "strategy.backbone_lr_scale=choice(0.1)"),
        (["-m", "strategy=finetune", "strategy.backbone_lr_scale=0.1"], "strategy.backbone_lr_scale=0.1"),
        (["strategy=feature,finetune", "strategy.backbone_lr_scale=0.1"], "strategy.backbone_lr_scale=0.1"),
        (["-m", "strategy=feature,finetune", "strategy.backbone_lr_scal=0.1"], "strategy.backbone_lr_scal=0.1"),
        (["-m", "strategy=feature,finetune", "optimizer.eps=0.1"], "optimizer.eps=0.1"),
        (["-m", "dataset=image_folder,digits", "dataset.root="], "dataset.root="),
        (["-m", "sweep.resume=latest", "dataset.root=/data"], "dataset.root=choice(/data)"),
        (["-m", "grid=strategies", "strategy.num_stages=2"], "strategy.num_stages=choice(2)"),
        (["--multirun", "lr=1,2", "--config-dir", "a=b=c{"], "a=b=c{"),
    ],
)
def test_one_value_for_a_key_of_some_swept_options_is_left_to_the_sweeper(arguments: list[str], changed: str) -> None:
    assert as_choices(arguments) == [*arguments[:-1], changed]


@pytest.mark.parametrize(
    "line", ["strategy=glob(f*)", "seed=shuffle(range(0,5))", "seed=range(0,3)", "optimizer.betas=[0.8,0.9]"]
)
def test_the_same_line_agrees_with_itself(line: str, plan_of: Planner) -> None:
    assert disagreements(plan_of(line), sort_overrides(parse([line])), parse=parse) == []


def test_a_key_that_is_added_may_vary_and_a_single_value_does_not(plan_of: Planner) -> None:
    plan = plan_of("++seed=1,2", "lr=1e-3,0.001", "++sweep.n_jobs=2", "strategy.batchnorm=choice(eval)")
    assert plan.varied == {"++seed": ("1", "2")}
    assert plan.overrides == ("++seed=1,2", "lr=1e-3,0.001", "strategy.batchnorm=eval")


def test_a_plan_says_where_data_and_store_are(
    plan_of: Planner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    [job] = plan_of("dataset=image_folder", "dataset.root=images").jobs
    assert job.config["dataset"]["root"] == str(tmp_path / "images")
    assert job.config["tracking"]["uri"] == f"sqlite:///{tmp_path}/outputs/mlflow.db"
