"""Which features contributed most to a prediction, in words: the largest h (.) U_y, features times class weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from encoscope import plots, results
from encoscope.classes import find_class
from encoscope.defaults import BATCH_SIZE
from encoscope.encoder import Encoder, as_encoder
from encoscope.errors import EncoscopeError, UsageError, explain_calls
from encoscope.falcon.captions.store import CaptionStore
from encoscope.falcon.description import KIND, Description
from encoscope.falcon.estimator import Falcon
from encoscope.falcon.settings import HOLDOUT, FailureSettings, FalconSettings
from encoscope.falcon.writing import UnitFiles, write_units
from encoscope.images import SkippedImage, read_image
from encoscope.progress import Progress
from encoscope.results import Document, ModelRecord, Result, record_model
from encoscope.settings import refuse_unknown
from encoscope.units import Unit
from encoscope.vlm import VLM

if TYPE_CHECKING:
    from matplotlib.figure import Figure

"""Features that are shown of each kind."""


@dataclass(frozen=True)
class Contribution:
    """What a feature adds to a logit.

    Attributes:
        feature: Its number.
        value: Its value on the image.
        weight: Its weight in the logit, or the difference of two.
        contribution: Their product.
        description: The feature in words; None where it was not described.
    """

    feature: int
    value: float
    weight: float
    contribution: float
    description: Description | None = field(default=None, repr=False)

    @property
    def unit(self) -> str:
        """The feature as a unit's text."""
        return f"features:{self.feature}"

    @property
    def text(self) -> str:
        """The feature's words, or why it has none; empty where it was not described."""
        if self.description is None:
            return ""
        return ", ".join(self.description.words) or self.description.note

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document."""
        plain = {"unit": self.unit, "value": self.value, "weight": self.weight}
        return plain | {"contribution": self.contribution}


@dataclass(frozen=True)
class FailureExplanation(Result):
    """Why an image was classified as it was.

    Attributes:
        path: The image's file; None for an image without one.
        predicted: The predicted class, by name or number.
        actual: The class that the image is of; None where it was not given.
        probability: Of the prediction, after a softmax.
        logit: The predicted class's logit: the sum of all features' contributions and the bias.
        bias: The bias of that logit.
        features: The features that contribute most to it, largest first.
        against: The features that support the actual class most against the predicted one; empty where the actual
            class was not given or is the predicted one.
        settings: What decided the descriptions; empty without them.
        seed: The seed of everything random; None without descriptions.
        model: The encoder.
        skipped: Images of the probe that could not be read.
    """

    path: str | None
    predicted: str
    actual: str | None
    probability: float
    logit: float
    bias: float
    features: tuple[Contribution, ...]
    against: tuple[Contribution, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seed: int | None = field(default=None, repr=False)
    model: ModelRecord | None = field(default=None, repr=False)
    skipped: tuple[SkippedImage, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for a result document, without descriptions."""
        return self._prediction(self.path) | {
            "features": [item.as_dict() for item in self.features],
            "against": [item.as_dict() for item in self.against],
        }

    def __str__(self) -> str:
        actual = "" if self.actual is None else f", it is {self.actual}"
        lines = [f"{self.path or 'image'}: taken for {self.predicted} ({self.probability:.0%}){actual}"]
        for title, items in (("for it", self.features), (f"for {self.actual}", self.against)):
            lines += [f"  {title}: {item.unit} {item.contribution:+.2f}: {item.text}" for item in items]
        return "\n".join(lines)

    def to_dict(self) -> Document:
        """Give the result document: the features' descriptions, each with what it adds to the prediction."""
        entries = [
            {**({} if item.description is None else item.description.entry()), **item.as_dict(), "role": role}
            for role, item in self._items()
        ]
        return results.envelope(KIND, entries, **self._describe_run()) | {"prediction": self._prediction(self.path)}

    def plot(self) -> Figure:
        """Draw the contributions as bars with the features' words, those against the prediction in another color."""
        from matplotlib.figure import Figure

        items = self._items()
        figure = Figure(figsize=(8, 1.2 + 0.35 * len(items)), layout="constrained")
        axes = figure.subplots()
        colors = plots.palette(2) / 255
        labels = [f"{item.unit}: {item.text}"[:60] for _, item in items]
        axes.barh(
            range(len(items)),
            [item.contribution for _, item in items],
            color=[colors[int(role == "against")] for role, _ in items],
        )
        axes.set_yticks(range(len(items)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("contribution to the logit")
        axes.set_title(str(self).splitlines()[0], fontsize=9)
        return figure

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``result.json``, and the crops and a contact sheet of each described feature, into a folder.

        Args:
            path: The folder; it is made if it is not there.

        Returns:
            The folder.
        """
        file = Path(path) / "result.json"
        files = [
            UnitFiles({**item.as_dict(), "role": role})
            if item.description is None
            else item.description.make_files(**item.as_dict(), role=role)
            for role, item in self._items()
        ]
        image = None if self.path is None else results.relative(self.path, file)
        return write_units(path, files, about=self._describe_run(), further={"prediction": self._prediction(image)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FailureExplanation:
        """Read back what ``save`` wrote. The images are read from where they were.

        Args:
            path: The folder.

        Returns:
            The explanation.

        Raises:
            MissingError: When nothing is there.
            EncoscopeError: When it is another kind of result, or descriptions without a prediction.
        """
        file = Path(path) / "result.json"
        document = results.read(file, KIND)
        if "prediction" not in document:
            raise EncoscopeError(f"{file} holds descriptions and no prediction: read it with Descriptions.load")
        prediction, model, settings = document["prediction"], document["model"], dict(document["settings"])
        plain = document | {
            "settings": {name: value for name, value in settings.items() if name not in ("n_features", "label")}
        }
        items: dict[str, list[Contribution]] = {"for": [], "against": []}
        for entry in document["descriptions"]:
            description = Description.from_dict(entry, plain, file) if "concepts" in entry else None
            number = int(entry["unit"].partition(":")[2])
            value, weight, contribution = entry["value"], entry["weight"], entry["contribution"]
            items[entry["role"]].append(Contribution(number, value, weight, contribution, description))
        name = prediction["path"]
        return cls(
            **prediction | {"path": None if name is None else results.resolve_path(name, file)},
            features=tuple(items["for"]),
            against=tuple(items["against"]),
            settings=settings,
            seed=document["seed"],
            model=None if model is None else ModelRecord.from_dict(model),
            skipped=tuple(SkippedImage(**image) for image in document["skipped"]),
        )

    def _items(self) -> list[tuple[str, Contribution]]:
        """Each contribution with its role."""
        return [*(("for", item) for item in self.features), *(("against", item) for item in self.against)]

    def _prediction(self, path: str | None) -> dict[str, Any]:
        """What the image was taken for."""
        names = ("predicted", "actual", "probability", "logit", "bias")
        return {"path": path} | {name: getattr(self, name) for name in names}

    def _describe_run(self) -> dict[str, Any]:
        model = None if self.model is None else self.model.as_dict()
        return {"model": model, "settings": self.settings, "seed": self.seed, "skipped": self.skipped}


@explain_calls
def explain_failure(
    encoder: Encoder | nn.Module | str,
    image: Any,
    *,
    probe: Any = None,
    label: str | int | None = None,
    n_features: int | None = None,
    captions: CaptionStore | str | os.PathLike[str] | None = None,
    vlm: VLM | str | None = None,
    preset: str | None = None,
    mode: str | None = None,
    alpha_stds: float | None = None,
    alpha: float | None = None,
    epsilon: float | None = None,
    beta: float | None = None,
    n_counterfactuals: int | None = None,
    min_images: int | None = None,
    top_k_if_empty: int | None = None,
    max_images: int | None = None,
    mask_threshold: float | None = None,
    captions_per_crop: int | None = None,
    n_concepts: int | None = None,
    score: str | None = None,
    contrast: bool | None = None,
    spurious_threshold: float | None = None,
    random_sets: int | None = None,
    spurious_quantile: float | None = None,
    fallback: str | None = None,
    rank: str | None = None,
    clarity_threshold: float | None = None,
    holdout: Any = HOLDOUT,
    random_state: int = FalconSettings.random_state,
    batch_size: int = BATCH_SIZE,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = None,
    falcon: Falcon | None = None,
    **unknown: Any,
) -> FailureExplanation:
    """Find the features that contribute most to what an image is classified as, and describe them.

    A feature's contribution is its value times its weight in the predicted class's logit.

    Args:
        encoder: An encoder, a module or a source string; it needs a linear head.
        image: One image: a path, a PIL image, an array or a tensor.
        probe: The images that descriptions are made from, as in `describe`; None describes nothing.
        label: The class that the image is of, by name or number; then the features that support it most against the
            prediction are given too.
        n_features: The number of features of each kind.
        captions: A caption store or its folder; None takes the vocabulary that ships with the package.
        vlm: An image-text model or its name; None takes the one that the captions were embedded with.
        preset: "default", "paper" or "authors"; None is "default".
        mode: "threshold" or "exact": how images are selected.
        alpha_stds: Alpha is the mean plus this many standard deviations.
        alpha: The threshold itself, in place of ``alpha_stds``.
        epsilon: An image below it is lowly activating.
        beta: The least similarity of a counterfactual, in [-1, 1].
        n_counterfactuals: The most counterfactuals of a unit.
        min_images: The images that have to pass alpha.
        top_k_if_empty: The number of strongest images that are used where too few pass alpha; 0 for none.
        max_images: The most images of a unit, strongest first.
        mask_threshold: The share of a GradCAM's range from which on it is cropped, in (0, 1].
        captions_per_crop: The best captions of a crop that words are taken from.
        n_concepts: The words, phrases and images that are kept.
        score: "cosine" or "softmax".
        contrast: Drop the words that counterfactuals share.
        spurious_threshold: The score from which a word of the counterfactuals is dropped.
        random_sets: Random sets of images that the threshold is calibrated on.
        spurious_quantile: The quantile of a word's scores over those sets that is its threshold, in (0, 1).
        fallback: "dissect" or "none": what labels units that FALCON finds no word for.
        rank: "score" or "specific": the order of words.
        clarity_threshold: The mean cosine of crops above which a unit counts as interpretable.
        holdout: The share of the probe that is kept to test descriptions, or a dataset of its own; 0 for no test.
        random_state: The seed of everything random.
        batch_size: Images at a time; it does not change the result.
        cache_dir: The folder for what is probed and embedded; None is the user's cache.
        progress: How progress is shown; see ``encoscope.progress.Progress``.
        falcon: A fitted Falcon on the same encoder, in place of a probe and settings.
        **unknown: Refused, with the nearest setting's name.

    Returns:
        The explanation.

    Raises:
        UsageError: For an encoder without a linear head, an unknown label, and ``n_features`` below 1.
        ImageError: For an image that cannot be read.

    Example:
        >>> failure = encoscope.explain_failure("zoo:resnet-caltech101", "wrong.jpg", probe="photos/")  # doctest: +SKIP
        >>> [(item.unit, item.contribution, item.description.words) for item in failure.features]  # doctest: +SKIP

    Source: FALCON, section 5.
    """
    named = ("probe", "label", "n_features", "captions", "vlm", "holdout", "batch_size", "cache_dir", "progress")
    refuse_unknown("explain_failure", unknown, [*FalconSettings.infos(), *named, "falcon"])
    FailureSettings.from_preset(n_features=n_features)  # before the network is loaded
    encoder = as_encoder(encoder)
    # what is wrong with the image is said before anything is probed
    explanation = find_contributions(encoder, image, label=label, n_features=n_features)
    if falcon is None and probe is not None:
        falcon = Falcon(
            encoder,
            vlm=vlm,
            captions=captions,
            preset=preset,
            mode=mode,
            alpha_stds=alpha_stds,
            alpha=alpha,
            epsilon=epsilon,
            beta=beta,
            n_counterfactuals=n_counterfactuals,
            min_images=min_images,
            top_k_if_empty=top_k_if_empty,
            max_images=max_images,
            mask_threshold=mask_threshold,
            captions_per_crop=captions_per_crop,
            n_concepts=n_concepts,
            score=score,
            contrast=contrast,
            spurious_threshold=spurious_threshold,
            random_sets=random_sets,
            spurious_quantile=spurious_quantile,
            fallback=fallback,
            rank=rank,
            clarity_threshold=clarity_threshold,
            holdout=holdout,
            random_state=random_state,
            batch_size=batch_size,
            cache_dir=cache_dir,
            progress=progress,
        ).fit(probe)
    return explanation if falcon is None else describe_contributions(explanation, falcon)


def find_contributions(
    encoder: Encoder, image: Any, *, label: str | int | None = None, n_features: int | None = None
) -> FailureExplanation:
    """Find the features that contribute most to what an image is classified as, without words.

    Args:
        encoder: An encoder with a linear head.
        image: One image.
        label: The class that the image is of, by name or number.
        n_features: The number of features of each kind.

    Returns:
        The explanation, without descriptions.

    Raises:
        UsageError: For an encoder without a linear head, an unknown label, and ``n_features`` below 1.
    """
    head = encoder.head
    if head is None:
        raise UsageError(f"{encoder.source} has no linear head, so features have no contribution to a prediction")
    settings = FailureSettings.from_preset(n_features=n_features)
    n_features = settings.n_features
    loaded = read_image(image, channels=encoder.preprocess.image_channels)
    with torch.no_grad():
        h = encoder.features(loaded)[0].cpu()
        weight, bias = head.weight.detach().float().cpu(), head.bias
        offset = torch.zeros(len(weight)) if bias is None else bias.detach().float().cpu()
        logits = weight @ h + offset
    predicted = int(logits.argmax())
    actual = None if label is None else find_class(str(label), encoder)
    against = () if actual in (None, predicted) else _find_largest(h, weight[actual] - weight[predicted], n_features)
    return FailureExplanation(
        path=loaded.path,
        predicted=_name_class(predicted, encoder),
        actual=None if actual is None else _name_class(actual, encoder),
        probability=float(logits.softmax(0)[predicted]),
        logit=float(logits[predicted]),
        bias=float(offset[predicted]),
        features=_find_largest(h, weight[predicted], n_features),
        against=against,
        settings=settings.as_dict() | ({} if label is None else {"label": str(label)}),
        model=record_model(encoder, ["features"]),
    )


def describe_contributions(explanation: FailureExplanation, falcon: Falcon) -> FailureExplanation:
    """Describe the features of an explanation, all together.

    Args:
        explanation: From `find_contributions`.
        falcon: A fitted Falcon on the same encoder.

    Returns:
        The explanation with descriptions.
    """
    items = [*explanation.features, *explanation.against]
    units = [Unit(item.unit, "features", channels=(item.feature,)) for item in items]
    descriptions = {description.unit: description for description in falcon.describe(list(dict.fromkeys(units)))}

    def add(contributions: Sequence[Contribution]) -> tuple[Contribution, ...]:
        return tuple(replace(item, description=descriptions[item.unit]) for item in contributions)

    return replace(
        explanation,
        features=add(explanation.features),
        against=add(explanation.against),
        settings={**next(iter(descriptions.values())).settings, **explanation.settings},
        seed=falcon.settings_.random_state,
        skipped=tuple(falcon.skipped_),
    )


def _find_largest(h: torch.Tensor, weight: torch.Tensor, count: int) -> tuple[Contribution, ...]:
    contributions = h * weight
    largest = contributions.sort(descending=True, stable=True).indices[:count].tolist()
    return tuple(Contribution(i, float(h[i]), float(weight[i]), float(contributions[i])) for i in largest)


def _name_class(index: int, encoder: Encoder) -> str:
    return str(index) if encoder.classes is None else encoder.classes[index]
