"""Data modules: images in memory as uint8, fetched, augmented and normalised a batch at a time."""

from lightning_repshape.data.base import (
    ImageDataModule,
    ImageLoader,
    ImageSet,
    RawBatch,
    SplitData,
    SplitDataset,
    stratified,
)
from lightning_repshape.data.casia import CASIAWebFaceDataModule
from lightning_repshape.data.cifar import CIFAR101, CIFARC, CIFAR10DataModule, CIFAR100DataModule
from lightning_repshape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruption_constants, defocus_kernel
from lightning_repshape.data.digits import DigitsDataModule
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.folder import ImageFolderDataModule, ImageFolderSet
from lightning_repshape.data.images import Draws, ImageStore, Normalizer, crop_and_flip, draw_augmentation
from lightning_repshape.data.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_repshape.data.pairs import (
    FaceVerificationDataModule,
    IdentityPairs,
    LFWPairs,
    PairBatch,
    PairSet,
    PairsFile,
    PairTable,
    VerificationPairs,
    YTFPairs,
)
from lightning_repshape.data.record_io import FaceFiles, RecordFaces, RecordFile
from lightning_repshape.data.samplers import KeyedSampler
from lightning_repshape.data.stl10 import STL10DataModule
from lightning_repshape.data.test_sets import GeneralizationSet, TestImages
from lightning_repshape.data.tiny_imagenet import TinyImageNetDataModule

__all__ = [
    "CIFAR101",
    "CIFARC",
    "CORRUPTIONS",
    "SEVERITIES",
    "CASIAWebFaceDataModule",
    "CIFAR10DataModule",
    "CIFAR100DataModule",
    "DigitsDataModule",
    "Draws",
    "FaceFiles",
    "FaceVerificationDataModule",
    "FashionMNISTDataModule",
    "GeneralizationSet",
    "IdentityPairs",
    "ImageDataModule",
    "ImageFiles",
    "ImageFolderDataModule",
    "ImageFolderSet",
    "ImageLoader",
    "ImageSet",
    "ImageStore",
    "KeyedSampler",
    "LFWPairs",
    "MNISTDataModule",
    "Normalizer",
    "PairBatch",
    "PairSet",
    "PairTable",
    "PairsFile",
    "RawBatch",
    "RecordFaces",
    "RecordFile",
    "STL10DataModule",
    "SplitData",
    "SplitDataset",
    "TestImages",
    "TinyImageNetDataModule",
    "VerificationPairs",
    "YTFPairs",
    "corrupt",
    "corruption_constants",
    "crop_and_flip",
    "defocus_kernel",
    "draw_augmentation",
    "stratified",
]
