"""torchvision's segmentation networks without the final upsampling."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import segmentation

from segbatch.models.unwrap import StateDict


class Coarse(nn.Module):
    """Backbone and classifier of a torchvision network, keys unchanged: (N, 3, H, W) -> coarse logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone: nn.Module = network.get_submodule("backbone")
        self.classifier: nn.Module = network.get_submodule("classifier")
        # The classifier of LRASPP takes both feature maps, the others the last one.
        self._last_only = not isinstance(network, segmentation.LRASPP)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        return self.classifier(features["out"] if self._last_only else features)


def coarse(name: str, classes: int) -> Coarse:
    """Build the network that torchvision calls ``name``, for a number of classes."""
    return Coarse(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes))


def without_auxiliary(state: StateDict) -> StateDict:
    """Return the state dict without the auxiliary classifier, which only training needs."""
    return {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}
