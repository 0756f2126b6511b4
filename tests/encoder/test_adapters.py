"""Adapters as the library peft writes them: merged by the formulas of the papers, or refused in one line.

LoRA (Hu et al. 2021): ``W + alpha / r B A``; rank-stabilized (Kalajdzievski 2023): ``alpha / sqrt(r)``; DoRA (Liu et
al. 2024): every output's row of that sum gets the norm ``m``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from encoscope.encoder import load
from encoscope.encoder.adapters import merge_adapter
from encoscope.errors import EncoscopeError, MissingError, UsageError

State = dict[str, Tensor]
SOURCE = f"py:{__name__}:network"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.blocks = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 1))
        self.mlp = nn.Linear(8, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.mlp(self.blocks(self.stem(pixels)).mean((2, 3))))


def network(pretrained: bool = False) -> Network:
    torch.manual_seed(3)
    return Network() if pretrained else Network().apply(_disturb)


def _disturb(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        nn.init.constant_(parameter, 9.0)


@pytest.fixture(autouse=True)
def keep_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.fixture
def base() -> State:
    return network(pretrained=True).state_dict()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def factors(base: State, module: str, rank: int) -> tuple[Tensor, Tensor]:
    outputs, inputs, *kernel = base[f"{module}.weight"].shape
    return draw(rank, inputs, *kernel, seed=1), draw(outputs, rank, *(1 for _ in kernel), seed=2)


def merge(weight: Tensor, a: Tensor, b: Tensor, scale: float, magnitude: Tensor | None = None) -> np.ndarray:
    """The formulas, in NumPy and double precision."""
    w, a_, b_ = (value.double().numpy() for value in (weight, a, b))
    rank = len(a_)
    merged = w.reshape(len(w), -1) + scale * b_.reshape(len(w), rank) @ a_.reshape(rank, -1)
    if magnitude is not None:
        merged *= (magnitude.double().numpy().ravel() / np.sqrt((merged**2).sum(1)))[:, None]
    return merged.reshape(w.shape)


def write(folder: Path, state: State, **config: Any) -> Path:
    """An adapter's folder, as ``save_pretrained`` writes it."""
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "megatron_core": "megatron.core", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def adapted(base: State, modules: dict[str, int], *, alone: bool, magnitudes: State | None = None) -> State:
    """The tensors as peft names them, in a file of the adapter alone, or in the whole network's state dictionary."""
    adapter = "" if alone else ".default"
    state = {}
    for module, rank in modules.items():
        a, b = factors(base, module, rank)
        state |= {f"{module}.lora_A{adapter}.weight": a, f"{module}.lora_B{adapter}.weight": b}
        if magnitudes is not None:
            state[f"{module}.lora_magnitude_vector" + ("" if alone else ".default.weight")] = magnitudes[module]
    for name, value in base.items() if not alone else ():
        module, _, kind = name.rpartition(".")
        state[f"{module}.base_layer.{kind}" if module in modules else name] = value
    return {f"base_model.model.{name}": value for name, value in state.items()}


MODULES = {"blocks.0": 2, "blocks.1": 3, "mlp": 4}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "whole"])
@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({}, {"blocks.0": 8 / 2, "blocks.1": 8 / 3, "mlp": 8 / 4}),
        ({"use_rslora": True}, {"blocks.0": 8 / 2**0.5, "blocks.1": 8 / 3**0.5, "mlp": 8 / 2}),
        (
            {"lora_alpha": 3, "alpha_pattern": {"blocks.1": 7, "^ml.": 1}},
            {"blocks.0": 1.5, "blocks.1": 7 / 3, "mlp": 0.25},
        ),
    ],
    ids=["lora", "rslora", "patterns"],
)
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_adapters_are_merged(
    alone: bool, config: dict[str, Any], scales: dict[str, float], dora: bool, base: State, tmp_path: Path
) -> None:
    magnitudes = None
    if dora:
        config = config | {"use_dora": True}
        magnitudes = {
            module: draw(len(base[f"{module}.weight"]), seed=5).abs().reshape(-1, *(1,) * 3)[None, :, 0, 0]
            if base[f"{module}.weight"].ndim == 4
            else draw(len(base[f"{module}.weight"]), seed=5).abs()
            for module in MODULES
        }
    folder = write(tmp_path / "adapter", adapted(base, MODULES, alone=True, magnitudes=magnitudes), **config)
    if not alone:
        torch.save({"state_dict": adapted(base, MODULES, alone=False, magnitudes=magnitudes)}, folder / "last.ckpt")
    encoder = load(SOURCE, checkpoint=folder if alone else folder / "last.ckpt", device="cpu")
    own = encoder.module.state_dict()
    for module in MODULES:
        expected = merge(
            base[f"{module}.weight"],
            *factors(base, module, MODULES[module]),
            scales[module],
            None if magnitudes is None else magnitudes[module],
        )
        np.testing.assert_allclose(own[f"{module}.weight"].numpy(), expected, rtol=1e-5, atol=1e-5)
    rest = base.keys() - {f"{module}.weight" for module in MODULES}
    assert all(torch.equal(own[name], base[name]) for name in rest)
    assert encoder.record["weights"]["merged_adapter"] is True


@pytest.mark.parametrize("classes", [5, 9])
def test_what_was_trained_beside_the_adapter(classes: int, base: State, tmp_path: Path) -> None:
    """``modules_to_save``, also of another number of classes; ``bias="all"``; ``lora_bias``."""
    state = adapted(base, MODULES, alone=True)
    head = {"weight": draw(classes, 12, seed=7), "bias": draw(classes, seed=8)}
    state |= {f"base_model.model.head.{kind}": value for kind, value in head.items()}
    state |= {"base_model.model.head.original_module.bias": torch.ones(5)}
    state |= {"base_model.model.head.modules_to_save.bias": head["bias"].clone()}
    state |= {"base_model.model.stem.bias": draw(6, seed=9), "base_model.model.mlp.base_layer.bias": draw(12, seed=10)}
    state |= {"base_model.model.mlp.lora_B.bias": draw(12, seed=11)}
    folder = write(tmp_path, state, bias="all", modules_to_save=["head"], lora_bias=True)
    encoder = load(SOURCE, checkpoint=folder, device="cpu")
    own = encoder.module.state_dict()
    assert torch.equal(own["head.weight"], head["weight"]) and torch.equal(own["head.bias"], head["bias"])
    assert torch.equal(own["stem.bias"], draw(6, seed=9)) and encoder.outputs == classes
    torch.testing.assert_close(own["mlp.bias"], draw(12, seed=10) + 8 / 4 * draw(12, seed=11))


def test_layers_that_keep_their_weight_as_inputs_by_outputs(base: State, tmp_path: Path) -> None:
    """transformers' Conv1D (``fan_in_fan_out``): the transposed sum, told by its shape, or by the setting if square."""
    for shape in ((8, 12), (8, 8)):
        a, b, weight = draw(2, 8, seed=1), draw(shape[1], 2, seed=2), draw(*shape, seed=3)
        state = {"w.base_layer.weight": weight, "w.lora_A.default.weight": a, "w.lora_B.default.weight": b}
        write(tmp_path, {}, fan_in_fan_out=True)
        merged = merge_adapter(state, tmp_path / "x.pth")["w.weight"]
        np.testing.assert_allclose(merged.numpy(), merge(weight.T, a, b, 4.0).T, rtol=1e-5, atol=1e-5)


def test_attention_of_torch_and_embeddings(tmp_path: Path) -> None:
    a, b, weight = draw(2, 8, seed=1), draw(24, 2, seed=2), draw(24, 8, seed=3)
    state = {
        "attn.base_layer.in_proj_weight": weight,
        "attn.base_layer.out_proj.base_layer.weight": draw(8, 8, seed=4),
        "attn.lora_A.default.weight": a,
        "attn.lora_B.default.weight": b,
        "attn.base_layer.out_proj.lora_A.default.weight": draw(2, 8, seed=5),
        "attn.base_layer.out_proj.lora_B.default.weight": draw(8, 2, seed=6),
        "table.base_layer.weight": draw(10, 4, seed=7),
        "table.lora_embedding_A.default": draw(2, 10, seed=8),
        "table.lora_embedding_B.default": draw(4, 2, seed=9),
    }
    write(tmp_path, {})
    merged = merge_adapter(state, tmp_path / "x.pth")
    assert merged.keys() == {"attn.in_proj_weight", "attn.out_proj.weight", "table.weight"}
    np.testing.assert_allclose(merged["attn.in_proj_weight"].numpy(), merge(weight, a, b, 4.0), rtol=1e-5, atol=1e-5)
    out = merge(draw(8, 8, seed=4), draw(2, 8, seed=5), draw(8, 2, seed=6), 4.0)
    np.testing.assert_allclose(merged["attn.out_proj.weight"].numpy(), out, rtol=1e-5, atol=1e-5)
    table = merge(draw(10, 4, seed=7).T, draw(2, 10, seed=8), draw(4, 2, seed=9), 4.0).T
    np.testing.assert_allclose(merged["table.weight"].numpy(), table, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"peft_type": "LOHA"}, "of the kind LOHA"),
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"use_qalora": True}, "with use_qalora"),
        ({"layer_replication": [[0, 2]]}, "with layer_replication"),
        ({"an_option_to_come": 3}, "with an_option_to_come"),
        ({"init_lora_weights": "pissa"}, "pissa initialization"),
        ({"lora_alpha": None}, "states no lora_alpha"),
        ({"use_dora": True}, "magnitude of .* do not go together"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(
    config: dict[str, Any], match: str, base: State, tmp_path: Path
) -> None:
    folder = write(tmp_path, adapted(base, MODULES, alone=True), **config)
    with pytest.raises(EncoscopeError, match=match) as caught:
        load(SOURCE, checkpoint=folder)
    assert "\n" not in str(caught.value)


def test_files_that_lack_something_are_refused(base: State, tmp_path: Path) -> None:
    def refused(state: State, match: str, *, config: bool) -> None:
        folder = write(tmp_path / match[:5], adapted(base, MODULES, alone=True))
        if not config:
            (folder / "adapter_config.json").unlink()
        torch.save(state, folder / "weights.pth")
        with pytest.raises(EncoscopeError, match=match) as caught:
            load(SOURCE, checkpoint=folder / "weights.pth")
        assert "\n" not in str(caught.value)

    whole, alone = adapted(base, MODULES, alone=False), adapted(base, MODULES, alone=True)
    refused(whole, "scale .lora_alpha. is not in the file", config=False)
    refused(alone, "adapter alone", config=False)
    refused({name: value for name, value in whole.items() if "mlp.lora_A" not in name}, "lacks one of its", config=True)
    refused({name: value for name, value in whole.items() if "mlp.base" not in name}, "weight of .*mlp", config=True)
    refused(whole | {"base_model.model.mlp.lora_A.b.weight": draw(2, 8)}, "several adapters", config=True)
    refused(base | {"mlp.lora_A": draw(2, 8), "mlp.lora_B": draw(12, 2)}, "a kind that cannot", config=True)
    refused(whole | {"base_model.model.mlp.lokr_w1.default": draw(2, 8)}, "kind that cannot be.*lokr", config=True)
    refused(
        {f"other.{name}": value for name, value in alone.items()} | {"q.lora_A.weight": draw(2, 8)},
        "lacks one",
        config=True,
    )
    grouped = {"mlp.lora_A.default.weight": draw(2, 8), "mlp.lora_B.default.weight": draw(12, 1)}
    refused(base | grouped, "other shapes than its weight", config=True)
    foreign = adapted({"encoder.weight": draw(4, 4)}, {"encoder": 2}, alone=True)
    refused(foreign, "does not fit this network, which has no encoder", config=True)
    with pytest.raises(MissingError, match=r"a folder without model\.safetensors, and without adapter_model"):
        load(SOURCE, checkpoint=tmp_path)


@pytest.mark.parametrize("size", [0.02, 0.3, 1.0])
def test_weights_that_hold_the_adapters_changes_already_are_refused(size: float, base: State, tmp_path: Path) -> None:
    """As peft's ``merge_adapter`` leaves them: it adds the changes, and keeps the factors beside."""
    whole = adapted(base, MODULES, alone=False)
    folder = write(tmp_path / "adapter", adapted(base, MODULES, alone=True))
    for name in whole:
        if ".lora_B" in name:
            whole[name] = whole[name] * size
    torch.save(whole, folder / "apart.pth")
    load(SOURCE, checkpoint=folder / "apart.pth", device="cpu")
    for module, rank in MODULES.items():
        a, b = factors(base, module, rank)
        name = next(name for name in whole if name.endswith(f"{module}.base_layer.weight"))
        whole[name] = torch.from_numpy(merge(whole[name], a, b * size, 8 / rank)).float()
    torch.save(whole, folder / "merged.pth")
    with pytest.raises(EncoscopeError, match=r"merged into already .*merge_and_unload"):
        load(SOURCE, checkpoint=folder / "merged.pth", device="cpu")
    without = {name.replace(".base_layer", ""): value for name, value in whole.items() if ".lora_" not in name}
    torch.save(without, folder / "unloaded.pth")
    own = load(SOURCE, checkpoint=folder / "unloaded.pth", device="cpu").module.state_dict()
    assert all(torch.equal(own[f"{module}.weight"], without[f"base_model.model.{module}.weight"]) for module in MODULES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_weights_that_have_doras_norms_already_are_refused(dtype: torch.dtype, base: State, tmp_path: Path) -> None:
    magnitudes = {
        module: torch.from_numpy(np.linalg.norm(base[f"{module}.weight"].flatten(1).numpy(), axis=1)) * 1.05
        for module in MODULES
    }
    shaped = {
        module: value.reshape(1, -1, 1, 1) if base[f"{module}.weight"].ndim == 4 else value
        for module, value in magnitudes.items()
    }
    whole = adapted(base, MODULES, alone=False, magnitudes=shaped)
    folder = write(tmp_path / "adapter", adapted(base, MODULES, alone=True, magnitudes=shaped), use_dora=True)
    torch.save({name: value.to(dtype) for name, value in whole.items()}, folder / "apart.pth")
    load(SOURCE, checkpoint=folder / "apart.pth", device="cpu")
    for module, rank in MODULES.items():
        a, b = factors(base, module, rank)
        name = next(name for name in whole if name.endswith(f"{module}.base_layer.weight"))
        whole[name] = torch.from_numpy(merge(whole[name], a, b, 8 / rank, shaped[module])).float()
    torch.save({name: value.to(dtype) for name, value in whole.items()}, folder / "merged.pth")
    with pytest.raises(EncoscopeError, match=r"merged into already .*merge_and_unload"):
        load(SOURCE, checkpoint=folder / "merged.pth", device="cpu")


SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "biases": {"bias": "lora_only"},
    "patterns": {"rank_pattern": {"attn.qkv": 3}, "alpha_pattern": {"attn.qkv": 5}},
    "head": {"modules_to_save": ["head"]},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_peft_itself_writes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter alone and in the network's state dictionary, with the output of peft's own network."""
    peft = pytest.importorskip("peft", reason="peft is not installed: the other tests write files of its form")
    (tmp_path / "adapted_network.py").write_text(
        "import timm, torch\n"
        "def net():\n"
        "    with torch.random.fork_rng(devices=[]):\n"
        "        torch.manual_seed(0)\n"
        "        return timm.create_model('test_vit', num_classes=5).eval()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import adapted_network  # pyright: ignore[reportMissingImports]

    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["qkv", "proj"], **SETTINGS[kind])
    model = peft.get_peft_model(adapted_network.net(), config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        pixels = torch.randn(1, 3, 160, 160, generator=generator)
        expected = model(pixels)
    model.save_pretrained(tmp_path / "adapter")
    torch.save(model.state_dict(), tmp_path / "adapter" / "whole.pth")
    alone = load("py:adapted_network:net", checkpoint=tmp_path / "adapter", device="cpu")
    whole = load("timm:test_vit", checkpoint=tmp_path / "adapter" / "whole.pth", device="cpu")
    for encoder in (alone, whole):
        torch.testing.assert_close(encoder.logits(pixels), expected, rtol=1e-4, atol=1e-5)
    model.merge_adapter()
    torch.save(model.state_dict(), tmp_path / "adapter" / "merged.pth")
    with pytest.raises(EncoscopeError, match="merged into already"):
        load("timm:test_vit", checkpoint=tmp_path / "adapter" / "merged.pth", device="cpu")


def test_an_adapter_beside_the_weights_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=16)
    network = transformers.ViTForImageClassification(config)
    network.save_pretrained(tmp_path)
    state, adapted_name = (
        network.state_dict(),
        next(
            name.removesuffix(".weight")
            for name, value in network.state_dict().items()
            if tuple(value.shape) == (16, 8)
        ),
    )
    plain = load(f"hf:{tmp_path}", device="cpu").module.state_dict()[f"{adapted_name}.weight"]
    write(tmp_path, adapted(state, {adapted_name: 2}, alone=True))
    with pytest.raises(UsageError, match="has an adapter beside its weights: merge it with --checkpoint"):
        load(f"hf:{tmp_path}")
    merged = load(f"hf:{tmp_path}", checkpoint=tmp_path, device="cpu").module.state_dict()[f"{adapted_name}.weight"]
    expected = merge(plain, *factors(state, adapted_name, 2), 8 / 2)
    np.testing.assert_allclose(merged.numpy(), expected, rtol=1e-5, atol=1e-5)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UsageError, match="is an adapter alone: name the network that it adapts"):
        load(f"hf:{tmp_path}")
