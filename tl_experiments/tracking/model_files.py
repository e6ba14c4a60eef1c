"""What makes the folder of a run's model one of MLflow's: a few files beside its own, made when it is delivered."""

import base64
import json
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from tl_experiments.inference.description import Description

MODEL_FILE = "MLmodel"
CODE = "mlflow_model.py"
EXAMPLE, SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"
REQUIREMENTS, ENVIRONMENT = "requirements.txt", "python_env.yaml"
NAMES = frozenset((MODEL_FILE, CODE, EXAMPLE, SERVING_EXAMPLE, REQUIREMENTS, ENVIRONMENT))
CONFIG = {  # what `model_config` may say otherwise
    "device": "auto", "precision": "fp32", "allow_targets": [], "labels_only": False,
}  # fmt: skip
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, "image")]),
    outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(DataType.double, "prob")]),
    params=ParamSchema([ParamSpec("top_k", DataType.long, 1)]),
)


def write_model_files(model: Path, place: Path, *, artifact_path: str, run_id: str, uid: str, time: int) -> Model:
    """Write the files; for the same run they are always the same.

    Args:
        model: folder of a trained model.
        place: a folder that is there; MLflow looks for them beside the model's own.
        artifact_path: of the model in its run.
        run_id: MLflow's.
        uid: of the run; MLflow's model gets it, too.
        time: in milliseconds since 1970.

    Raises:
        SettingError: the folder holds no model that can be read.
    """
    description = Description.load(model)
    (place / CODE).write_bytes(files("tl_experiments.tracking").joinpath("for_mlflow", CODE).read_bytes())
    _write_environment(place, description)
    example = _write_example(model, place, description)
    made = Model(
        artifact_path=artifact_path,
        run_id=run_id,
        utc_time_created=str(datetime.fromtimestamp(time / 1000, UTC).replace(tzinfo=None)),
        signature=SIGNATURE,
        saved_input_example_info=example,
        model_uuid=uid,
    )
    made.add_flavor(
        "python_function",
        loader_module="mlflow.pyfunc.loaders.code_model",
        model_code_path=CODE,
        artifacts={"model": {"path": ".", "uri": f"runs:/{run_id}/{artifact_path}"}},
        config=CONFIG,
        env={"virtualenv": ENVIRONMENT},
        python_version=description.versions.get("python"),
        streamable=False,
    )
    made.save(place / MODEL_FILE)
    return made


def _write_environment(place: Path, description: Description) -> None:
    """Ask for the packages that the model was made with; what came after `+` in a version is not in PyPI.

    This program itself is not asked for: whatever PyPI has under its name is not it.
    """
    wanted = {"mlflow": version("mlflow")} | dict(description.versions)
    python = wanted.pop("python", None)
    lines = [f"{name}=={number.partition('+')[0]}\n" for name, number in wanted.items()]
    (place / REQUIREMENTS).write_text("".join(lines), encoding="utf-8")
    environment = {"python": python} if python else {}
    environment |= {"build_dependencies": ["pip"], "dependencies": [f"-r {REQUIREMENTS}"]}
    (place / ENVIRONMENT).write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")


def _write_example(model: Path, place: Path, description: Description) -> dict[str, str] | None:
    """Write the first of the model's images as a table and as a request, or nothing where it has none."""
    path = model / description.examples[0] if description.examples else None
    if path is None or not path.is_file():
        return None
    table = {"columns": ["image"], "data": [[base64.b64encode(path.read_bytes()).decode()]]}
    (place / EXAMPLE).write_text(json.dumps(table), encoding="utf-8")
    (place / SERVING_EXAMPLE).write_text(json.dumps({"dataframe_split": table}), encoding="utf-8")
    return {
        "artifact_path": EXAMPLE, "serving_input_path": SERVING_EXAMPLE, "type": "dataframe", "pandas_orient": "split",
    }  # fmt: skip
