"""Tokens lie where the image says: any tokens beside the patches, any order, and queries and poolers are no maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from encoscope.encoder import Encoder, TokenLayout, load, substitute_maps
from encoscope.encoder.placement import TRIALS_IN_ANY_ORDER, find_order, find_order_of_any_kind, make_trial
from encoscope.errors import UsageError
from encoscope.nave.layers import choose_layers

SIDE, PATCH, WIDTH = 6, 8, 32  # a grid of 6 x 6 patches of 8 x 8 pixels


class Block(nn.Module):
    """A pre-norm block: attention over all tokens, whose order it does not see, and an MLP."""

    def __init__(self, width: int = WIDTH, batch_first: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 4, batch_first=batch_first)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Pooler(nn.Module):
    """Attention pooling by learned queries, as image-text models have it."""

    def __init__(self, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, WIDTH))
        self.norm_queries = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        queries = self.norm_queries(self.queries.expand(len(x), -1, -1))
        pooled = self.norm(self.attn(queries, x, x, need_weights=False)[0])
        return pooled + self.mlp(pooled)


class Net(nn.Module):
    """A transformer whose sequence holds ``extra`` tokens; ``order`` says where each token of it comes from.

    The first ``extra`` numbers of the order stand for the other tokens, the others for the patches in row-major order.
    """

    def __init__(
        self,
        extra: int = 0,
        order: Sequence[int] | None = None,
        *,
        side: int = SIDE,
        depth: int = 2,
        queries: int = 0,
        batch_first: bool = True,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.batch_first, self.linear = batch_first, linear
        self.patch = nn.Linear(3 * PATCH * PATCH, WIDTH) if linear else nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.tokens = nn.Parameter(torch.randn(1, extra, WIDTH))
        count = extra + side * side
        self.positions = nn.Parameter(0.1 * torch.randn(1, count, WIDTH))
        self.register_buffer("order", torch.tensor(range(count) if order is None else order))
        self.blocks = nn.ModuleList(Block(batch_first=batch_first) for _ in range(depth))
        self.norm = nn.LayerNorm(WIDTH)
        self.pooler = Pooler(queries) if queries else None
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.linear:
            patches = self.patch(nn.functional.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2))
        else:
            patches = self.patch(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.tokens.expand(len(pixels), -1, -1), patches], 1)[:, self.order] + self.positions
        if not self.batch_first:
            x = x.transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x if self.batch_first else x.transpose(0, 1))
        return self.head((x if self.pooler is None else self.pooler(x)).mean(1))


def make(build: Callable[[], nn.Module], side: int = SIDE, seed: int = 0) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(build().eval(), size=side * PATCH)


def find_bright(
    encoder: Encoder, layer: str, cells: Sequence[tuple[int, int]], side: int = SIDE
) -> list[tuple[int, int]]:
    """The cell of the layer's map that changes most when the patch at each cell turns bright."""
    base = torch.randn(1, 3, side * PATCH, side * PATCH, generator=torch.Generator().manual_seed(5))
    images = base.repeat(1 + len(cells), 1, 1, 1)
    for image, (row, column) in zip(images[1:], cells, strict=True):
        image[:, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] += 3
    maps = encoder.activations(images, layer)[layer].maps
    changes = (maps[1:] - maps[:1]).norm(dim=1).flatten(1).argmax(1)
    return [divmod(int(place), maps.shape[3]) for place in changes]


CELLS = [(0, 0), (0, 5), (2, 3), (5, 0), (4, 1), (5, 5), (3, 4)]
PATCHES = SIDE * SIDE


def put(extra: int, *places: int) -> list[int]:
    """An order with the other tokens at some places of the sequence, in turn."""
    order = list(range(extra, extra + PATCHES))
    for token, place in enumerate(places):
        order.insert(place, token)
    return order


ORDERS = {
    "none": (0, put(0)),
    "class token in front": (1, put(1, 0)),
    "distilled: two in front": (2, put(2, 0, 1)),
    "class token and 4 registers": (5, put(5, *range(5))),
    "class token and 50 prompts": (51, put(51, *range(51))),
    "60 prompts": (60, put(60, *range(60))),
    "class token in the middle": (1, put(1, PATCHES // 2)),
    "class token after a third": (1, put(1, 13)),
    "class token at the end": (1, put(1, PATCHES)),
    "in front and at the end": (4, put(4, 0, 1, PATCHES + 2, PATCHES + 3)),
    "registers between the patches": (4, put(4, 0, 10, 20, 30)),
}


@pytest.mark.parametrize("kind", list(ORDERS))
def test_bright_patches_are_found_at_their_cells(kind: str) -> None:
    extra, order = ORDERS[kind]
    encoder = make(lambda: Net(extra, order))
    blocks = [info for info in encoder.layers if info.role == "block"]
    assert [(info.name, info.grid, info.prefix) for info in blocks] == [
        (f"blocks.{index}", (SIDE, SIDE), extra) for index in range(2)
    ]
    assert choose_layers(encoder) == ("blocks.1",)
    assert find_bright(encoder, "blocks.1", CELLS) == CELLS
    pixels = torch.randn(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():  # the block's own output, put in order by hand
        module = encoder.module
        tokens = module.blocks[0](
            torch.cat([module.tokens.expand(2, -1, -1), module.patch(pixels).flatten(2).transpose(1, 2)], 1)[:, order]
            + module.positions
        )
    seen = encoder.activations(pixels, "blocks.0")["blocks.0"]
    places = [order.index(token) for token in range(len(order))]
    torch.testing.assert_close(seen.maps.flatten(2).transpose(1, 2), tokens[:, places[extra:]])
    if extra:
        torch.testing.assert_close(seen.prefix, tokens[:, places[:extra]])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_tokens_at_any_places(data: st.DataObject) -> None:
    side = data.draw(st.integers(3, 8), "side")
    extra = data.draw(st.one_of(st.integers(0, 6), st.integers(7, 60)), "extra")
    front = data.draw(st.integers(0, extra), "front")
    order = list(range(front)) + list(range(extra, extra + side * side)) + list(range(front, extra))
    if data.draw(st.booleans(), "split"):
        middle = data.draw(st.integers(1, side * side - 1), "middle")
        patches = list(range(extra, extra + side * side))
        order = patches[:middle] + list(range(extra)) + patches[middle:]
    encoder = make(lambda: Net(extra, order, side=side), side, seed=data.draw(st.integers(0, 99), "seed"))
    assert encoder.layer("blocks.1").prefix == extra
    cells = [(0, 0), (side - 1, side - 1), (side // 2, 0), (0, side // 2), (1, side - 1)]
    assert find_bright(encoder, "blocks.1", cells, side) == cells


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_sequences_of_any_axis_order_and_patches_without_a_convolution(batch_first: bool, linear: bool) -> None:
    encoder = make(lambda: Net(1, batch_first=batch_first, linear=linear))
    assert encoder.layer("blocks.1").prefix == 1
    assert find_bright(encoder, "blocks.1", CELLS) == CELLS


def windows(side: int, window: int) -> list[int]:
    """Row-major patches, window after window."""
    cells = np.arange(side * side).reshape(side // window, window, side // window, window)
    return cells.transpose(0, 2, 1, 3).flatten().tolist()


def snake(side: int) -> list[int]:
    cells = np.arange(side * side).reshape(side, side)
    cells[1::2] = cells[1::2, ::-1]
    return cells.flatten().tolist()


OWN_ORDERS = {
    "windows of 3": (0, windows(SIDE, 3)),
    "windows of 2": (0, windows(SIDE, 2)),
    "column by column": (0, np.arange(PATCHES).reshape(SIDE, SIDE).T.flatten().tolist()),
    "snake": (0, snake(SIDE)),
    "class token and windows": (1, [0, *(1 + place for place in windows(SIDE, 3))]),
    "shuffled": (0, np.random.default_rng(0).permutation(PATCHES).tolist()),
}


@pytest.mark.parametrize("kind", list(OWN_ORDERS))
def test_patches_in_an_order_of_their_own(kind: str) -> None:
    extra, order = OWN_ORDERS[kind]
    encoder = make(lambda: Net(extra, order))
    assert encoder.layer("blocks.1").prefix == extra
    assert find_bright(encoder, "blocks.1", CELLS) == CELLS
    assert not encoder.resizable  # the order holds at the network's own size


@pytest.mark.parametrize(("side", "window"), [(28, 7), (48, 8)])
def test_windows_of_thousands_of_tokens(side: int, window: int) -> None:
    generator = np.random.default_rng(0)
    order, count = np.array(windows(side, window)), side * side
    half = np.array([generator.permutation(count) < count // 2 for _ in range(TRIALS_IN_ANY_ORDER // 2)])
    codes = np.stack([half, ~half], 1).reshape(-1, count).astype(float)
    responses = codes[:, order] + 0.6 * generator.random((len(codes), count))
    placed = find_order_of_any_kind(responses, codes)
    assert placed is not None and placed.extra == ()
    np.testing.assert_array_equal(order[list(placed.patches)], np.arange(count))
    assert find_order_of_any_kind(generator.random((len(codes), count)), codes) is None


@pytest.mark.parametrize("queries", [1, 9, 16, 25, 36, 37, 49, 64])
@pytest.mark.parametrize("extra", [0, 1])
def test_learned_queries_are_no_map(queries: int, extra: int) -> None:
    encoder = make(lambda: Net(extra, queries=queries))
    assert [info.name for info in encoder.layers if info.name.startswith("pooler")] == []
    assert choose_layers(encoder) == ("blocks.1",)
    assert encoder.unplaced == {}
    with pytest.raises(UsageError, match="'pooler' has no spatial output"):
        encoder.layer("pooler")


class Merged(nn.Module):
    """Adds up pairs of patches at places of their own: what is left lies on no grid."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        order = torch.randperm(PATCHES, generator=torch.Generator().manual_seed(3))
        self.register_buffer("order", order)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        tokens = self.patch(pixels).flatten(2).transpose(1, 2)[:, self.order]
        x = torch.cat([tokens[:, :10] + tokens[:, 10:20], tokens[:, 20:]], 1)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def test_tokens_on_no_grid_are_refused_and_not_passed_over() -> None:
    encoder = make(Merged)
    assert encoder.unplaced["blocks.1"] == 26
    with pytest.raises(UsageError, match=r"26 tokens .*'patch' comes before.*--grid HxW --prefix N"):
        choose_layers(encoder)
    with pytest.raises(UsageError, match=r"layer 'blocks.0' gives 26 tokens.*token_layout"):
        encoder.layer("blocks.0")
    assert choose_layers(encoder, "patch") == ("patch",)


def test_the_layout_may_be_stated() -> None:
    extra, order = ORDERS["class token and 4 registers"]
    module = make(lambda: Net(extra, order)).module
    encoder = Encoder(module, size=SIDE * PATCH, token_layout=((SIDE, SIDE), 5))
    assert encoder.token_layout == TokenLayout((SIDE, SIDE), 5)
    assert find_bright(encoder, "blocks.1", CELLS) == CELLS
    other = Encoder(module, size=SIDE * PATCH, token_layout=TokenLayout((4, 9), 2))  # what the user says holds
    info = other.layer("blocks.1")
    assert info.grid == (4, 9) and info.prefix == 5
    seen = other.activations(torch.zeros(1, 3, SIDE * PATCH, SIDE * PATCH), "blocks.1")["blocks.1"]
    raw = encoder.activations(torch.zeros(1, 3, SIDE * PATCH, SIDE * PATCH), "blocks.1")["blocks.1"]
    tokens = torch.cat([raw.prefix, raw.maps.flatten(2).transpose(1, 2)], 1)
    torch.testing.assert_close(seen.maps.flatten(2).transpose(1, 2), tokens[:, 2:38])
    assert other.digest != encoder.digest != Encoder(module, size=SIDE * PATCH).digest
    with pytest.raises(UsageError, match=r"grid of 9x9 after 1 tokens takes 82 tokens.*: 41\)"):
        _ = Encoder(module, size=SIDE * PATCH, token_layout=((9, 9), 1)).layers


@pytest.mark.parametrize("layout", [((0, 3), 1), ((3, 3), -1)])
def test_a_token_layout_that_cannot_be_is_refused(layout: tuple[tuple[int, int], int]) -> None:
    with pytest.raises(UsageError, match="token layout is"):
        load("timm:vit_tiny_patch16_224@untrained", token_layout=layout)


@pytest.mark.parametrize(
    "kind", ["class token in the middle", "registers between the patches", "in front and at the end"]
)
def test_maps_are_put_back_where_they_came_from(kind: str) -> None:
    extra, order = ORDERS[kind]
    encoder = make(lambda: Net(extra, order))
    pixels = torch.randn(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(2))
    maps = encoder.activations(pixels, "blocks.0")["blocks.0"].maps
    torch.testing.assert_close(substitute_maps(encoder, pixels, "blocks.0", maps), encoder.logits(pixels))
    assert not torch.allclose(substitute_maps(encoder, pixels, "blocks.0", 2 * maps), encoder.logits(pixels))


class WindowMaps(nn.Module):
    """[batch, windows, cells of a window, channels], with as many windows as cells of a window: no map."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH // 2, PATCH // 2)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch(pixels).permute(0, 2, 3, 1)
        batch, rows, columns, width = x.shape
        side = int(rows**0.5)
        x = x.reshape(batch, side, rows // side, side, columns // side, width).permute(0, 1, 3, 2, 4, 5)
        return self.head(self.norm(x.reshape(batch, side * side, -1, width)).mean((1, 2)))


def test_windows_of_tokens_with_the_shape_of_a_map_are_none() -> None:
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(WindowMaps().eval(), size=64)
    assert [info.name for info in encoder.layers] == ["patch"]


class ChannelsLast(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, channels, PATCH, PATCH), nn.LayerNorm(channels)
        self.mlp = nn.Linear(channels, channels)
        self.fixed = nn.Parameter(torch.randn(1, SIDE, SIDE, channels))  # takes no other size

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.norm(self.patch(pixels).permute(0, 2, 3, 1)) + self.fixed
        return self.mlp(x).permute(0, 3, 1, 2).mean((2, 3))


@pytest.mark.parametrize("channels", [SIDE, SIDE + 1, 16])
def test_channels_last_are_told_from_channels_first(channels: int) -> None:
    encoder = make(lambda: ChannelsLast(channels))
    assert {info.name: (info.channels, info.grid) for info in encoder.layers} == dict.fromkeys(
        ("patch", "norm", "mlp"), (channels, (SIDE, SIDE))
    )
    for layer in ("patch", "norm", "mlp"):
        assert find_bright(encoder, layer, CELLS) == CELLS, layer


def test_an_order_that_fits_by_chance_is_not_taken() -> None:
    rng = np.random.default_rng(0)
    trial = make_trial(3, (48, 48), [(6, 6)])
    for extra in (0, 1, 20, 60):
        noise = rng.random((len(trial.masks), 36 + extra))
        assert find_order(*trial.select(noise, (6, 6))) is None
    _, codes = trial.select(noise, (6, 6))
    assert find_order(codes + 1.0, codes) is not None
