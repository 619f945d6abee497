"""What a learner's source may name, and what it may not: data only."""

from __future__ import annotations

ALLOWED_IMPORTS = frozenset(
    "torch math cmath typing typing_extensions collections itertools functools dataclasses operator string re random "
    "statistics heapq bisect copy enum abc numbers fractions decimal contextlib warnings time textwrap einops "
    "jaxtyping __future__".split()
)
"""Packages of which everything may be used but private names and what is not their own."""

PUBLIC = {
    "numpy": "ndarray prod sqrt ceil floor pi inf nan e number integer floating float32 float64 int32 int64 bool_",
    "sys": "version version_info platform maxsize float_info byteorder stdout stderr",
    "types": "SimpleNamespace MappingProxyType NoneType",
    "logging": "getLogger basicConfig debug info warning error critical exception log Logger NOTSET DEBUG INFO "
    "WARNING ERROR CRITICAL",
    "timeit": "default_timer",
    "pprint": "pprint pformat pp",
    "matplotlib": "pyplot",
    "matplotlib.pyplot": "figure subplots subplot subplots_adjust plot scatter bar barh hist hist2d imshow matshow "
    "contour contourf pcolormesh errorbar fill_between step stem boxplot violinplot axhline axvline axhspan axvspan "
    "hlines vlines quiver text annotate arrow title suptitle xlabel ylabel xlim ylim xticks yticks xscale yscale "
    "semilogx semilogy loglog tick_params legend grid colorbar clim axis axes gca gcf sca twinx tight_layout margins "
    "show draw pause close cla clf savefig rcParams Figure Axes",
    "IPython": "display get_ipython",
    "IPython.display": "display clear_output Markdown HTML Latex Math Image Pretty",
}
"""Modules of which nothing but these names may be used: with the rest files are read, or programs are run."""

TORCH_MODULES = (
    "nn", "optim", "autograd", "func", "linalg", "fft", "special", "distributions", "random", "amp", "types", "version",
    "testing", "backends", "cuda", "cpu", "mps", "xpu", "accelerator", "profiler", "sparse", "nested", "masked",
    "signal", "quasirandom", "return_types", "functional", "utils.data", "utils.checkpoint",
)  # fmt: skip
"""Modules of torch that tensor code uses, with all that is below them."""

FORBIDDEN_CALLS = frozenset(
    "exec eval compile __import__ __build_class__ globals locals vars open breakpoint input".split()
)
"""Built-in functions that tensor code has no use for; a learner's own may be called so."""

ONLY_CALLED = frozenset(["getattr", "setattr", "delattr"])
"""Built-in functions that must be seen where they are called: which name they are given matters."""

SYSTEM = frozenset(
    "sys os builtins importlib threading _thread inspect gc ctypes subprocess multiprocessing concurrent pickle "
    "attrgetter methodcaller get_type_hints evaluate_forward_ref ForwardRef Formatter get_field make_dataclass".split()
)
"""Ways out of tensor code, under whatever module they are found."""

FORBIDDEN_TORCH = frozenset(
    "ops jit compile library _refs _prims _inductor _dynamo _C _VF cpp_extension load_inline multiprocessing "
    "DisableTorchFunction DisableTorchFunctionSubclass hub fx export overrides _python_dispatch load save parallel "
    "DataParallel DistributedDataParallel".split()
)

HELPERS = frozenset(
    "_single _pair _triple _quadruple _ntuple _reverse_repeat_tuple _size_1_t _size_2_t _size_3_t _assert "
    "_calculate_fan_in_and_fan_out _calculate_correct_fan _Loss _WeightedLoss _LRScheduler".split()
)
"""Private names of torch that honest layers use."""

FRAME_NAMES = frozenset(
    "__globals__ __code__ __closure__ __subclasses__ __builtins__ __loader__ __spec__ __self__ __traceback__ __get__ "
    "__annotations__ __annotate__ __match_args__ __import__ f_back f_globals f_locals f_builtins f_code gi_frame "
    "gi_code gi_yieldfrom cr_frame cr_code cr_await cr_origin ag_frame ag_code ag_await tb_frame tb_next "
    "__torch_dispatch__ __torch_function__ __getattribute__".split()
)
"""Attributes that lead to frames, code or modules, or stand between torch and its functions."""

OF_A_MODULE = frozenset(["__version__", "__name__"])
"""What may be asked of a module itself."""

NAMING = frozenset(["__name__", "__qualname__", "__doc__", "__wrapped__", "__module__"])
"""What a decorator copies to the function it returns."""

TYPES = frozenset(["Tensor", "Size", "dtype", "device"])
"""Types of torch that are asked for (`isinstance(x, torch.Tensor)`), whatever an exercise forbids."""

MATCHED_WHOLE = ("bool", "bytes", "dict", "float", "int", "list", "set", "str", "tuple")
"""Types that a pattern by position takes as a whole: of others it reads attributes that it does not name."""
