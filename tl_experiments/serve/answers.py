"""What the service says, in the shapes that OpenAPI describes."""

import torch
from pydantic import BaseModel, Field


class Answer(BaseModel):
    """A class and its calibrated probability."""

    label: str
    prob: float = Field(ge=0, le=1)


class Prediction(BaseModel):
    """What one image shows."""

    filename: str | None = Field(description="as the client called it; null for an image that was the whole body")
    label: str
    prob: float = Field(ge=0, le=1)
    top: list[Answer] = Field(description="the `top_k` most probable classes, the best first")


class Failure(BaseModel):
    """Why one image of several could not be used."""

    filename: str | None
    error: str


class ModelName(BaseModel):
    """Which model has answered."""

    name: str
    weights_sha256: str


class Predictions(BaseModel):
    """One result for each image, in the order of the request."""

    model: ModelName
    predictions: list[Prediction | Failure]


class Error(BaseModel):
    """Why there is no answer, in one line: what is wrong, and what was expected."""

    error: str


class Health(BaseModel):
    status: str


class InputRules(BaseModel):
    """How an image becomes the input of the network."""

    resize_shorter_side: int
    centre_crop: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    mirrors: bool = Field(description="whether an image and its mirror image are averaged")


class RequestLimits(BaseModel):
    """What one request may hold."""

    body_bytes: int
    images: int
    pixels: int = Field(description="of one image")
    seconds: float


class ModelFacts(ModelName):
    """What the model knows, and how well."""

    class_names: list[str]
    input: InputRules
    temperature: float
    scores: dict[str, float] = Field(description="of the run that has trained it; empty where it is not told")
    precision: str
    device: str
    examples: list[str] = Field(description="names of images below /examples/")
    limits: RequestLimits


def prediction(
    filename: str | None, probabilities: torch.Tensor, *, class_names: tuple[str, ...], top_k: int
) -> Prediction:
    """Turn float32 (K,) into names."""
    probs, indices = probabilities.topk(top_k)
    top = [
        Answer(label=class_names[index], prob=min(prob, 1.0))
        for prob, index in zip(probs.tolist(), indices.tolist(), strict=True)
    ]
    return Prediction(filename=filename, label=top[0].label, prob=top[0].prob, top=top)
