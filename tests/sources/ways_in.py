# Each block reaches modules, frames or other names in its own way: the scan has to find it.

# --- class keeps a module
class A:
    t = torch
def f(x):
    return A.t._C

# --- class imports
class A:
    import sys as s
def f(x):
    return A.s.modules

# --- print self
def f(x):
    return print.__self__.eval('1')

# --- walrus in a comprehension
m = [[torch][0]._C for _ in (0,) if 1 or (torch := 1)]
def f(x):
    return m

# --- nonlocal
def f(x):
    t = 0
    def g():
        nonlocal t
        t = torch
    g()
    return [t][0].hub

# --- two targets
def f(x):
    both = a, b = torch, nn
    return both[0].hub

# --- inner alias
def f(x):
    t = 0
    def g():
        t = torch
        return [t][0]
    return g().hub

# --- default lambda
def f(x, g=lambda torch: 0):
    return [torch][0].hub

# --- star modules
from torch.nn.functional import *
def f(x):
    return importlib.import_module('torch._C')

# --- star unknown
from os import *
def f(x):
    return system('ls')

# --- late def
def g():
    return eval('1')
X = g()
def eval(t):
    return t
def f(x):
    return X

# --- except unbinds
def eval(t):
    return t
try:
    1 / 0
except Exception as eval:
    pass
def f(x):
    return eval('1')

# --- deleted
def eval(t):
    return t
del eval
def f(x):
    return eval('1')

# --- if def
if 0:
    def eval(t):
        return t
def f(x):
    return eval('1')

# --- class body name
def f(x):
    class A:
        eval = 1
    return eval('1')

# --- string annotation
import functools
@functools.singledispatch
def g(x): pass
@g.register
def h(x: "[].append(__import__('torch')._C) or int"): pass
def f(x):
    return g(x)

# --- nested annotation
from typing import Optional
def f(x: Optional["'eval(1)'"]):
    return x

# --- chr
u = chr(95) * 2
def f(x):
    return getattr(f, u + 'globals' + u)

# --- suffix
def f(x, a='__glob'):
    return getattr(f, a + 'als__')

# --- evil radd
class E:
    def __radd__(self, o):
        return chr(95) * 2 + 'globals' + chr(95) * 2
def f(x):
    return getattr(f, 'w' + E())

# --- own str
def str(x):
    return E()
def f(x):
    return getattr(f, 'w' + str(3))

# --- own zip
def zip(a):
    return [(chr(95) * 2 + 'globals' + chr(95) * 2,)]
def f(x):
    for (n,) in zip(('a',)):
        return getattr(f, n)

# --- grown list
NAMES = ['a']
NAMES.append(chr(95) * 2 + 'globals' + chr(95) * 2)
def f(x):
    return [getattr(f, n) for n in NAMES]

# --- helper by value
def g(o, n):
    return getattr(o, n)
h = g
def f(x):
    return h(f, chr(95) * 2 + 'globals' + chr(95) * 2) or g(f, 'a')

# --- helper by star
def g(o, n):
    return getattr(o, n)
def f(x):
    return g(*[f, chr(95) * 2 + 'globals' + chr(95) * 2])

# --- method name
class A:
    if 1:
        def g(self, o, n):
            return getattr(o, n)
def f(x):
    return A().g(f, chr(95) * 2 + 'globals' + chr(95) * 2)

# --- grown parameter
def g(o, n):
    n += x
    return getattr(o, n)
def f(x):
    return g(f, 'a')

# --- format
def f(x):
    return getattr(f, '%(a)s' % {'a': chr(95) * 2 + 'globals' + chr(95) * 2})

# --- f prefix
def f(x):
    return getattr(f, f'__{x}')

# --- gi
def f(x):
    return (0 for _ in x).gi_code.replace(co_names=('eval',))

# --- await
async def g(): pass
def f(x):
    return g().cr_code

# --- positional pattern
class M:
    pass
def f(x):
    match f:
        case M(g):
            return g

# --- match args
class M:
    __match_args__ = ('a',)
def f(x):
    return x

# --- make dataclass
import dataclasses
def f(x):
    return dataclasses.make_dataclass('M', ['a'])

# --- three arguments
def f(x):
    return type('M', (), {chr(95): 1})

# --- bound get
def f(x):
    return vars(type(f))[chr(95) * 2 + 'globals' + chr(95) * 2].__get__(f)

# --- vars of all
V = vars()
def f(x):
    return V

# --- vars as value
def f(x):
    return [v() for v in (vars,)]

# --- locals with an alias
def f(x):
    t = torch
    return locals()['t']

# --- locals in a comprehension
G = [locals() for _ in (0,)]
def f(x):
    return G

# --- torch.load
class R:
    def read(self, n): return b''
def f(x):
    return torch.load(R(), weights_only=False)

# --- numpy load
def f(x):
    return np.load(x)

# --- numpy from dlpack
def f(x):
    return np.from_dlpack(x)

# --- plt backend
import matplotlib.pyplot as plt
def f(x):
    return plt.switch_backend('module://torch._C')

# --- sys modules
import sys
def f(x):
    return sys.modules

# --- from sys
from sys import modules
def f(x):
    return modules

# --- types
import types
def f(x):
    return types.FunctionType

# --- timeit
import timeit
def f(x):
    return timeit.timeit('1')

# --- pyplot np
import matplotlib.pyplot as plt
def f(x):
    return plt.np.exp(x)

# --- functional np
def f(x):
    return F.np.exp(x)

# --- typing
import typing
def f(x):
    return typing.stdlib_re, typing.contextlib

# --- patch type
T = type(torch.zeros(1))
T.detach = 1
def f(x):
    return x

# --- patch by setattr
setattr(type(torch.zeros(1)), 'detach', 1)
def f(x):
    return x

# --- patch by type
def f(x):
    type.__setattr__(type(x), 'detach', 1)
    return x

# --- patch by parameter
def g(T):
    T.detach = 1
def f(x):
    g(type(x))
    return x

# --- patch in a loop
for T in (type(torch.zeros(1)),):
    T.exp = 1
def f(x):
    return x

# --- patch self
class A:
    def g(self, x):
        self = type(x)
        self.detach = 1
def f(x):
    A().g(x)
    return x

# --- delete
T = type(torch.zeros(1))
del T.detach
def f(x):
    return x

# --- delattr
def f(x):
    delattr(type(x), 'detach')
    return x

# --- map setattr
def f(x):
    return list(map(setattr, [type(x)], ['detach'], [1]))

# --- class of
def f(x):
    x.__class__ = g
    return x

# --- own hasattr
def hasattr(m, n):
    return m
def f(x):
    return hasattr(torch, 'a').hub

# --- getattr module
def f(x):
    return getattr(torch, 'hub')

# --- getattr private
def f(x):
    return [getattr(torch, n) for n in ('_C', 'exp')]

# --- getattr forbidden
def f(x):
    return getattr(torch, 'softmax')(x, -1)

# --- onnx
def f(x):
    return torch.onnx

# --- package
import torch.package
def f(x):
    return torch.package.sys_importer

# --- benchmark
import torch.utils.benchmark as b
def f(x):
    return b.Timer('1')

# --- from benchmark
from torch.utils.benchmark import Timer
def f(x):
    return Timer('1')

# --- enum
from enum import bltns
def f(x):
    return bltns.eval

# --- annotations
def f(x):
    f.__annotations__ = {'x': '1'}
    return x

# --- F subscripted
def f(x):
    return {0: F}[0].softmax(x)

# --- builtins
def f(x):
    return __builtins__['eval']

# --- loader
def f(x):
    return __loader__

# --- parallel
def f(x):
    return nn.parallel.parallel_apply([f], [(x,)])

# --- patch an input
def f(x):
    x.exp = 1
    return x

# --- locals of the program
G = locals()
def f(x):
    return G["torch"]

# --- class binds torch
def f(x):
    class A:
        torch = 1
    return [torch][0].hub

# --- builtins of enum
import enum
def f(x):
    return enum.bltns.eval("1")

# --- pickle of torch
def f(x):
    return torch.serialization.pickle.loads(x)

# --- asked of torch itself
def f(x):
    return torch.__getattr__("onnx")

# --- parameter called vars
def helper(vars):
    return vars
G = vars()
def f(x):
    return helper(G)

# --- other modules of IPython
import IPython
def f(x):
    return IPython.utils.importstring.import_item("torch._C")

# --- a module of another package
import collections
def f(x):
    return collections.abc.sys

# --- annotation before the own eval
import functools
@functools.singledispatch
def g(x): pass
@g.register
def h(x: "eval('1')"): pass
def eval(t):
    return t
def f(x):
    return g(eval(x))
