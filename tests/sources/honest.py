# Each block is honest: the scan has to leave it alone.

# --- tuple of names
class f(nn.Module):
    def g(self):
        return [getattr(self, n) for n in NAMES]
NAMES = ('a', 'b')

# --- list of names
NAMES = ['w', 'b']
class f(nn.Module):
    def g(self):
        for n in NAMES:
            setattr(self, n, 1)
        return [getattr(self, n) for n in NAMES]

# --- items
class f(nn.Module):
    def __init__(self):
        sizes = {'q': 1, 'k': 2}
        for name, size in sizes.items():
            setattr(self, name, nn.Linear(size, size))
            print(getattr(self, name))

# --- enumerate
def f(x):
    return [getattr(x, n)() for i, n in enumerate(('exp', 'log'))]

# --- zip
def f(x):
    return [getattr(x, n)(d) for n, d in zip(['sum', 'mean'], (0, 1))]

# --- choice
def f(x, largest=True):
    kind = 'amax' if largest else 'amin'
    return getattr(x, kind)(-1)

# --- helper with a name
def act(name):
    return getattr(F, name)
def f(x):
    return act('relu')(x) + act(name='gelu')(x)

# --- dunder reading
def f(x):
    print(x.__class__.__name__, getattr(f, '__doc__'))
    return x

# --- ctx
class S(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim):
        ctx.dim = dim
        ctx.mean = x.mean()
        return x
def f(x):
    return S.apply(x, 0)

# --- own object
class Stats:
    pass
def f(x):
    s = Stats()
    s.mean = x.mean()
    s.sum = 0
    s.sum += x.sum()
    return s.mean

# --- layer
def f(x):
    layer = nn.Linear(2, 2)
    layer.weight.data = x
    layer.bias = None
    layer.weight.grad = None
    layer.training = False
    return layer(x)

# --- namespace
from types import SimpleNamespace
def f(x):
    c = SimpleNamespace(dim=1)
    c.dim = 2
    return x.sum(c.dim)

# --- function attribute
def f(x):
    f.calls += 1
    f.sum = 3
    return x
f.calls = 0

# --- frozen
from dataclasses import dataclass
@dataclass(frozen=True)
class P:
    n: int
    def __post_init__(self):
        object.__setattr__(self, 'n', int(self.n))
def f(x):
    return P(1).n * x

# --- module setattr
class f(nn.Module):
    def __setattr__(self, k, v):
        super().__setattr__(k, v)
    def __getattr__(self, k):
        return super().__getattr__(k)

# --- wraps by hand
def deco(g):
    def inner(*a):
        return g(*a)
    inner.__name__ = g.__name__
    inner.__doc__ = g.__doc__
    return inner
@deco
def f(x):
    return x

# --- string hints
from typing import Optional
def f(x: 'torch.Tensor', d: 'Optional[int]' = None) -> 'torch.Tensor':
    return x

# --- literal hint
from typing import Literal
def f(x, how: Literal['sum', 'eval', 'open'] = 'sum'):
    return x

# --- own open
def open(x):
    return x
def f(x):
    return open(x)

# --- locals
def f(x):
    y = x + 1
    print(sorted(locals()))
    return y

# --- vars
class A:
    pass
def f(x):
    a = A()
    a.n = 1
    return x * vars(a)['n']

# --- np
def f(x):
    return x / np.sqrt(x.shape[-1]) * np.pi

# --- np dtype
def f(x: 'np.ndarray | torch.Tensor'):
    return torch.as_tensor(x)

# --- stderr
import sys
def f(x):
    print(x.shape, file=sys.stderr)
    return x

# --- float info
import sys
def f(x):
    return x + sys.float_info.epsilon

# --- plot
import matplotlib.pyplot as plt
def f(x):
    fig, ax = plt.subplots()
    ax.plot(x)
    plt.show()
    return x

# --- display
from IPython.display import clear_output, display
def f(x):
    display(1)
    return x

# --- alias in function
def f(x):
    F2 = torch.nn.functional
    return F2.relu(x)

# --- checkpoint
from torch.utils.checkpoint import checkpoint
def f(x):
    return checkpoint(torch.exp, x)

# --- dataloader
from torch.utils.data import DataLoader, TensorDataset
def f(x):
    return next(iter(DataLoader(TensorDataset(x))))[0]

# --- rnn utils
from torch.nn.utils.rnn import pad_sequence
import torch.nn.utils as U
def f(x):
    U.clip_grad_norm_([x], 1.0)
    return pad_sequence(x)

# --- init
from torch.nn import init
def f(x):
    fan, _ = init._calculate_fan_in_and_fan_out(x)
    torch._assert(fan > 0, 'no')
    return nn.init.xavier_uniform_(x)

# --- star
from math import *
def f(x):
    return x * sqrt(2) * pi

# --- none
def f(x):
    assert torch is not None
    return x

# --- pattern
def f(x):
    match x.ndim:
        case int(n) if n > 1:
            return x
        case _:
            return -x

# --- dataclass pattern
from dataclasses import dataclass
@dataclass
class P:
    n: int
def f(x):
    match P(1):
        case P(n=n):
            return x * n

# --- functools
import functools
@functools.singledispatch
def size(v): raise TypeError
@size.register
def _(v: torch.Tensor): return v.numel()
def f(x):
    return size(x)

# --- cudnn
torch.backends.cudnn.deterministic = True
torch.backends.cuda.matmul.allow_tf32 = False
def f(x):
    return x

# --- distributions
from torch.distributions import Normal
import torch.distributions as D
def f(x):
    return D.Categorical(logits=x).sample() + Normal(0, 1).sample()

# --- versions
def f(x):
    print(torch.__version__, torch.version.cuda, torch.__name__)
    return x

# --- old format
class f(nn.Module):
    def g(self, i):
        return getattr(self, 'conv%d' % i) + getattr(self, 'b{}'.format(i))

# --- lazy typo
def f(x):
    return torch.sotfmx(x)

# --- collections.abc
import collections.abc
def f(x):
    return isinstance(x, collections.abc.Sequence)

# --- logging
import logging
logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)
def f(x):
    logger.info('x')
    return x

# --- pair
def f(x):
    a, b = x.chunk(2)
    nn2, k = nn, 3
    return nn2.functional.relu(a) * k + b

# --- super init
class B(nn.Module):
    def __init__(self):
        nn.Module.__init__(self)
class f(B):
    def __init__(self):
        super(f, self).__init__()
        B.__init__(self)

# --- type of
def f(x):
    return type(x)(x) if type(x) is torch.Tensor else x

# --- gelu method
class f(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu, self.norm, self.type = nn.ReLU(), nn.LayerNorm(2), 'a'

# --- cls
class A:
    @classmethod
    def make(cls):
        cls.count = 1
        return cls()
def f(x):
    return A.make() and x

# --- nested comprehension
def f(x):
    return [[copy for copy in row] for row in x for vars in row]

# --- helpers named like modules
def inspect(t):
    print(t.shape)
def os(n, k):
    return n - k + 1
def f(x):
    inspect(x)
    return os(x.shape[0], 2)

# --- own eval
def eval(t):
    return t.detach()
def f(x):
    return eval(x)

# --- modules in one line
nn, F = torch.nn, torch.nn.functional
def f(x):
    return F.relu(nn.Linear(2, 2)(x))

# --- printing and timing
import logging, sys, timeit, types
from pprint import pprint
def f(x):
    start = timeit.default_timer()
    pprint(types.SimpleNamespace(shape=x.shape, version=sys.version_info >= (3, 8)))
    logging.debug("%s s", timeit.default_timer() - start)
    return x

# --- options of a dataclass
from dataclasses import dataclass
@dataclass
class Options:
    a: int = 1
def f(x):
    print(vars(Options()), {**vars(Options())})
    return x

# --- types by name
def dtype_of(name):
    return getattr(torch, name)
HALF = [dtype_of(n) for n in ("float16", "bfloat16")]
def f(x):
    return x.dtype in HALF

# --- numbers of a shape
def f(x: np.ndarray | torch.Tensor):
    return x / np.prod(x.shape)
