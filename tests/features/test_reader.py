"""Layers by name, and what a batch holds."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from analysis_data import inputs
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_repshape.callbacks import (
    LDAEigenvalues,
    ModelInputs,
    PrincipalComponents,
)
from lightning_repshape.errors import ConfigError, DataError
from lightning_repshape.features.last_layer import layer_of_features
from lightning_repshape.features.passes import Features, extract_features


def test_values_before_the_activation_function_of_any_model() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(6, 5), nn.ReLU6()), nn.Flatten()
    )
    x = torch.randn(9, 4)
    batches = [(x, torch.arange(9) % 3)]
    hidden = F.linear(x, net[0].weight, net[0].bias)
    for layer in ("1.pre", "0"):  # the ReLU works in place on what layer 0 returned
        torch.testing.assert_close(extract_features(net, batches, layer).features, hidden.detach())
    top = F.linear(hidden.relu(), net[2][0].weight, net[2][0].bias).detach()
    torch.testing.assert_close(extract_features(net, batches, "2.pre").features, top)
    failures = {layer: LDAEigenvalues().run(ModelInputs(net, {"train": batches}, layer)).failure
                for layer in ("3.pre", "7.pre", "2.per")}  # fmt: skip
    assert "layer '3' of Sequential does not end in an activation function" in failures["3.pre"]
    assert "has no layer '7.pre'" in failures["7.pre"] and "did you mean" in failures["2.per"]
    figure = PrincipalComponents(before="2.pre").compute(ModelInputs(net, {"test": batches}, "2")).figures["3d"]()
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "before the activation function: 2.pre",
        "after it: 2",
    ]
    of_tensors = PrincipalComponents(before="features.pre").run(inputs())
    assert "needs the model, and there are only saved features" in of_tensors.failure


class Pair(nn.Module):
    """Returns a tuple, as recurrent and attention layers do."""

    def __init__(self, tensors: int = 2) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.tensors = tensors

    def forward(self, *, x: Tensor) -> tuple[Any, ...]:
        value = self.linear(x)
        return (None, value, -value)[: self.tensors + 1]


class Composed(nn.Module):
    """Calls its parts by keyword, and returns a dataclass."""

    def __init__(self, tensors: int = 2) -> None:
        super().__init__()
        self.pair = Pair(tensors)
        self.head = nn.Linear(3, 2)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Any:
        hidden = self.pair(x=values)[1]
        return Answer(self.head(hidden), hidden if mask is None else hidden * mask)


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor


def test_layers_that_return_several_values() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(6, 4), torch.arange(6) % 2
    batches = [(x, labels)]
    one, two = Composed(tensors=1), Composed()
    want = one.pair.linear(x).detach()
    found = extract_features(one, batches, "pair")  # one tensor among its values
    torch.testing.assert_close(found.features, want)
    torch.testing.assert_close(found.logits, one.head(want).detach())
    want = two.pair.linear(x).detach()
    torch.testing.assert_close(extract_features(two, batches, "pair[2]").features, -want)
    torch.testing.assert_close(extract_features(two, batches, "[hidden]").features, want)
    torch.testing.assert_close(extract_features(two, batches, "pair.input").features, x)  # given by keyword
    with pytest.raises(ConfigError, match=r"returns tuple, not a tensor; name one of its values: pair\[1\], pair\[2\]"):
        extract_features(two, batches, "pair")
    with pytest.raises(ConfigError, match="Composed returns no tensor 'hiden'; did you mean 'hidden'"):
        extract_features(two, batches, "[hiden]")


def test_batches_that_are_keyword_arguments() -> None:
    torch.manual_seed(0)
    x, labels, net = torch.randn(6, 4), torch.arange(6) % 2, Composed()
    batches = [{"values": x, "mask": torch.zeros(6, 1), "label": labels}]
    assert extract_features(net, batches, "[hidden]", ("**", "label")).features.abs().max() == 0  # the mask came along
    torch.testing.assert_close(
        extract_features(net, batches, "[hidden]", ("values", "label")).features, net.pair.linear(x).detach()
    )
    with pytest.raises(ConfigError, match=r"unpack=\('\*\*', 'labels'\) does not fit the batches, which are keys"):
        extract_features(net, batches, "[hidden]", ("**", "labels"))
    long = [{"values": x, "label": labels}, {"values": torch.randn(6, 2, 4), "label": labels}]
    with pytest.raises(DataError, match="6 values a sample in one batch and 3 in another"):
        extract_features(net, long, "pair[1]", ("**", "label"))
    with pytest.raises(DataError, match="gives 3 rows for a batch of 6 labels"):
        extract_features(nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (3, 8))), [(x, labels)], "1")


def test_torchvision_feature_extraction() -> None:
    from torchvision.models import resnet18
    from torchvision.models.feature_extraction import create_feature_extractor

    net = create_feature_extractor(resnet18(), {"layer1": "low", "flatten": "pooled"})
    images = [(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))]
    assert extract_features(net, images, "[pooled]").features.shape == (2, 512)
    assert extract_features(net, images, "[low]").features.shape == (2, 64 * 8 * 8)


def test_hugging_face_models() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    labels = torch.arange(6) % 3
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=8, num_labels=3, **small)
    ).eval()
    images = [{"pixel_values": torch.randn(6, 3, 16, 16), "labels": labels}]
    known = find_features(vit, images, ("**", "labels"))
    with torch.no_grad():
        want = vit.vit(images[0]["pixel_values"]).last_hidden_state
    torch.testing.assert_close(known.features, want[:, 0])  # the class token
    torch.testing.assert_close(known.logits, vit.classifier(want[:, 0]).detach())
    states = extract_features(vit, images, "vit[last_hidden_state]", ("pixel_values", "labels")).features
    torch.testing.assert_close(states, want.flatten(1))
    blocks = [name for name, _ in vit.named_modules() if name.endswith("layers.0") or name.endswith("layer.0")]
    assert extract_features(vit, images, blocks[0], ("pixel_values", "labels")).features.shape == (6, 5 * 16)

    bert = transformers.BertModel(transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **small)).eval()
    ids, mask = torch.randint(0, 30, (6, 8)), torch.ones(6, 8, dtype=torch.long)
    mask[:, 5:] = 0
    text = [transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask, "labels": labels})]
    found = extract_features(bert, text, "[pooler_output]", ("**", "labels"))
    with torch.no_grad():
        want = bert(input_ids=ids, attention_mask=mask).pooler_output
        assert not torch.allclose(bert(input_ids=ids).pooler_output, want)
    torch.testing.assert_close(found.features, want)
    assert found.logits is None
    outcome = PrincipalComponents().run(ModelInputs(bert, {"test": text}, "[pooler_output]", ("**", "labels")))
    assert not outcome.failure


def find_features(model: nn.Module, batches: list[Any], unpack: tuple[str, str]) -> Features:
    """What enters the last linear layer, as ``analyze`` finds it."""
    return extract_features(model, batches, layer_of_features(model, "features", 3), unpack)
