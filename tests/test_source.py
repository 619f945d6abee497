"""Forbidden things in a learner's source."""

import json
import time
from pathlib import Path

import pytest
import torch

from grader.render.messages import sentence
from grader.slicing import Program
from grader.source import scan
from grader.submission import parse
from grader.verdict import Finding

assert torch  # it is loaded wherever sources are scanned
FORBID = ("softmax", "log_softmax", "logsumexp")


def names(source, forbid=FORBID):
    text = f"import torch, math\nimport numpy as np\nimport torch.nn.functional as F\nfrom torch import nn\n{source}"
    return [use.name for use in scan(parse(text.encode(), "a.py").program("f"), forbid)]


def all_names(source):
    """Scan a whole source, not the slice of it that an answer needs."""
    head = "import torch, math\nimport numpy as np\nimport torch.nn.functional as F\nfrom torch import nn\n"
    return [use.name for use in scan(Program("f", (("<cell a>", head + source),)), FORBID)]


@pytest.mark.parametrize(
    "body",
    [
        "return torch.softmax(x, -1)",
        "return F.softmax(x, -1)",
        "return nn.Softmax(-1)(x)",
        "return nn.functional.log_softmax(x, -1).exp()",
        "return torch.nn.functional.softmax(x, -1)",
        "return torch.special.softmax(x, -1)",
        "return torch.ops.aten._softmax(x, -1, False)",
        "return torch._refs.softmax(x, -1)",
        "return torch._C._nn.log_softmax(x)",
        "return getattr(torch, 'soft' + 'max')(x, -1)",
        "return getattr(torch, chr(115) + 'oftmax')(x, -1)",
        "return eval('torch.soft' + 'max')(x, -1)",
        "exec('y = 1')",
        "return torch.tensor(np.exp(x.numpy()))",
        "import scipy.special\n    return scipy.special.softmax(x)",
        "import gc\n    return gc.get_objects()",
        "import sys\n    return sys._getframe(1).f_locals",
        "import threading\n    return threading.Thread",
        "import ctypes\n    return ctypes.CDLL",
        "import inspect\n    return inspect.stack()",
        "from torch.nn.functional import softmax\n    return softmax(x, -1)",
        "import torch._inductor as t\n    return t",
        "return torch.compile(lambda y: y)(x)",
        "return torch.jit.script(lambda y: y)(x)",
        "return f.__globals__['torch']",
        "return globals()['torch']",
        "return getattr(x, 'f_back')",
        "return open('/etc/passwd').read()",
        "return __import__('torch').softmax(x, -1)",
        "return torch.sys.modules",
        "return torch.serialization.os.getcwd()",
        "return torch.serialization.threading.Thread",
        "from contextlib import sys as s\n    return s",
        "import operator\n    return operator.attrgetter('sys.modules')(torch)",
        "match torch:\n        case object(sys=s): return s",
        "match x:\n        case object(gi_frame=g): return g",
        "e = eval\n    return e('1')",
        "g = getattr\n    return g(x, 'a')",
        "n = '__globals__'\n    return getattr(f, n)",
        "m = getattr(torch, 'serialization')\n    return m.sys",
        "import typing\n    return typing.sys",
        "return [torch][0].sys",
        "import collections\n    return collections._sys.modules",
        "import typing\n    return typing.get_type_hints(f)",
        "import string\n    return string.Formatter().get_field('0', (f,), {})",
        "t = torch\n    m = [t][0]\n    return m._C",
        "y = [0 for torch in ()]\n    m = [torch][0]\n    return m",
        "return [m for torch in (torch,) for m in (torch,)]",
        "def g():\n        global torch\n        torch = torch\n        return [torch]\n    return g",
        "return getattr(x, '_' + '_globals_' + '_')",
        "n = '__glo' + 'bals__'\n    return getattr(f, n)",
        "return getattr(nn.Module.__call__, x.name)",
        "return getattr(object, x.name)",
        "word = 'softmax'\n    return getattr(F, word)",
        "word = x.word\n    return getattr(F, word)",
        "t = torch\n    return t._C",
        "n = torch.nn\n    m = n\n    return m.Softmax(-1)(x)",
        "return [m._C for m in (torch,)]",
        "def inner(m=torch): return m._C\n    return inner()",
        "return torch.__dict__['_C']",
        "torch.get_default_dtype = f",
        "setattr(torch, 'relu', f)",
        "import random\n    random.getstate = f",
        "return torch.overrides.wrap_torch_function(lambda *a: a)(f)",
        "class S(torch.Tensor):\n        def __torch_dispatch__(cls, *a): pass\n    return S",
        "return type('S', (torch.Tensor,), {'__torch_function__': f})",
    ],
)
def test_evasions_are_found(body):
    assert names(f"def f(x):\n    {body}")


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    w = (x - x.amax(-1, keepdim=True)).exp()\n    return w / w.sum(-1, keepdim=True)",
        "def softmax(x):\n    return x.exp()\ndef f(x):\n    return softmax(x)",
        "def f(x):\n    return math.exp(1) * F.pad(x, (1, 1))",
        "import functools\ndef f(x):\n    return functools.reduce(torch.add, [x, x])",
        "def plot(x):\n    return np.array(x)\ndef f(x):\n    return x.exp()",
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int\ndef f(x):\n    return x * P(2).n",
        "class f(nn.Module):\n    def __init__(self):\n        self.softmax = nn.Linear(2, 2)",
        "class f(nn.Module):\n    def forward(self, k):\n        return getattr(self, f'weight_l{k}')",
        "def f(x, name='exp'):\n    return getattr(x, 'exp')()",
        "def f(input, open=1):\n    input = input.exp()\n    return input + open",
        "class f(nn.Module):\n    def forward(self, k):\n        return [getattr(self, name) for name in ('w', 'b')]",
        "nn = torch.nn\nF = nn.functional\ndef f(x):\n    return F.relu(nn.Linear(2, 2)(x))",
        "torch.backends.cudnn.benchmark = False\ndef f(x):\n    torch.backends.cudnn.benchmark = False\n    return x",
        "import sys\ndef f(x):\n    return x",
        "class f(nn.Module):\n    def __init__(self):\n        self.gc = self.os = nn.Linear(2, 2)",
        "from torch.nn import init\ndef f(x):\n    init.zeros_(x)\n    return {'a': F.relu}['a'](x)",
        "from functools import partial\ndef f(x: torch.Tensor, act=F.relu) -> torch.Tensor:\n    return partial(act)",
        "import warnings\ndef f(x):\n    with warnings.catch_warnings():\n        return warnings.simplefilter('x')",
        "def f(x):\n    for module in (nn.ReLU(), nn.Linear(2, 2)):\n        x = module(x)\n    return getattr(x, 'T')",
        "class f(nn.Module):\n    def forward(self, i):\n        return getattr(self, 'w' + str(i) + 'b%d' % i)",
        "class f(nn.Module):\n    def forward(self, g):\n        return getattr(self, f'{g}_gate')(self.kind)",
        "def f(xs):\n    return [input + 1 for input in xs]",
        "def f(x):\n    vars, means = x.var(0), x.mean(0)\n    return vars + means",
        "import time, copy\ndef f(x):\n    copy = x.clone()\n    time = copy.shape[0]\n    return [copy, time]",
        "import torch as t\ndef f(x):\n    return t.stack([x[:, t] for t in range(3)])",
        "def f(x):\n    return x if hasattr(torch, 'exp') else -x",
        "from torch.nn.modules.utils import _pair\ndef f(x):\n    return _pair(x)",
        "def f(x):\n    x.requires_grad = True\n    x.grad = None\n    setattr(x, 'note', 1)\n    return x",
    ],
)
def test_honest_code_is_left_alone(source):
    assert names(source) == []


def blocks(name):
    """Return the blocks of a file of sources by their names."""
    text = (Path(__file__).parent / "sources" / name).read_text(encoding="utf-8")
    return dict(block.split("\n", 1) for block in text.split("# --- ")[1:])


WAYS_IN, HONEST_WAYS = blocks("ways_in.py"), blocks("honest.py")


@pytest.mark.parametrize("source", WAYS_IN.values(), ids=WAYS_IN)
def test_ways_to_modules_frames_and_other_names_are_found(source):
    assert all_names(source)


@pytest.mark.parametrize("source", HONEST_WAYS.values(), ids=HONEST_WAYS)
def test_honest_ways_are_left_alone(source):
    assert all_names(source) == []


def test_the_place_is_named():
    found = scan(parse(b"import torch\ndef f(x):\n    return torch.softmax(x, -1)\n", "a.py").program("f"), FORBID)
    assert (found[0].name, found[0].cell, found[0].line) == ("torch.softmax", "<cell a.py>", 3)


@pytest.mark.parametrize(
    "cells",
    [
        ("import torch", "def f(x):\n    with torch._C.DisableTorchFunction(): return x"),
        ("import sys", "def f(x):\n    return sys.modules"),
        ("from torch import _C as c", "def f(x):\n    return c"),
        ("import torch\nt = torch", "def f(x):\n    return t._C"),
    ],
)
def test_an_import_in_another_cell_is_known(cells):
    notebook = json.dumps({"cells": [{"cell_type": "code", "source": cell, "metadata": {}} for cell in cells]})
    assert scan(parse(notebook.encode(), "a.ipynb").program("f"), FORBID)


@pytest.mark.parametrize(
    "body",
    ["\n".join(["    a = t"] * 12_000), "    return " + " + ".join(["'a'"] * 900), "    " + "t;" * 50_000,
     "    " + " = ".join([f"a{n}" for n in range(5_000)]) + " = x", "    return " + "lambda: " * 60 + "t",
     f"    def g({', '.join(f'a{n}' for n in range(9_000))}): pass\n    " + "g();" * 20_000,
     f"    for n in {tuple(f'b{n}' for n in range(50))}:\n        " + "getattr(x,n);" * 10_000],
)  # fmt: skip
def test_scanning_takes_no_longer_than_the_source_is_long(body):
    start = time.process_time()
    names(f"t = torch\ndef f(x):\n{body}")
    assert time.process_time() - start < 10  # quadratic scanning takes minutes


def test_a_type_may_be_asked_for_where_every_torch_function_is_forbidden():
    asked = "def f(x: torch.Tensor):\n    return isinstance(x, torch.Tensor) and torch.Size((1,)) != x.dtype"
    assert names(asked, ("any torch function",)) == []
    assert names("def f(x):\n    return torch.exp(x)", ("any torch function",)) == ["torch.exp"]


@pytest.mark.parametrize("function", ["grad", "jacfwd", "jacrev", "jvp", "vjp", "hessian"])
def test_autograd_is_forbidden_in_both_directions(function):
    assert names(f"def f(x):\n    return torch.func.{function}(torch.exp)(x)", ("autograd",))
    assert names(f"from torch.func import {function}\ndef f(x):\n    return {function}(torch.exp)(x)", ("autograd",))


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("def f(x, n='relu'):\n    return getattr(F, x.name)", "choose from a dictionary"),
        ("import pdb\ndef f(x):\n    pdb.set_trace()\n    return x", "take the debugging out"),
        ("from tqdm import tqdm\ndef f(x):\n    return [i for i in tqdm(x)]", "go through the range itself"),
        ("def f(x):\n    return np.exp(x)", "write it with torch"),
        ("def f(x):\n    return open('x').read()", "reads and writes no files"),
        ("def f(x):\n    return [torch]", "nn = torch.nn"),
        ("def f(x):\n    x.mean = 1", "take another name"),
    ],
)
def test_it_is_said_what_to_write_instead(source, advice):
    facts = {"name": names(source)[0], "cell": "cell 1", "line": 2}
    assert advice in sentence(Finding("forbidden", "forbidden_source", facts=facts))
