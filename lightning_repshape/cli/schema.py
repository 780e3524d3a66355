"""The JSON schema of configs, by which editors complete and check them as they are written.

jsonargparse has one of its own, which walks through every class of PyTorch and does not come to its end here. This one
knows the classes that are meant for a key, with their options, and lets any other import path pass.
"""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from docstring_parser import parse
from lightning.pytorch import Trainer

from lightning_repshape._version import __version__
from lightning_repshape.cli.parsing import ROOMS, class_names

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
_OF_COMMAND = {
    "seed_everything": {"type": ["integer", "boolean"]},
    "ckpt_path": {"type": ["string", "null"]},
    "run_dir": {"type": ["string", "null"]},
    "init_from": {"type": ["string", "null"]},
    "then_test": {"type": "boolean"},
    "threads": {"type": ["integer", "null"]},
    "trust": {"type": "boolean"},
    "weights_only": {"type": ["boolean", "null"]},
}
_LISTS = ("callbacks", "regularizers")  # keys of several classes, to which ``key+`` adds


def config_schema() -> dict[str, Any]:
    """What a config of ``fit`` may hold."""
    schema = _Schema()
    trainer = schema.options(Trainer)
    properties = {
        **_OF_COMMAND,
        "trainer": trainer,
        "model": schema.of_key("model"),
        "data": schema.of_key("data"),
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"config of lightning-repshape {__version__}",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "definitions": schema.definitions,
    }


class _Schema:
    """Definitions of the classes met so far, by name."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}

    def of_key(self, key: str) -> dict[str, Any]:
        """A class that makes sense at a key, by its name, or with its options."""
        if key not in self.definitions:
            self.definitions[key] = {}  # for classes within
            self.definitions[key] = self._classes(key)
        one = {"$ref": f"#/definitions/{key}"}
        return {"anyOf": [{"type": "array", "items": one}, one, {"type": "null"}]} if key in _LISTS else one

    def _classes(self, key: str) -> dict[str, Any]:
        names, chosen = [], []
        for room in ROOMS[key]:
            module = importlib.import_module(room)
            for name in class_names(key):
                found = getattr(module, name, None)
                if inspect.isclass(found) and not inspect.isabstract(found):
                    self.definitions[f"{key}/{name}"] = self.options(found)
                    names.append(name)
                    ways = [name, f"{found.__module__}.{name}", f"{room}.{name}", f"lightning_repshape.{name}"]
                    when = {
                        "properties": {"class_path": {"enum": list(dict.fromkeys(ways))}},
                        "required": ["class_path"],
                    }
                    options = {"$ref": f"#/definitions/{key}~1{name}"}
                    chosen.append({"if": when, "then": {"properties": {"init_args": options}}})
        path = {"anyOf": [{"enum": names}, {"type": "string", "pattern": r"\."}]}
        spec = {"class_path": path, "init_args": {"type": "object"}, "dict_kwargs": {"type": "object"}}
        own = {"type": "object", "properties": spec, "additionalProperties": False, "allOf": chosen}
        return {"anyOf": [path, own, {"type": "null"}]}

    def options(self, kind: type) -> dict[str, Any]:
        """The options of a class, with what its docstring says of them; further ones where it takes any."""
        properties: dict[str, Any] = {}
        closed = True
        for ancestor in inspect.getmro(kind):
            init = vars(ancestor).get("__init__")
            if init is None or ancestor is object:
                continue
            hints = _hints(init)
            about = {one.arg_name: one.description for one in parse(ancestor.__doc__ or "").params}
            about |= {one.arg_name: one.description for one in parse(init.__doc__ or "").params}
            for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
                if parameter.kind is parameter.VAR_KEYWORD:
                    shared = get_args(hints.get(name, Any))
                    for key, hint in _hints(shared[0]).items() if shared else ():
                        properties.setdefault(key, self._option(key, hint, about.get(key)))
                    closed = closed and (bool(shared) or len(inspect.getmro(kind)) > 2)
                elif parameter.kind is not parameter.VAR_POSITIONAL:
                    properties.setdefault(name, self._option(name, hints.get(name, Any), about.get(name)))
        for name in [name for name in properties if name in _LISTS]:
            properties[f"{name}+"] = properties[name]
        return {"type": "object", "properties": properties, **({"additionalProperties": False} if closed else {})}

    def _option(self, name: str, hint: Any, about: str | None) -> dict[str, Any]:
        found = self.of_key(name) if name in ROOMS else self._type(hint)
        return {**found, "description": " ".join(about.split())} if about else found

    def _type(self, hint: Any) -> dict[str, Any]:
        """What a type hint lets pass; all that it is not sure about."""
        origin, inner = get_origin(hint), get_args(hint)
        if hint is float:
            return {"type": ["number", "string"]}  # YAML reads 1e-3 as text
        if hint in _PLAIN:
            return {"type": _PLAIN[hint]}
        if origin is Literal:
            return {"enum": list(inner)}
        if origin in (Union, types.UnionType):
            ways = [self._type(one) for one in inner]
            return {} if {} in ways else {"anyOf": ways}
        if dataclasses.is_dataclass(hint):
            return self.options(typing.cast(type, hint))
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            return {"type": "object"}
        if inspect.isclass(origin) and issubclass(origin, Collection):
            same = inner and (len(inner) == 1 or inner[1] is ... or len(set(inner)) == 1)
            return {"type": "array", **({"items": self._type(inner[0])} if same else {})}
        return {}


def _hints(of: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(of)
    except (NameError, TypeError):  # names for type checkers alone
        return {}
