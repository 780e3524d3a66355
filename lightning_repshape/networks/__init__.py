"""Backbones: networks from inputs to features, with every activation reachable by name."""

from lightning_repshape.networks.base import Backbone
from lightning_repshape.networks.convnets import VGG16, ConvNet, FOCANet, LeNet
from lightning_repshape.networks.densenet import DenseNet40
from lightning_repshape.networks.faces import DDRL, DeepFace, DeepID2Plus, FaceResNet, InceptionResNetV1
from lightning_repshape.networks.highway import Highway
from lightning_repshape.networks.mlp import MLP
from lightning_repshape.networks.mobilenet import MobileNetV2
from lightning_repshape.networks.nin import NiN
from lightning_repshape.networks.quick import QuickNet
from lightning_repshape.networks.resnet import PreActResNet18, ResNet18, ResNet32, ResNet110, WideResNet
from lightning_repshape.networks.timm_backbone import TimmBackbone
from lightning_repshape.networks.torchvision_backbone import TorchvisionBackbone

__all__ = [
    "DDRL",
    "MLP",
    "VGG16",
    "Backbone",
    "ConvNet",
    "DeepFace",
    "DeepID2Plus",
    "DenseNet40",
    "FOCANet",
    "FaceResNet",
    "Highway",
    "InceptionResNetV1",
    "LeNet",
    "MobileNetV2",
    "NiN",
    "PreActResNet18",
    "QuickNet",
    "ResNet18",
    "ResNet32",
    "ResNet110",
    "TimmBackbone",
    "TorchvisionBackbone",
    "WideResNet",
]
