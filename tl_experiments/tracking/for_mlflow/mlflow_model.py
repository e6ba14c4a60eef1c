"""What MLflow runs when it loads this model, the same file for every run; tl_experiments must be installed there.

Give it a table with a column `image` of the bytes of image files. `model_config` may say `device`, `precision`,
`allow_targets`, the prefixes of code of your own that the model is built with, and `labels_only`, for
`mlflow.models.evaluate`, which takes no table of answers.
"""

from base64 import b64decode
from contextlib import ExitStack
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from tl_experiments.use.image_answers import ImageAnswers, UserError


class RunModel(PythonModel):
    """The model of a run, loaded from safetensors and JSON."""

    def load_context(self, context: PythonModelContext) -> None:
        config = dict(context.model_config or {})
        self._labels_only = config.pop("labels_only", False)
        self._open = ExitStack()  # ends with this process
        self._model = self._open.enter_context(ImageAnswers.of(context.artifacts["model"], **config))

    def predict(
        self,
        context: PythonModelContext | None,  # noqa: ARG002 - MLflow gives it
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame | pd.Series:
        contents = [_decoded(content) for content in model_input["image"]]
        try:
            answers = self._model.answers(contents, top_k=(params or {}).get("top_k", 1))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return pd.Series(answers["label"]) if self._labels_only else pd.DataFrame(answers)


def _decoded(content: bytes) -> bytes:
    """Decode base64, which MLflow's server leaves to the model in a request's `inputs`; no image file looks like it."""
    try:
        return b64decode(content, validate=True)
    except ValueError:
        return content


set_model(RunModel())
