"""Keys and attention against what each library computes itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from encoscope._torchvision import ensure_torchvision
from encoscope.discovery import read_attention_keys
from encoscope.encoder import Encoder
from encoscope.errors import UsageError

ensure_torchvision()


def pixels(side=32, batch=2):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def inputs_of(module: nn.Module, network: nn.Module, images: Tensor) -> Tensor:
    taken = []
    handle = module.register_forward_pre_hook(lambda _module, args: taken.append(args[0]))
    with torch.no_grad():
        network.eval()(images)
    handle.remove()
    return taken[0]


@pytest.mark.parametrize("norm", [False, True])
def test_timm(norm):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, qk_norm=norm, reg_tokens=1)
    for block in network.blocks:
        block.attn.fused_attn = False
        if norm:
            nn.init.normal_(block.attn.k_norm.weight)
    encoder = Encoder(network, size=32)
    found = read_attention_keys(encoder, pixels(), "blocks.0")
    assert (found.name, found.prefix, found.grid) == ("blocks.0.attn", 2, (4, 4))
    assert found.keys.shape == (2, 3, 18, 64)
    inside = inputs_of(network.blocks[0].attn.attn_drop, network, pixels())
    assert found.attention is not None
    torch.testing.assert_close(found.attention, inside, atol=1e-6, rtol=1e-4)
    # the middle third of the fused projection, head by head
    tokens = inputs_of(network.blocks[0].attn, network, pixels())
    keys = network.blocks[0].attn.qkv(tokens)[..., 192:384].reshape(2, 18, 3, 64).transpose(1, 2)
    torch.testing.assert_close(found.keys, network.blocks[0].attn.k_norm(keys).detach())
    assert read_attention_keys(encoder, pixels()).name == "blocks.1.attn"


class HubAttention(nn.Module):
    """As torch.hub's DINO writes it."""

    def __init__(self, width=24, heads=2):
        super().__init__()
        self.num_heads = heads
        self.scale = (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        attention = self.attn_drop(((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1))
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c)), attention


class HubBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = HubAttention()

    def forward(self, x):
        return x + self.attn(x)[0]


class HubViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 8, 8)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 24))
        self.blocks = nn.ModuleList([HubBlock(), HubBlock()])

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, 0]


def test_torch_hub():
    torch.manual_seed(0)
    network = HubViT()
    found = read_attention_keys(Encoder(network, size=32), pixels())
    assert (found.name, found.prefix, found.grid) == ("blocks.1.attn", 1, (4, 4))
    inside = inputs_of(network.blocks[1].attn.attn_drop, network, pixels())
    assert found.attention is not None
    torch.testing.assert_close(found.attention, inside)
    oblong = torch.randn(1, 3, 24, 48)
    assert read_attention_keys(Encoder(network, size=32), oblong).grid == (3, 6)


def test_transformers():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    for kind, patch in (("ViT", 8), ("Dinov2", 8)):
        config = getattr(transformers, f"{kind}Config")(**size, image_size=32, patch_size=patch)
        config._attn_implementation = "eager"
        network = getattr(transformers, f"{kind}Model")(config)
        found = read_attention_keys(Encoder(network, size=32), pixels())
        with torch.no_grad():
            expected = network.eval()(pixels(), output_attentions=True).attentions[-1]
        assert found.prefix == 1 and found.grid == (4, 4) and found.keys.shape == (2, 3, 17, 8)
        assert found.attention is not None
        torch.testing.assert_close(found.attention, expected)


def test_torchs_own_attention():
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 3, 24, 32).eval()
    found = read_attention_keys(Encoder(network, size=32), pixels())
    assert found.name.endswith("encoder_layer_1.self_attention") and found.prefix == 1 and found.grid == (4, 4)
    attention = network.get_submodule(found.name)
    tokens = inputs_of(attention, network, pixels())
    with torch.no_grad():
        expected = attention(tokens, tokens, tokens, average_attn_weights=False)[1]
    assert found.attention is not None
    torch.testing.assert_close(found.attention, expected)


def test_positions_that_turn_keys_leave_no_attention():
    import timm

    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)
    encoder = Encoder(network, size=32)
    assert read_attention_keys(encoder, pixels()).attention is not None
    network.blocks[0].attn.register_buffer("relative_position_index", torch.zeros(1))
    assert read_attention_keys(encoder, pixels()).attention is None


def test_windows_are_refused():
    import timm

    torch.manual_seed(0)
    network = timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4, depths=(1, 1), embed_dim=24)
    with pytest.raises(UsageError, match="does not attend over all patches"):
        read_attention_keys(Encoder(network, size=64), pixels(64), "layers.0.blocks.0")
