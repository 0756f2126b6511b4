"""Statistics of many classes in little room, and how a zoo encoder's are found."""

from __future__ import annotations

import pytest
import torch

from encoscope.encoder import load
from encoscope.errors import EncoscopeError, MissingError, UsageError
from encoscope.store import tensors
from encoscope.units import parse_unit
from encoscope.vital.references import compressed, shipped
from encoscope.vital.references.statistics import Prototype


def prototypes(count=6):
    """Sorted values of skewed channels, as activations are."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for index in range(count):
        wide = torch.randn(32, 400, generator=generator).relu() ** 1.5 * torch.rand(32, 1, generator=generator)
        deep = torch.randn(64, 16, generator=generator) * (1 + torch.rand(64, 1, generator=generator))
        values = {"conv1": wide.sort(1).values, "layer4": deep.sort(1).values}
        found[f"class:{index}"] = Prototype(
            values, 50 - index, ("ab" * 32, "cd" * 32)[: index + 1], ("few",), None, 1.5
        )
    return found


def test_curves_are_within_the_error_they_state(tmp_path):
    whole = prototypes()
    small = compressed.compress_prototypes("digest", whole, error=0.02)
    file = compressed.save_compressed(small, tmp_path / "s.safetensors")
    (tmp_path / "other").touch()
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode  # others may read it as they may any file
    again = compressed.load_compressed(file)
    assert again.error == small.error
    for layer in ("conv1", "layer4"):
        back = torch.stack([again.prototype(name).values[layer] for name in whole])
        true = torch.stack([each.values[layer] for each in whole.values()])
        lost = float((back - true).square().mean().sqrt() / true.square().mean().sqrt())
        assert lost <= again.error[layer] * 1.001 < 0.021  # sorting again brings curves no further away
        assert (back.diff(dim=2) >= 0).all()
    first = again.prototype("class:0")
    assert (first.count, first.references, first.activation) == (50, ("ab" * 32,), 1.5)
    assert first.notes[0] == "few"
    assert "compressed" in first.notes[1]
    with pytest.raises(UsageError, match="class:9"):
        again.prototype("class:9")


def test_room_bounds_the_file_and_goes_where_it_helps(tmp_path):
    whole = prototypes()
    tight = compressed.compress_prototypes("digest", whole, megabytes=0.03, error=0)
    assert compressed.save_compressed(tight, tmp_path / "t.safetensors").stat().st_size < 30_000
    assert all(value < 0.5 for value in tight.error.values())
    assert max(tight.error.values()) > max(compressed.compress_prototypes("digest", whole, error=0).error.values())
    with pytest.raises(UsageError, match="not even one curve"):
        compressed.compress_prototypes("digest", whole, megabytes=0.01)


def test_zoo_statistics_are_of_these_weights_and_of_classes(tmp_path, monkeypatch):
    encoder = load("zoo:resnet-caltech101")
    path = tmp_path / "statistics.safetensors"
    monkeypatch.setattr(shipped, "statistics_path", lambda name: path)
    unit = parse_unit("class:sunflower", encoder)
    with pytest.raises(MissingError, match=r"recipes\.statistics"):
        shipped.load_shipped(encoder, [unit])
    values = {"layer4": torch.randn(512, 16).sort(1).values}
    ours = {f"class:{unit.index}": Prototype(values, 3)}
    compressed.save_compressed(compressed.compress_prototypes(encoder.digest, ours, error=0), path)
    found = shipped.load_shipped(encoder, [unit])["class:sunflower"]
    torch.testing.assert_close(found.values["layer4"], values["layer4"], atol=5e-3, rtol=5e-3)
    with pytest.raises(UsageError, match="layer4:3"):
        shipped.load_shipped(encoder, [parse_unit("layer4:3", encoder)])
    with pytest.raises(UsageError, match="statistics of its own"):
        shipped.load_shipped(load("zoo:resnet-caltech101@untrained"), [unit])
    other = tmp_path / "other.safetensors"
    monkeypatch.setattr(shipped, "statistics_path", lambda name: other)
    compressed.save_compressed(compressed.compress_prototypes("0" * 64, ours), other)
    with pytest.raises(UsageError, match="other weights"):
        shipped.load_shipped(encoder, [unit])


@pytest.mark.parametrize("how", ["cut", "text", "another", "fields"])
def test_a_damaged_file_of_statistics_is_one_clear_line(tmp_path, monkeypatch, how):
    encoder = load("zoo:resnet-caltech101")
    path = tmp_path / "statistics.safetensors"
    monkeypatch.setattr(shipped, "statistics_path", lambda name: path)
    compressed.save_compressed(compressed.compress_prototypes(encoder.digest, prototypes()), path)
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "text":
        path.write_text("not tensors")
    elif how == "another":
        tensors.write_tensors(path, {"format": "encoscope.prototype/1"}, {"a": torch.zeros(1)})
    else:
        tensors.write_tensors(path, {"format": compressed.FORMAT, "layers": 3}, {"references": torch.zeros(1)})
    with pytest.raises(EncoscopeError, match=r"statistics\.safetensors holds no compressed statistics, or is damaged"):
        shipped.load_shipped(encoder, [parse_unit("class:sunflower", encoder)])
