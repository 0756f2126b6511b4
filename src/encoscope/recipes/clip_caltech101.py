"""``zoo:clip-caltech101``: an open_clip model from scratch on Caltech-101's training list and our own captions.

A slim VoVNet against one transformer block of width 64 over open_clip's own tokens; ten classes' names are never seen.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoscope._torchvision import ensure_torchvision
from encoscope.images.caltech101 import read_caltech101
from encoscope.recipes.classify import predict_crops, predict_files
from encoscope.recipes.commandline import choose_device, logger, parse_arguments, run_recipe
from encoscope.recipes.contrast import compute_name_accuracies, embed_names, make_contrastive_loss
from encoscope.recipes.export import export_network, make_preprocess, round_to_half, sample_indices
from encoscope.recipes.images import DecodedImages, decode_images, split_tenth
from encoscope.recipes.training import Phase, TrainingPlan, train
from encoscope.zoo.attributes import load_class_words
from encoscope.zoo.captions import make_captions

NAME = "clip-caltech101"
CONFIG = Path(__file__).parents[1] / "zoo" / "weights" / NAME
SIDE = 112
DECODED = 144
PER_IMAGE = 2
ABOUT = (
    "A small image-text model: images and short captions in one space of 64 dimensions. Trained from scratch on "
    "Caltech-101 and on captions written for it; it knows the words of those captions only."
)
LIMITS = """A model for teaching and testing: it knows only the few hundred words of its captions. An image's caption
was drawn from the attributes of its class, so the model cannot tell what is true of one image from what
is true of the class. The names of ten classes were held out of the captions: `zero shot` is the share of
their images whose nearest held-out name (of ten) is the right one, chance 0.1, and `zero shot all` the
same among all 101 names. A name whose words occur in no caption can only be guessed. Accuracy per class
is among the known names for known classes, among the held-out names for the rest."""
PLAN = TrainingPlan(
    name=NAME,
    seed=1,
    phases=(
        Phase(epochs=12, pixels=64, scale=(0.3, 1.0), erased=0.1),
        Phase(epochs=16, pixels=96, scale=(0.25, 1.0), erased=0.25),
        Phase(epochs=3, pixels=112, scale=(0.35, 1.0), erased=0.1),
    ),
    extra=(("captions_per_image", PER_IMAGE),),
)


def build_model(random_state: int = PLAN.seed) -> tuple[Any, Any]:
    """Build the model and its tokenizer.

    Args:
        random_state: The seed of the weights.

    Returns:
        The untrained model, and open_clip's tokenizer for it.
    """
    ensure_torchvision()
    import open_clip

    torch.manual_seed(random_state)
    source = f"local-dir:{CONFIG}"
    return open_clip.create_model(source, load_weights=False), open_clip.get_tokenizer(source)


def _names(model: Any, tokenizer: Any, target: torch.device) -> np.ndarray:
    return embed_names(lambda texts: model.encode_text(tokenizer(texts).to(target)), load_class_words())


def _image(model: Any) -> Any:
    return lambda pixels: model.encode_image(pixels, normalize=True)


def main() -> None:
    """Train, or resume training, then measure on the test list and write weights, log and card."""
    chosen = parse_arguments(__doc__ or "")
    model, tokenizer = build_model()
    tokens = torch.stack([tokenizer(make_captions(words)) for words in load_class_words()])
    dataset = decode_images(read_caltech101(chosen.data, "train"), DECODED)
    folder, target = chosen.state or PLAN.folder(), choose_device()
    evaluate: Callable[[Any], dict[str, float]] | None = None
    if chosen.tune:
        kept, tuning = split_tenth(dataset.labels)
        whole, folder = dataset, folder.with_name(folder.name + "-tune")
        dataset = DecodedImages([whole.pixels[i] for i in kept], whole.labels[kept], whole.classes)

        def on_tenth(model: Any) -> dict[str, float]:
            images = predict_crops(_image(model), whole, tuning, SIDE, target)
            return compute_name_accuracies(
                images, whole.labels[tuning], _names(model, tokenizer, target), whole.classes
            )[0]

        evaluate = on_tenth

    logger.info("%d images, %d captions; state in %s", len(dataset), tokens.shape[0] * tokens.shape[1], folder)
    model, history = train(
        PLAN,
        model,
        dataset,
        make_contrastive_loss(tokens, PER_IMAGE),
        folder=folder,
        device=target,
        stop_epoch=chosen.stop_epoch,
        keep_at=chosen.keep_at,
        evaluate=evaluate,
        report=logger.info,
    )
    if chosen.tune or len(history) < PLAN.epochs:
        return
    test = read_caltech101(chosen.data, "test")
    images = predict_files(_image(round_to_half(model)), test.paths, make_preprocess(SIDE), target)
    labels, names = np.asarray(test.labels), _names(model, tokenizer, target)
    accuracy, each = compute_name_accuracies(images, labels, names, test.classes)
    indices = sample_indices(len(labels))
    on_sample, _ = compute_name_accuracies(images[indices], labels[indices], names, test.classes)
    accuracy["known_sample"] = on_sample["known"]
    output = chosen.output or folder
    export_network(
        model,
        PLAN,
        history,
        output=output,
        library="open_clip",
        architecture="ese_vovnet19b_slim + text transformer (width 64, 1 block)",
        kwargs={},
        file=f"{NAME}/open_clip_model.safetensors",
        side=SIDE,
        classes=test.classes,
        accuracy=accuracy,
        each=each,
        about=ABOUT,
        limits=LIMITS,
    )
    configured = output / "weights" / NAME / "open_clip_config.json"
    if configured.resolve() != (CONFIG / configured.name).resolve():
        configured.write_bytes((CONFIG / configured.name).read_bytes())
    logger.info("test list: %s", ", ".join(f"{name} {value:.4f}" for name, value in accuracy.items()))


if __name__ == "__main__":
    run_recipe(main)
