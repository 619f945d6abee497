"""Forbidden things in a learner's source."""

import pytest

from grader.source import scan
from grader.submission import parse

FORBID = ("softmax", "log_softmax", "logsumexp")


def names(source, forbid=FORBID):
    text = f"import torch, math\nimport numpy as np\nimport torch.nn.functional as F\nfrom torch import nn\n{source}"
    return [use.name for use in scan(parse(text.encode(), "a.py").program("f"), forbid)]


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
    ],
)
def test_honest_code_is_left_alone(source):
    assert names(source) == []


def test_the_place_is_named():
    found = scan(parse(b"import torch\ndef f(x):\n    return torch.softmax(x, -1)\n", "a.py").program("f"), FORBID)
    assert (found[0].name, found[0].cell, found[0].line) == ("torch.softmax", "<cell a.py>", 3)
