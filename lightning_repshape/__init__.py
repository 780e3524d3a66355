"""Shape and study the representations of a classifier.

The names of every room are reached from here, and loaded when they are first used, so that
``import lightning_repshape`` costs nothing::

    from lightning_repshape import SupervisedModule, MNISTDataModule, ClasswiseVariance
    from lightning_repshape.functional import cw_vr
"""

import importlib
from typing import Any

from lightning_repshape import moved
from lightning_repshape._version import __version__

# A test holds this list against the rooms' own.
_ROOMS: dict[str, tuple[str, ...]] = {
    "callbacks": (
        "ActivationPatterns",
        "Analysis",
        "AnalysisInputs",
        "AnalysisResult",
        "AtomicCheckpointIO",
        "BestCheckpoint",
        "Calibration",
        "ClassVectorSimilarity",
        "Corruptions",
        "ErrorCount",
        "FeatureInputs",
        "FeaturePlots",
        "FeatureStore",
        "FeedBackwardPenalty",
        "FisherGeodesic",
        "LDAEigenvalues",
        "LastCheckpoint",
        "LayerPenalty",
        "LayerSimilarity",
        "ModelInputs",
        "NeuralCollapse",
        "OutOfDistribution",
        "Outcome",
        "PartialDatasetRetraining",
        "PredictionWriter",
        "PrincipalComponents",
        "Probes",
        "ROCCurves",
        "ReconstructionErrors",
        "ReconstructionFigure",
        "RepresentationCharacteristics",
        "RepresentationDimension",
        "Reseeding",
        "ResultTable",
        "RunRecord",
        "SaveRunConfig",
        "SecondaryOptimization",
        "SeparabilityCurve",
        "TSNE",
        "Threads",
        "WeightSeparability",
        "WeightSpace",
        "corruption_errors",
        "run_analyses",
    ),
    "comparisons": (
        "Comparison",
        "Contender",
        "TestSamples",
        "compare",
        "contend",
        "write_comparison",
    ),
    "data": (
        "CASIAWebFaceDataModule",
        "CIFAR100DataModule",
        "CIFAR101",
        "CIFAR10DataModule",
        "CIFARC",
        "CORRUPTIONS",
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
        "SEVERITIES",
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
    ),
    "export": (
        "Predictions",
        "RepshapeModel",
        "export_model",
    ),
    "heads": (
        "ClassVectorHead",
        "Head",
        "LinearHead",
        "MLPHead",
        "NoisyMLPHead",
    ),
    "losses": (
        "ArcFace",
        "CenterLoss",
        "ClassificationLoss",
        "CosFace",
        "FeedBackwardReconstruction",
        "L2Softmax",
        "LargeMarginSoftmax",
        "SoftmaxLoss",
    ),
    "metrics": (
        "ClassCosines",
        "ClassMeans",
        "ClassificationSums",
        "ExactSums",
        "LDAEigenvalueMetric",
        "PairFeatures",
        "ReconstructionSums",
        "RepresentationStatistics",
        "ScatterMetric",
        "VerificationMetric",
        "WeightSeparabilityMetric",
    ),
    "modules": (
        "AutoencoderModule",
        "AutoencoderOutput",
        "ClassVectorModule",
        "ClassifierModule",
        "Draw",
        "FOCAModule",
        "FeedBackwardModule",
        "ModelOutput",
        "PhiUpdates",
        "PoFModule",
        "RegularizedModule",
        "SupervisedModule",
        "VerificationModule",
        "VerifiesPairs",
        "WeakRecipe",
        "verify_pairs",
    ),
    "networks": (
        "Backbone",
        "ConvNet",
        "DDRL",
        "DeepFace",
        "DeepID2Plus",
        "DenseNet40",
        "FOCANet",
        "FaceResNet",
        "Highway",
        "InceptionResNetV1",
        "LeNet",
        "MLP",
        "MobileNetV2",
        "NiN",
        "PreActResNet18",
        "QuickNet",
        "ResNet110",
        "ResNet18",
        "ResNet32",
        "TimmBackbone",
        "TorchvisionBackbone",
        "VGG16",
        "WideResNet",
    ),
    "regularizers": (
        "ClasswiseCovariance",
        "ClasswiseStableRank",
        "ClasswiseVariance",
        "Covariance",
        "L1Representation",
        "L1Weight",
        "L2Weight",
        "Regularizer",
        "StableRank",
        "SupervisedContrastive",
        "Variance",
        "VarianceCovariance",
        "WeightRegularizer",
    ),
}
moved.install()
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({"__version__", *_ROOM_OF})


def names_of_rooms() -> dict[str, tuple[str, ...]]:
    """The public names of every room, without importing any."""
    return dict(_ROOMS)


__all__ = ["__version__", *_ROOM_OF]
