"""Plain data as bytes: what goes in comes out, what is hostile is refused."""

import math
import time

import pytest
import torch

from grader import trees, wire


def test_values_survive():
    value = {"a": [1, 2.5, True, None, "text", (1, 2)], 3: {"b": -(2**70)}, "d": torch.bfloat16, "o": trees.Opaque("x")}
    assert wire.unpack(wire.pack(value)) == value


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers_survive(number):
    assert repr(wire.unpack(wire.pack(number))) == repr(number)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).t(),
        torch.randn(1, 4).expand(3, 4),
        torch.randn(5, 9)[1:, 1::2],
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.zeros(0, 3),
        torch.tensor(1.5),
        torch.randn(4).to(torch.bfloat16),
        torch.tensor([True, False]),
        torch.randn(3).requires_grad_(),
    ],
    ids=[
        "plain",
        "transposed",
        "expanded",
        "strided",
        "channels_last",
        "empty",
        "scalar",
        "bfloat16",
        "bool",
        "leaf",
    ],
)
def test_tensors_keep_values_strides_and_flags(tensor):
    found = wire.unpack(wire.pack(tensor))
    assert torch.equal(found, tensor)
    assert found.dtype == tensor.dtype
    assert found.requires_grad == tensor.requires_grad
    assert tensor.numel() == 0 or found.stride() == tensor.stride()


def test_one_tensor_twice_stays_one_tensor():
    tensor = torch.randn(2)
    a, b, c = wire.unpack(wire.pack([tensor, tensor, tensor.clone()]))
    assert a is b
    assert a is not c


def test_generators_keep_their_state():
    generator = torch.Generator().manual_seed(7)
    torch.rand(3, generator=generator)
    found = wire.unpack(wire.pack(generator))
    assert torch.equal(torch.rand(5, generator=found), torch.rand(5, generator=generator))


def test_many_generators_and_tensors_are_kept_apart():
    value = [item for n in range(40) for item in (torch.Generator().manual_seed(n), torch.full((5056,), n % 7).byte())]
    found = wire.unpack(wire.pack(value))
    for a, b in zip(value, found, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else torch.equal(a.get_state(), b.get_state())


def test_an_object_is_refused():
    with pytest.raises(wire.WireError, match="not plain data"):
        wire.pack({"f": print})


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_deep_nesting_is_refused():
    with pytest.raises(wire.WireError, match="nested"):
        wire.pack(nested(100))


GOOD = wire.pack({"x": torch.randn(3), "n": 1})


def with_skeleton(text):
    return len(text).to_bytes(8, "big") + text + GOOD[8 + int.from_bytes(GOOD[:8], "big") :]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 30,
        GOOD[:40],
        GOOD[:-2],
        GOOD + b"more",
        with_skeleton(b"not json"),
        with_skeleton(b'{"T": 5, "g": false}'),
        with_skeleton(b'{"same": 3}'),
        with_skeleton(b'{"unknown": 3}'),
        with_skeleton(b'{"dtype": "nn"}'),
        with_skeleton(b'{"T": 0, "g": false, "size": [100], "stride": [1]}'),
        with_skeleton(b'{"T": 0, "g": false, "size": [2], "stride": [-1]}'),
        with_skeleton(b"[" * 100_000 + b"]" * 100_000),
        with_skeleton(b'{"l":[' * 900 + b"1" + b"]}" * 900),
    ],
    ids=[f"frame {number}" for number in range(15)],
)
def test_hostile_frames_are_refused(frame):
    with pytest.raises(wire.WireError):
        wire.unpack(frame)


def test_leaves_have_readable_paths():
    found = dict(trees.leaves({"a": [1, (2,)]}))
    assert found == {"result['a'][0]": 1, "result['a'][1][0]": 2}


def test_fresh_copies_share_nothing():
    tensor = torch.randn(2, 3).t()
    copied = trees.fresh([tensor, tensor])
    assert copied[0] is copied[1]
    assert copied[0].stride() == tensor.stride()
    copied[0].zero_()
    assert not torch.equal(copied[0], tensor)


def test_a_reply_of_a_million_parts_is_refused_before_it_is_built():
    skeleton = b'{"l":[' + b",".join([b'{"l":[]}'] * 1_000_000) + b"]}"
    with pytest.raises(wire.WireError, match="too many parts"):
        wire.unpack(len(skeleton).to_bytes(8, "big") + skeleton + wire.pack(None)[12:])


def test_a_reply_of_words_only_is_refused():
    skeleton = b'"' + b"x" * (wire.MAX_SKELETON + 1) + b'"'
    with pytest.raises(wire.WireError, match="all words"):
        wire.unpack(len(skeleton).to_bytes(8, "big") + skeleton)


def test_more_tensors_than_anybody_compares_are_refused_before_they_are_made():
    facts = ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(300_000))
    header = f"{{{facts}}}".encode()
    start = time.process_time()
    with pytest.raises(wire.WireError, match="too many tensors"):
        wire.unpack((4).to_bytes(8, "big") + b"null" + len(header).to_bytes(8, "little") + header)
    assert time.process_time() - start < 1  # making them takes 4 s and 400 MB
    with pytest.raises(wire.WireError, match="too many tensors"):
        wire.pack([torch.zeros(())] * 3 + [torch.zeros(()) for _ in range(20_000)])


def test_a_number_without_end_is_refused():
    with pytest.raises(wire.WireError):
        wire.unpack(wire.pack(1 << 5000))
