"""Patch embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grader import Case, Cost, Exercise
from reference.transformer import FORBID


class PatchEmbedding(nn.Module):
    """Cut images into patches and map each one, flattened, to a vector: what a vision transformer calls tokens.

    Args:
        img_size: height and width of the images; an int means both. Pairs are always (height, width).
        patch_size: height and width of a patch; an int means both.
        in_channels: channels of the images.
        embed_dim: length of the vectors.

    State:
        proj.weight `(embed_dim, in_channels * patch height * patch width)`, proj.bias `(embed_dim,)`.

    Attributes:
        num_patches: the number of patches N of an image, an int.

    Raises:
        ValueError: the image's height or width is not a multiple of the patch's.

    Example:
        >>> layer = PatchEmbedding((2, 4), (1, 2), 1, 2)
        >>> layer.num_patches
        4
        >>> layer.load_state_dict({"proj.weight": torch.eye(2), "proj.bias": torch.zeros(2)})
        <All keys matched successfully>
        >>> layer(torch.arange(8.0).reshape(1, 1, 2, 4)).tolist()
        [[[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]]
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int],
        in_channels: int,
        embed_dim: int,
    ) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        ph, pw = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        if height % ph or width % pw:
            raise ValueError(f"an image of {height} x {width} cannot be cut into patches of {ph} x {pw}")
        self.image_shape = (in_channels, height, width)
        self.patch = (ph, pw)
        self.num_patches = (height // ph) * (width // pw)
        self.proj = nn.Linear(in_channels * ph * pw, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed the patches of a batch of images.

        Args:
            x: images `(B, in_channels, height, width)`, in any memory format; B may be 0.

        Returns:
            Tensor `(B, N, embed_dim)`. Patches are read like text: left to right, then downwards. Inside a patch
            the vector runs over (channel, row, column), the column fastest. No convolution and no unfold is used.

        Raises:
            ValueError: x does not have four axes, or not the channels, height and width that the constructor was told.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError(f"x must be (B, {self.image_shape}), got {tuple(x.shape)}")
        channels, height, width = self.image_shape
        ph, pw = self.patch
        grid = x.reshape(len(x), channels, height // ph, ph, width // pw, pw)
        return self.proj(grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))


exercise = Exercise(
    PatchEmbedding,
    points=5,
    gradients=("x", "parameters"),
    attributes=("num_patches",),
    cost=Cost(ops=8),
    forbid=(*FORBID, "conv*", "Conv*", "unfold", "Unfold", "fold", "Fold"),
    hints=(
        "Split the height into (patches down, rows of a patch) and the width likewise: six axes, nothing moved yet.",
        "Bring the axes into the order batch, patch row, patch column, channel, row, column; then flatten twice.",
        "self.proj(x.reshape(B, C, H // ph, ph, W // pw, pw).permute(0, 2, 4, 1, 3, 5).reshape(B, N, C * ph * pw)).",
    ),
    source="D2L attention-mechanisms-and-transformers/vision-transformer (patch embedding); Dosovitskiy et al. 2021",
)


@exercise.truth
class Truth(nn.Module):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.patch = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        self.num_patches = (height // self.patch[0]) * (width // self.patch[1])
        self.proj = nn.Linear(in_channels * self.patch[0] * self.patch[1], embed_dim)

    def forward(self, x):
        kernel = self.proj.weight.reshape(-1, x.shape[1], *self.patch)
        return F.conv2d(x, kernel, self.proj.bias, stride=self.patch).flatten(2).transpose(1, 2)


def _ramp(channels, height, width):
    return torch.arange(float(channels * height * width)).reshape(1, channels, height, width)


@exercise.cases
def cases(draw):
    yield Case("2 x 3 patches of 2 x 2", draw.normal(2, 3, 4, 6), init=((4, 6), 2, 3, 5))
    yield Case("rectangular patches", draw.normal(2, 3, 6, 8), init=((6, 8), (3, 2), 3, 4))
    eye = {"proj.weight": torch.eye(8), "proj.bias": torch.zeros(8)}
    yield Case("numbered pixels, embedded as they are", _ramp(2, 6, 4), init=((6, 4), (2, 2), 2, 8), state=eye)
    yield Case("sizes as single numbers", draw.normal(3, 2, 6, 6), init=(6, 3, 2, 4))
    yield Case("one patch as large as the image", draw.normal(2, 3, 4, 5), init=((4, 5), (4, 5), 3, 7), edge=True)
    yield Case("patches of one pixel", draw.normal(2, 3, 2, 4), init=((2, 4), 1, 3, 5), edge=True)
    yield Case("one channel", draw.normal(3, 1, 4, 6), init=((4, 6), (4, 3), 1, 5))
    channels_last = draw.normal(2, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    yield Case("channels last in memory", channels_last, init=((4, 6), 2, 3, 4))
    yield Case("no images", torch.zeros(0, 3, 4, 6), init=((4, 6), 2, 3, 5), edge=True)
    yield Case("32 patches", draw.normal(2, 3, 16, 8), init=((16, 8), (2, 2), 3, 4), cost=True)
    eye = {"proj.weight": torch.eye(12), "proj.bias": torch.zeros(12)}
    yield Case("numbered pixels in wide patches", _ramp(3, 4, 8), init=((4, 8), (1, 4), 3, 12), state=eye, hidden=True)
    yield Case("tiny pixels", 1e-3 * draw.normal(3, 2, 9, 4), init=((9, 4), (3, 4), 2, 5), hidden=True)
    yield Case("bright pixels", 255 + draw.normal(2, 4, 4, 9), init=((4, 9), (2, 3), 4, 3), hidden=True)
    turned = draw.normal(2, 6, 4, 3).permute(0, 3, 2, 1)
    yield Case("a permuted view", turned, init=((4, 6), (2, 3), 3, 5), hidden=True)
    shape = (1, 2, 4, 6)
    yield Case("height not divisible", draw.normal(1, 2, 5, 6), init=((5, 6), 2, 2, 3), raises=ValueError)
    yield Case("width not divisible", draw.normal(1, 2, 6, 7), init=((6, 7), (3, 2), 2, 3), raises=ValueError)
    yield Case("a patch larger than the image", draw.normal(*shape), init=((4, 6), 8, 2, 3), raises=ValueError)
    yield Case("a larger image", draw.normal(1, 2, 8, 6), init=((4, 6), 2, 2, 3), raises=ValueError)
    yield Case("a turned image", draw.normal(1, 2, 6, 4), init=((4, 6), 2, 2, 3), raises=ValueError)
    yield Case("another number of channels", draw.normal(1, 4, 4, 6), init=((4, 6), 2, 2, 3), raises=ValueError)
    yield Case("an image without the batch axis", draw.normal(2, 4, 6), init=((4, 6), 2, 2, 3), raises=ValueError)
    yield Case("a narrower image", draw.normal(2, 2, 4, 4), init=((4, 6), 2, 2, 3), raises=ValueError, hidden=True)


@exercise.growth("patches", sizes=(16, 32), ops=0.0, peak=1.0)
def more_patches(draw, size):
    return Case(f"{size} rows of patches", draw.normal(2, 3, 2 * size, 6), init=((2 * size, 6), 2, 3, 4))


@exercise.growth("patches across", sizes=(16, 32), ops=0.0, peak=1.0)
def more_columns(draw, size):
    return Case(f"{size} columns of patches", draw.normal(2, 3, 6, 2 * size), init=((6, 2 * size), 2, 3, 4))


@exercise.growth("images", sizes=(8, 16), ops=0.0, peak=1.0)
def more_images(draw, size):
    return Case(f"{size} images", draw.normal(size, 3, 4, 6), init=((4, 6), 2, 3, 5))


class _Base(PatchEmbedding):
    """Checks as they should be; each wrong answer replaces `patches`, which makes (B, N, values of a patch)."""

    def forward(self, x):
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError
        return self.proj(self.patches(x))

    def grid(self, x):
        ph, pw = self.patch
        return x.reshape(len(x), x.shape[1], x.shape[2] // ph, ph, x.shape[3] // pw, pw)

    def patches(self, x):
        return self.grid(x).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


@exercise.wrong("One reshape cuts memory, not patches: split height and width into two axes each, then permute.")
class OneReshape(_Base):
    def patches(self, x):
        return x.reshape(len(x), self.num_patches, self.proj.in_features)


@exercise.wrong("Inside a patch the channel comes first: (channel, row, column), not (row, column, channel).")
class ChannelsLast(_Base):
    def patches(self, x):
        return self.grid(x).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


@exercise.wrong("Patches are read like text: along a row first, then downwards.")
class DownFirst(_Base):
    def patches(self, x):
        return self.grid(x).permute(0, 4, 2, 1, 3, 5).flatten(3).flatten(1, 2)


@exercise.wrong("Inside a patch the column runs fastest: (channel, row, column), not (channel, column, row).")
class TransposedPatches(_Base):
    def patches(self, x):
        return self.grid(x).permute(0, 2, 4, 1, 5, 3).flatten(3).flatten(1, 2)


@exercise.wrong("Split height as (patches, rows), not (rows, patches): pixels of a patch are neighbours.")
class DilatedPatches(_Base):
    def patches(self, x):
        batch, channels, height, width = x.shape
        ph, pw = self.patch
        grid = x.reshape(batch, channels, ph, height // ph, pw, width // pw)
        return grid.permute(0, 3, 5, 1, 2, 4).flatten(3).flatten(1, 2)


@exercise.wrong("Do not average a patch: its pixels are laid out in one vector, and proj learns what to do with them.")
class PatchMeans(_Base):
    def patches(self, x):
        flat = super().patches(x)
        return flat.mean(-1, keepdim=True).expand(flat.shape)


@exercise.wrong("Pairs are (height, width): the patch's height goes with the image's height.")
class WidthFirst(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        super().__init__(img_size, patch_size, in_channels, embed_dim)
        self.patch = self.patch[::-1]


@exercise.wrong("Pairs are (height, width): read the height first, of the image and of the patch.", caught_by="runs")
class WidthFirstThroughout(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        sizes = [size if isinstance(size, int) else size[::-1] for size in (img_size, patch_size)]
        super().__init__(*sizes, in_channels, embed_dim)


@exercise.wrong("A remainder is not cut off silently: raise ValueError in the constructor.", caught_by="errors")
class CropsTheRest(PatchEmbedding):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        ph, pw = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        super().__init__((height - height % ph, width - width % pw), patch_size, in_channels, embed_dim)
        self.told = height, width

    def forward(self, x):
        if tuple(x.shape[2:]) != self.told:
            raise ValueError
        return super().forward(x[:, :, : self.image_shape[1], : self.image_shape[2]])


@exercise.wrong("The width must be divisible too, not the height alone.", caught_by="errors")
class ChecksTheHeightOnly(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        ph, pw = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        super().__init__(
            (height, width - width % pw if height % ph == 0 else width), patch_size, in_channels, embed_dim
        )
        self.image_shape = (in_channels, height, width)


@exercise.wrong("forward checks the image: another height or width than the constructor was told is a ValueError.",
                caught_by="errors")  # fmt: skip
class AnyImageSize(_Base):
    def forward(self, x):
        if x.ndim != 4 or x.shape[1] != self.image_shape[0]:
            raise ValueError
        return self.proj(self.patches(x))


@exercise.wrong("Compare height and width, not their product: a turned image is another image.", caught_by="errors")
class ComparesTheArea(_Base):
    def forward(self, x):
        if x.ndim != 4 or x.shape[1:].numel() != self.image_shape[0] * self.image_shape[1] * self.image_shape[2]:
            raise ValueError
        return self.proj(self.patches(x))


@exercise.wrong(
    "The number of channels is checked as well: a ValueError, before the projection fails.", caught_by="errors"
)
class AnyChannels(_Base):
    def forward(self, x):
        if x.ndim != 4 or tuple(x.shape[2:]) != self.image_shape[1:]:
            raise ValueError
        return self.proj(self.patches(x))


@exercise.wrong("num_patches is the product of the patches down and across.")
class CountsOneSide(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        super().__init__(img_size, patch_size, in_channels, embed_dim)
        self.num_patches = self.image_shape[1] // self.patch[0]


@exercise.wrong("Integer division: num_patches is an int.", caught_by="type")
class FloatCount(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        super().__init__(img_size, patch_size, in_channels, embed_dim)
        self.num_patches = self.image_shape[1] / self.patch[0] * (self.image_shape[2] / self.patch[1])


@exercise.wrong("After permute the axes no longer lie in memory in this order: reshape() copies where view() refuses.",
                caught_by="runs")  # fmt: skip
class ViewsThePermuted(_Base):
    def patches(self, x):
        return self.grid(x).permute(0, 2, 4, 1, 3, 5).view(len(x), self.num_patches, self.proj.in_features)


@exercise.wrong("An int means a square, a pair (height, width): both forms must work.", caught_by="runs")
class IntegersOnly(_Base):
    def __init__(self, img_size, patch_size, in_channels, embed_dim):
        if img_size % patch_size:
            raise ValueError
        super().__init__(img_size, patch_size, in_channels, embed_dim)


@exercise.wrong("An empty batch is legal: write the number of patches instead of -1.", caught_by="runs")
class GuessesTheNumber(_Base):
    def patches(self, x):
        return self.grid(x).permute(0, 2, 4, 1, 3, 5).reshape(len(x), -1, self.proj.in_features)


@exercise.wrong("The result is (B, N, embed_dim): tokens first, features last.", caught_by="shape")
class FeaturesFirst(_Base):
    def forward(self, x):
        return super().forward(x).transpose(1, 2)


@exercise.wrong("A convolution with stride does it, too, but is not allowed here: cut the patches by reshaping.",
                caught_by="forbidden")  # fmt: skip
class ByConvolution(_Base):
    def forward(self, x):
        if x.ndim != 4 or tuple(x.shape[1:]) != self.image_shape:
            raise ValueError
        kernel = self.proj.weight.reshape(-1, x.shape[1], *self.patch)
        return F.conv2d(x, kernel, self.proj.bias, stride=self.patch).flatten(2).transpose(1, 2)


@exercise.wrong("A Python loop over patches: split both axes and permute, and all patches are cut at once.",
                caught_by="growth")  # fmt: skip
class LoopsOverPatches(_Base):
    def patches(self, x):
        ph, pw = self.patch
        rows, columns = x.shape[2] // ph, x.shape[3] // pw
        cut = [
            x[:, :, r * ph : r * ph + ph, c * pw : c * pw + pw].flatten(1) for r in range(rows) for c in range(columns)
        ]
        return torch.stack(cut, 1)


@exercise.wrong("A Python loop over images: the batch axis simply stays in front.", caught_by="growth")
class LoopsOverImages(_Base):
    def forward(self, x):
        if len(x) == 0 or x.ndim != 4:
            return super().forward(x)
        return torch.cat([_Base.forward(self, image[None]) for image in x])


@exercise.right("split along both axes and stacked")
class BySplit(_Base):
    def patches(self, x):
        ph, pw = self.patch
        strips = torch.stack(x.split(ph, 2), 1)
        tiles = torch.stack(strips.split(pw, 4), 2)
        return tiles.reshape(len(x), self.num_patches, self.proj.in_features)


@exercise.right("one einsum over the six axes")
class ByEinsum(_Base):
    def forward(self, x):
        super().forward(x[:0] if x.ndim == 4 else x)
        kernel = self.proj.weight.view(-1, x.shape[1], *self.patch)
        out = torch.einsum("bchpwq,ecpq->bhwe", self.grid(x), kernel)
        return out.reshape(len(x), self.num_patches, len(kernel)) + self.proj.bias


@exercise.right("a table of pixel numbers and one gather")
class ByPixelNumbers(_Base):
    def patches(self, x):
        numbers = torch.arange(x.shape[1:].numel(), device=x.device).reshape(1, *x.shape[1:])
        order = _Base.patches(self, numbers)[0].flatten()
        return x.flatten(1)[:, order].reshape(len(x), self.num_patches, self.proj.in_features)
