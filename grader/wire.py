"""Plain data as bytes: a JSON skeleton and a safetensors blob. Never pickle.

Reading refuses whatever is damaged, too deep or too large with `WireError`. What plain data is: see `grader.trees`.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from grader.trees import Opaque, dense_base
from grader.untouched import clone, contiguous, detach

MAX_DEPTH = 40
MAX_NODES = 200_000
MAX_SKELETON = 16 * 2**20
MAX_HEADER = 2**20
"""Bytes that describe the tensors: some ten thousand of them."""
MAX_DIGITS = 300
SCALARS = (bool, int, float, str)


class WireError(ValueError):
    """The bytes, or the value, are not plain data."""


class _Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.seen: dict[int, int] = {}
        self.alive: list[Tensor] = []
        self.nodes = 0

    def node(self, value: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise WireError("the value is nested too deeply or has too many parts")
        if value is None:
            return None
        if type(value) in SCALARS:
            return self.number(value)
        if isinstance(value, Tensor):
            return self.tensor(value)
        if isinstance(value, (list, tuple)):
            kind = "l" if isinstance(value, list) else "t"
            return {kind: [self.node(item, depth + 1) for item in value]}
        if isinstance(value, dict):
            return {"d": [[self.node(k, depth + 1), self.node(v, depth + 1)] for k, v in value.items()]}
        return self.special(value)

    @staticmethod
    def number(value: Any) -> Any:
        if type(value) is float and not math.isfinite(value):
            return {"f": repr(value)}
        if type(value) is int and abs(value) >= 2**53:
            return {"i": hex(value)}
        return value

    def special(self, value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, torch.Generator):
            return {"generator": self.tensor(value.get_state())}
        if isinstance(value, Opaque):
            return {"opaque": value.kind}
        raise WireError(f"{type(value).__name__} is not plain data")

    def tensor(self, value: Tensor) -> Any:
        if id(value) in self.seen:
            return {"same": self.seen[id(value)]}
        index = self.seen[id(value)] = len(self.seen)
        self.alive.append(value)  # an id is a tensor's own only as long as the tensor lives
        source = detach(value)
        spec: dict[str, Any] = {"T": index, "g": value.requires_grad}
        if not source.is_contiguous():
            spec |= {"size": list(source.shape), "stride": list(source.stride())}
            source = dense_base(source)
        self.tensors[str(index)] = clone(contiguous(source))
        return spec


def bounded(blob: bytes) -> bytes:
    """Return a blob whose tensors are so few that reading them takes no time; raises `WireError` for others."""
    if int.from_bytes(blob[:8], "little") > MAX_HEADER:
        raise WireError("too many tensors")
    return blob


def pack(value: Any) -> bytes:
    """Turn plain data into bytes; raises `WireError` for anything else."""
    writer = _Writer()
    skeleton = json.dumps(writer.node(value), allow_nan=False, separators=(",", ":")).encode()
    blob = bounded(save(writer.tensors))
    return len(skeleton).to_bytes(8, "big") + skeleton + blob


class _Reader:
    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.made: dict[int, Tensor] = {}
        self.nodes = 0

    def value(self, node: Any, depth: int = 0) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise WireError("nested too deeply, or of too many parts")
        if node is None or type(node) in SCALARS:
            return node
        if not isinstance(node, dict) or not node:
            raise WireError("unknown node")
        if "T" in node:
            return self.tensor(node)
        kind, content = next(iter(node.items()))
        if kind in ("l", "t"):
            items = [self.value(item, depth + 1) for item in content]
            return items if kind == "l" else tuple(items)
        if kind == "d":
            return {self.value(k, depth + 1): self.value(v, depth + 1) for k, v in content}
        return self.special(kind, content)

    def special(self, kind: str, content: Any) -> Any:
        if kind == "f" and content in ("nan", "inf", "-inf"):
            return float(content)
        if kind == "i" and len(content) < MAX_DIGITS:
            return int(content, 16)
        if kind == "same":
            return self.made[content]
        if kind == "dtype" and isinstance(found := getattr(torch, content, None), torch.dtype):
            return found
        if kind == "device":
            return torch.device(content)
        if kind == "opaque" and isinstance(content, str):
            return Opaque(content[:200])
        if kind == "generator":
            generator = torch.Generator()
            generator.set_state(self.tensor(content))
            return generator
        raise WireError("unknown node")

    def tensor(self, spec: dict[str, Any]) -> Tensor:
        found = self.tensors[str(spec["T"])]
        if "size" in spec:
            size, stride = spec["size"], spec["stride"]
            extent = 0 if 0 in size else 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
            if extent > found.numel() or min([*size, *stride], default=0) < 0:
                raise WireError("a tensor reaches beyond its storage")
            found = found.as_strided(size, stride)
        found.requires_grad_(bool(spec["g"]))
        self.made[spec["T"]] = found
        return found


def unpack(frame: bytes) -> Any:
    """Turn bytes back into plain data; raises `WireError` for damaged ones, whatever is wrong with them."""
    try:
        length = int.from_bytes(frame[:8], "big")
        if length > min(len(frame) - 8, MAX_SKELETON):
            raise WireError("the reply is shorter than it says, or all words")
        skeleton = json.loads(frame[8 : 8 + length])
        return _Reader(load(bounded(frame[8 + length :]))).value(skeleton)
    except WireError:
        raise
    except Exception as error:  # hostile bytes may fail anywhere inside; the cause is only of interest as text
        raise WireError(f"the reply could not be read ({type(error).__name__})") from None
