"""A parser whose nested messages become one sentence with the nearest valid name."""

import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from lightning_repshape.cli.renaming import new_name
from lightning_repshape.errors import ConfigError, did_you_mean

_KEY = re.compile(r'Parser key "([^"]+)"')
_CLASS = re.compile(r"(?:given class_path '|class_path=')([\w.]+)'")
_OPTION = re.compile(r"Option '([\w.]+)\+?' is not accepted")
_NO_OPTION = re.compile(r"does not accept option '([\w.]+)'")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (.+)", re.IGNORECASE)
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_MODULE = re.compile(r"(No module named '[\w.]+'|module '[\w.]+' has no attribute '\w+')")
_REQUIRED = re.compile(r"the following arguments are required: ([\w., ]+)")
_COMMAND = re.compile(r"\b(?:fit|validate|test|predict|analyze)\.")
_EXPECTED = re.compile(r"Expected (?:a|one of) (.+?)(?:\. Got|$)", re.MULTILINE)
_VALUE = re.compile(r"(?:Given|Got) value: (.+)")
# An optional class path: what is wrong with it, then with its other readings, and that it is not nothing either.
_OPTIONAL = re.compile(
    r"Union subtypes\s+Subtypes:.*?\sErrors:\n( +)- (?!Expected )(.+?)\n\1- .*?Expected a <class 'NoneType'>", re.DOTALL
)
# What jsonargparse writes for a name where an option may be a callable, too.
_TAKEN_FOR_CALLABLE = re.compile(r"Unable to serialize instance ([\w.]+)[ \t]*$", re.MULTILINE)
_AS_OPTION = re.compile(r"; give it in a config or as --(\S+) \.\.\.")
_NO_SUBCLASS = re.compile(r"Import path(?: (\S+))? does not correspond to a subclass of (\w+)")
_PLAIN_TYPE = re.compile(r"<class '([\w.]+)'>")
_IN_HELP = re.compile(r"^ +(?:-\w(?: \w+)?, )?--([\w.]+)", re.MULTILINE)

# Where the classes lie that make sense at a key of a config.
ROOMS = {
    "backbone": ["lightning_repshape.networks"],
    "head": ["lightning_repshape.heads"],
    "model": ["lightning_repshape.modules"],
    "data": ["lightning_repshape.data"],
    "other": ["lightning_repshape.data"],
    "optimizer": ["torch.optim"],
    "lr_scheduler": ["torch.optim.lr_scheduler"],
    "callbacks": ["lightning_repshape.callbacks", "lightning.pytorch.callbacks"],
    "regularizers": ["lightning_repshape.regularizers"],
    "logger": ["lightning.pytorch.loggers"],
    "plugins": ["lightning.pytorch.plugins"],
    "profiler": ["lightning.pytorch.profilers"],
    "strategy": ["lightning.pytorch.strategies"],
}


class FormerNames:
    """What Lightning 2.6 asks of a parser and jsonargparse 5 no longer has; before 5 the parser's own come first."""

    instantiators: tuple[tuple[Any, type, bool], ...] = ()

    def add_instantiator(self, instantiator: Any, class_type: type, subclasses: bool = True) -> None:
        """Keeps who makes the objects of a class, for this parser alone."""
        self.instantiators += ((instantiator, class_type, subclasses),)

    def instantiate_classes(self, cfg: Any) -> Any:
        """``instantiate`` under its former name."""
        return self.instantiate(cfg, instantiators=self.instantiators)  # type: ignore[attr-defined]


class OneLineParser(LightningArgumentParser, FormerNames):
    """A parser whose errors are one sentence each, with the nearest valid name."""

    commands: Any = None
    owner: str = ""  # the class whose options these are, where they are of one alone

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """The parser's. An option of a class within a class that is null comes as its Python text."""
        if isinstance(args, list) and len(args) == 1 and args[0].startswith("--") and args[0].endswith("=None"):
            args = [f"{args[0].removesuffix('None')}null"]
        return super().parse_args(args, *more, **kwargs)

    def add_class_arguments(self, theclass: Any, nested_key: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Keeps the name of the class whose options these are, for errors."""
        if nested_key is None:
            self.owner = getattr(theclass, "__name__", "")
        return super().add_class_arguments(theclass, nested_key, *args, **kwargs)

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps what holds the commands' parsers, so that errors can name their options."""
        self.commands = super().add_subcommands(*args, **kwargs)
        return self.commands

    def dump(self, namespace: Any, *args: Any, **kwargs: Any) -> Any:
        """The parser's, of what no YAML can hold as a text that is read again.

        ``skip_none``, as Lightning 2.6 calls it, goes by the name that jsonargparse 5 has for it.
        """
        if "skip_none" in kwargs:
            kwargs["skip_unset"] = kwargs.pop("skip_none")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=rf"\s*{_TAKEN_FOR_CALLABLE.pattern}")
            text = super().dump(_spelled(namespace.clone()), *args, **kwargs)
        return _TAKEN_FOR_CALLABLE.sub(r"\1", text)

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Raises a ConfigError with what the parser found wrong."""
        if isinstance(ex, ConfigError):
            raise ex
        raise ConfigError(explain(message, self.option_names(), self.owner)) from ex

    def option_names(self) -> Iterator[str]:
        """Names such as ``trainer.max_epochs``, those of commands too, out of the help: a parser has no public list."""
        found = _IN_HELP.findall(self.format_help())
        yield from (name for name in found if name.rpartition(".")[2] not in ("help", "config", "print_config"))
        for command in self.commands.choices.values() if self.commands is not None else ():
            yield from command.option_names()


def given_device(text: str) -> torch.device:
    """The device of an option ``--device``; ConfigError if it is unknown or not there."""
    try:
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {text}: {str(error).splitlines()[0]}") from error
    return device


def _spelled(value: Any) -> Any:
    """A config whose values of classes that YAML lacks, as defaults of callbacks have them, are texts."""
    if isinstance(value, Namespace):
        for name, own in list(vars(value).items()):
            value[name] = _spelled(own)
        return value
    if isinstance(value, list):
        return [_spelled(own) for own in value]
    if isinstance(value, dict):
        return {name: _spelled(own) for name, own in value.items()}
    if isinstance(value, Enum):  # one that is a text, too, stands for it
        return value.value if isinstance(value, str) else value.name
    return str(value) if isinstance(value, torch.device | timedelta) else value


def explain(message: str, options: Iterable[str] = (), owner: str = "") -> str:
    """One sentence for a parser's message of several lines: what was wrong, where, and the nearest of ``options``.

    These are of the class ``owner``, or, without, of a command.
    """
    if found := _NO_SUBCLASS.search(message):
        value = _VALUE.search(message)
        name = found.group(1) or (value.group(1) if value else "what was given")
        return f"{name} at {_place(message)} is no {found.group(2)}; {_other_class(name, _place(message))}"
    if found := _OPTIONAL.search(message):
        inner = " ".join(found.group(2).split())
        # this package's sentence of a parser within, whose options are none of the command line's
        outer = _place(message[: found.start()])
        inner = explain(inner) if _KEY.search(inner) else inner
        own = "." not in outer and inner.split()[0] in class_names(outer)  # not of a class within
        given = rf"; give it in a config or as --{outer}.\1 ..." if own else "; give it in the config"
        return f"{outer}: {_AS_OPTION.sub(given, inner)}"
    place = _place(message)
    if found := _OPTION.search(message):
        return _unknown_option(found.group(1), message[: found.end()], message[found.end() :], place, options, owner)
    if found := _NO_OPTION.search(message):
        return _unknown_option(found.group(1), "", "", "", options, owner)
    if found := _UNRECOGNIZED.search(message):
        word = found.group(1).split()[0].split("=")[0].lstrip("-")
        return _unknown_option(word, message[: found.start()], "", place, options, owner)
    if found := _NO_CLASS.search(message):
        name = found.group(1)
        return f"there is no class {name!r} for {place}{did_you_mean(name, class_names(place))}"
    if found := _NO_MODULE.search(message):
        value = _VALUE.search(message)
        return f"{place or 'a class path'} cannot be imported: {found.group(1)}" + (
            f" (given: {value.group(1)})" if value else ""
        )
    if found := _REQUIRED.search(message):
        named = _CLASS.findall(message[: found.start()])
        names = _COMMAND.sub("", found.group(1).strip().rstrip("."))
        owner = named[-1].rpartition(".")[2] if named else owner
        whose = f"{owner} needs" if owner else "missing:"
        return f"{whose} {names}; give it in a config or as --{place + '.' if place else ''}{names.split(',')[0]} ..."
    value = _VALUE.search(message)
    expected = [_PLAIN_TYPE.sub(r"\1", text) for text in _EXPECTED.findall(message)]
    wanted = [text for text in dict.fromkeys(expected) if "NoneType" not in text and not text.startswith("path but")]
    wanted = ["a list" if text in ("collections.abc.Sequence", "list") else text for text in wanted]
    if place and value and wanted:
        hint = _as_list(place, value.group(1)) if "a list" in wanted else ""
        return f"{place} is {_shorten(value.group(1))!r}, but {' or '.join(wanted[:3])} is expected{hint}"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return _shorten(" ".join(lines), 400)


def _as_list(place: str, value: str) -> str:
    """How a list is written, after what was given in its place."""
    name, inside = place.rpartition(".")[2], value.strip("'\"")
    if not re.fullmatch(r"[\w.,/-]+", inside):
        return f"; write {name}=[...], or {name}+=... for each"
    return f"; write {name}=[{inside}], or {name}+={inside.split(',')[0]} for each"


def _other_class(name: str, place: str) -> str:
    """What to do where a class is of another kind; the package pytorch_lightning has classes of the same names."""
    module, _, leaf = name.rpartition(".")
    bases = getattr(getattr(sys.modules.get(module), leaf, None), "__mro__", ())
    if any(base.__module__.startswith("pytorch_lightning.") for base in bases):
        return (
            "it is built on the package pytorch_lightning, and this command runs lightning: import lightning.pytorch "
            "in its place, or use the callbacks in a Trainer of pytorch_lightning"
        )
    return f"there are {', '.join(class_names(place))}"


def class_names(place: str) -> list[str]:
    """The short names of the classes that make sense at a config's key, such as ``model.backbone`` or ``data``."""
    last = place.split(".")[-1] if place else ""
    modules = ROOMS.get(last, [room for group in ROOMS.values() for room in group])
    names: list[str] = []
    for module in modules:
        contents = importlib.import_module(module)
        public = getattr(contents, "__all__", None) or dir(contents)
        found = {name: getattr(contents, name) for name in public if not name.startswith("_")}
        names += [name for name, kind in found.items() if inspect.isclass(kind) and not inspect.isabstract(kind)]
    return names


def _place(message: str) -> str:
    keys = _KEY.findall(message)
    place = ""
    for key in keys:
        place = key if key.startswith(place) and "." in key else f"{place}.{key}" if place else key
    return place


def _unknown_option(word: str, before: str, after: str, place: str, options: Iterable[str], owner: str) -> str:
    # The class is named before the complaint (a nested class) or behind it ("Got value: Namespace(class_path=...").
    nearest = _CLASS.findall(after.split("Given value")[0])[:1] or _CLASS.findall(before)[-1:]
    leaf = word.split(".")[0]
    if nearest and place:
        accepted = _parameters(nearest[0])
        return f"{nearest[0].rpartition('.')[2]} has no option {leaf!r} (at {place}){_nearest(leaf, leaf, accepted)}"
    known = list(options)
    nobody = f"{owner} has" if owner else "there is"
    if "." in word:
        group, _, _ = word.partition(".")
        inside = [option for option in known if option.startswith(f"{group}.")]
        if inside:
            return f"{nobody} no option {word!r}{did_you_mean(word, inside)}"
        groups = list(dict.fromkeys(option.split(".")[0] for option in known))
        renamed = new_name(word, groups)
    else:
        group, groups, renamed = word, known, new_name(word, known)
    if owner and renamed is None and (others := _models_with(group)):
        return f"{nobody} no option {group!r}, which is one of {', '.join(others)}"
    return f"{nobody} no option {word!r}{_nearest(word, group, groups)}"


def _models_with(option: str) -> list[str]:
    """The models of this package that have an option which another one was given."""
    models = [name for name in class_names("model") if name.endswith("Module")]
    return [name for name in models if option in _parameters(f"lightning_repshape.modules.{name}")]


def _nearest(option: str, root: str, accepted: Iterable[str]) -> str:
    """The end of the message: the new name of an option that had another, else the nearest to the name's first part."""
    known = list(accepted)
    new = new_name(option, known)
    return did_you_mean(root, known) if new is None else f"; it is called {new!r} now"


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
        names: list[str] = []
        for ancestor in inspect.getmro(target):
            parameters = inspect.signature(vars(ancestor).get("__init__", object)).parameters
            names += [key for key in parameters if key != "self"]
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
    return [key for key in dict.fromkeys(names) if key not in ("args", "kwargs")]


def _shorten(text: str, length: int = 120) -> str:
    return text if len(text) <= length else f"{text[: length - 4]} ..."
