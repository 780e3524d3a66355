"""Data modules: images in memory as uint8, fetched, augmented and normalised a batch at a time."""

from lightning_repshape.data.choosing import stratified
from lightning_repshape.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corruption_constants, defocus_kernel
from lightning_repshape.data.faces.casia import CASIAWebFaceDataModule
from lightning_repshape.data.faces.lists import LFWPairs, PairsFile, YTFPairs
from lightning_repshape.data.faces.module import FaceVerificationDataModule, PairBatch
from lightning_repshape.data.faces.pairs import IdentityPairs, PairSet, PairTable, VerificationPairs
from lightning_repshape.data.faces.records import RecordFaces, RecordFile
from lightning_repshape.data.files import ImageFiles
from lightning_repshape.data.further import GeneralizationSet, TestImages
from lightning_repshape.data.images import Draws, ImageStore, Normalizer, crop_and_flip, cut_out, draw_augmentation
from lightning_repshape.data.loading import ImageLoader, RawBatch, SplitDataset
from lightning_repshape.data.module import (
    ImageDataModule,
    ImageSet,
    SplitData,
)
from lightning_repshape.data.preprocessing import Preprocessing
from lightning_repshape.data.samplers import KeyedSampler
from lightning_repshape.data.sets.cifar import CIFAR101, CIFARC, CIFAR10DataModule, CIFAR100DataModule
from lightning_repshape.data.sets.digits import DigitsDataModule
from lightning_repshape.data.sets.folder import ImageFolderDataModule, ImageFolderSet
from lightning_repshape.data.sets.mnist import FashionMNISTDataModule, MNISTDataModule
from lightning_repshape.data.sets.stl10 import STL10DataModule
from lightning_repshape.data.sets.tiny_imagenet import TinyImageNetDataModule

FaceFiles = ImageFiles
"""The name that image files of faces had."""

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
    "Preprocessing",
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
    "cut_out",
    "defocus_kernel",
    "draw_augmentation",
    "stratified",
]
