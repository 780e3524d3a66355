"""``COMMAND --help``: at once what most people need, ``--help all`` and parts of it from the parser itself."""

import re
import shutil
import textwrap
from collections.abc import Iterator

import lightning_repshape
from lightning_repshape import configs_library
from lightning_repshape.cli.options import LIGHT
from lightning_repshape.cli.plain import fitted
from lightning_repshape.errors import ConfigError, did_you_mean

COMMANDS = ("fit", "validate", "test", "predict", "analyze")
_PARTS = ("all", "model", "data", "trainer")
_BASES = ("ClassifierModule", "ImageDataModule")
_CONFIGS = """\
  --config NAME        a shipped config or a YAML file; several compose, later ones and options override:
                       {configs},
                       base/..., method/..., scenario/... (lightning-repshape configs list)
  --model CLASS        {models},
                       or the import path of a LightningModule; its options as --model.NAME
  --data CLASS         {data},
                       or the import path of a LightningDataModule; its options as --data.NAME
"""
_FIT = f"""\
usage: lightning-repshape fit --config NAME [--config NAME ...] [OPTIONS]
       lightning-repshape fit --model CLASS --data CLASS [OPTIONS]

Trains a model.

what is trained:
{_CONFIGS}
what people change:
  --trainer.max_epochs N            passes over the training set
  --trainer.devices N               processes or GPUs (--trainer.accelerator cpu, gpu)
  --trainer.precision KIND          such as bf16-mixed, or auto (default: 32-true)
  --trainer.logger CLASS            one more logger, such as WandbLogger; false: none at all
  --trainer.callbacks+=CLASS        one more callback, such as EarlyStopping or an analysis
  --data.root FOLDER                where the data lie (--data.download true fetches them)
  --data.batch_size N               samples of an update on each device
  --data.train_size N               train on so many images
  --model.backbone CLASS            the network; its options as --model.backbone.NAME
  --model.optimizer.lr X            the learning rate
  --model.regularizers.weight X     a penalty's weight, with method/cw-vr and its like
  --seed_everything N               of everything random (default: 0)

the run:
  --run_dir FOLDER     default: runs/NAME after the config; a new run never reuses a folder
  --ckpt_path last     with --run_dir RUN: go on with an interrupted run
  --init_from FILE     start from the weights of this checkpoint
  --then_test true     test the best checkpoint afterwards
  --threads N          CPU threads (default: one for networks without convolutions)
  --row ID             train one row of a study (lightning-repshape study list)
  --print_config       print the whole config instead of training
  --trust              import what the run's own config names of other packages
"""
_OTHERS = f"""\
usage: lightning-repshape {{command}} --run_dir RUN [OPTIONS]
       lightning-repshape {{command}} --config NAME --ckpt_path FILE [OPTIONS]

{{about}}

which weights, on which data:
  --run_dir RUN        the best checkpoint of a run, with its own config
  --ckpt_path WHICH    best, last, a file, or none for untrained weights
{_CONFIGS}
what people change:
  --trainer.devices N        processes or GPUs (--trainer.accelerator cpu, gpu)
  --data.root FOLDER         where the data lie
  --data.eval_batch_size N   samples at a time
  --trust                    import what the run's own config names of other packages
"""
_ABOUT = {
    "validate": "Runs the validation set through a checkpoint.",
    "test": "Runs the test set through a checkpoint, with the run's analyses.",
    "predict": "Writes a CSV of image, predicted class and probability: of --images PATH, files of any sizes "
    "(--top N classes of each, and a contact sheet; the training data are not needed), else of --data.predict_dir "
    "FOLDER, else of the test images.",
}
_ANALYZE = """\
usage: lightning-repshape analyze --run_dir RUN [OPTIONS]
       lightning-repshape analyze --config NAME --ckpt_path FILE [OPTIONS]
       lightning-repshape analyze --model CLASS --data CLASS --ckpt_path FILE --layer NAME [OPTIONS]
       lightning-repshape analyze --features FILE [OPTIONS]

Shows how a trained classifier's representation is shaped: prints the figures that matter, and writes JSON, PNG and PDF
of each analysis and a page with everything, index.html, into RUN/analysis. Nothing is trained but small heads on
frozen features.

what is analysed:
  --run_dir RUN        the best checkpoint of a run; with --features: where the results go
  --ckpt_path WHICH    best, last, a file, or none for untrained weights
  --model, --data      a LightningModule and a LightningDataModule of any project, by import path
  --layer NAME         an activation, or a submodule of another project's model (default: features)
  --unpack X,Y         where a batch has inputs and labels: positions or keys, such as image,label (default: 0,1);
                       "**,label": all but the label, as keyword arguments
  --other CLASS        a second data set, its options as --other.NAME: for transfer, and as out of distribution
                       (--transfer is the same)
  --features FILE      saved features without a model: .npz or .safetensors with the arrays features (N x D) and
                       labels (N); optionally logits (N x K), test_features, test_labels, test_logits, weight (K x D),
                       bias (K), class_names; of a second set other_features, other_test_features, ...

which analyses (--analyses lda,collapse, or all; default: all but those marked *; own ones: my_file.MyAnalysis):
{analyses}
  * only where they are named, or in the run's config: they take minutes, or need what saved features lack

only with --features:
  --other FILE         a second file of features
  --class_names A,B    names of the classes
  --num_classes K      default: from logits or labels
  --device NAME        where to compute (default: cpu)
  --seed_everything N  of random choices (default: 0)
"""
# A test holds the names against the analyses themselves, whose import takes seconds.
ANALYSES = {
    "lda": "how far every class is apart from all others",
    "pca": "features on their first principal components",
    "collapse": "neural collapse, rank, class-wise variance, calibration",
    "calibration": "whether confidence can be believed, before and after temperature scaling; risk against coverage",
    "weight_separability": "how far class vectors are from orthonormal",
    "class_vectors": "class vectors against each other and against the samples",
    "weight_space": "* features and class vectors in one picture",
    "activation_patterns": "* each class's mean activation against its class vector",
    "tsne": "* t-SNE",
    "dimension": "intrinsic dimension, ranks, the spectrum and its decay",
    "similarity": "* debiased linear CKA of all layers with each other",
    "ood": "* telling a second set (--other) from the model's own, by eight scores",
    "characteristics": "a layer's amplitude, covariance, correlation, class-wise variance",
    "geodesic": "Fisher distance between heads trained on few and on all images",
    "probes": "error of nearest neighbours and of a linear probe, here and transferred to --other",
    "partial_retraining": "error of heads retrained on few images",
    "corruptions": "* error on corrupted copies of the test set",
}


def run(command: str, words: list[str]) -> int:
    """Prints a command's help; what follows ``--help`` says which."""
    if command in LIGHT:
        print(LIGHT[command]().format_help(), end="")
        return 0
    at = next(position for position, word in enumerate(words) if word in ("-h", "--help"))
    part, *names = [word for word in words[at + 1 :] if not word.startswith("-")] or [""]
    if part == "":
        print(fitted(short(command)), end="")
        return 0
    if command == "analyze":
        return _of_analyses(part)
    if part not in _PARTS:
        raise ConfigError(f"there is no help on {part!r}{did_you_mean(part, _PARTS)}")
    from lightning_repshape.cli.process import quieten

    quieten()
    from lightning_repshape.cli import training

    if names:
        return training.run(command, [f"--{part}.help", names[0]])
    full = training.parser_of(command).commands.choices[command].format_help()
    print(full if part == "all" else "\n".join(_sections(full, part)), end="" if part == "all" else "\n")
    return 0


def short(command: str) -> str:
    """What a command takes, in some thirty lines."""
    if command == "analyze":
        width = max(map(len, ANALYSES))
        text = _ANALYZE.format(analyses="\n".join(f"  {name:<{width}}  {about}" for name, about in ANALYSES.items()))
        more = "lightning-repshape analyze --help lda    the options of an analysis, --lda.NAME; all: of all of them"
    else:
        rooms = lightning_repshape.names_of_rooms()
        text = (_FIT if command == "fit" else _OTHERS).format(
            command=command,
            about=_ABOUT.get(command, ""),
            configs=_listed(name for name in configs_library.names() if "/" not in name),
            models=_listed(name for name in rooms["modules"] if name.endswith("Module") and name not in _BASES),
            data=_listed(name for name in rooms["data"] if name.endswith("DataModule") and name not in _BASES),
        )
        call = f"lightning-repshape {command} --help"
        more = (
            f"{call} model CLASS    the options of a model; data CLASS, or without a class: of any\n"
            f"  {call} trainer        the trainer's options\n  {call} all            everything"
        )
    return f"{text}\nmore help:\n  {more}\n"


def _listed(names: Iterator[str]) -> str:
    width = min(120, shutil.get_terminal_size((100, 24)).columns) - 24
    return f"\n{' ' * 23}".join(textwrap.wrap(", ".join(names), max(40, width), break_on_hyphens=False))


def _sections(text: str, part: str) -> Iterator[str]:
    """The groups of a parser's help that have options of a part."""
    for section in re.split(r"\n(?=\S)", text):
        if re.search(rf"^ +--{part}\b", section, re.MULTILINE) and not section.startswith("usage"):
            yield section


def _of_analyses(part: str) -> int:
    if part not in (*ANALYSES, "all") and "." not in part:
        raise ConfigError(f"there is no analysis {part!r}{did_you_mean(part, ('all', *ANALYSES))}")
    from lightning_repshape.cli.process import quieten

    quieten()
    from lightning_repshape.cli import analyze
    from lightning_repshape.cli.own import own_analyses

    own = own_analyses(part)
    part = own[0].kind if own else part
    full = analyze.help_parser(own).format_help()
    print(full if part == "all" else "\n".join(_sections(full, part)), end="" if part == "all" else "\n")
    return 0
