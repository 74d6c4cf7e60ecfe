"""The classical control: regional volumes and intensity moments, what an analysis without a network starts from."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from braing3n.encoders.ours import LICENCE

BINS = 128  # of the histogram that separates the classes


class RegionalVolumes:
    """Millilitres of dark, middle and bright tissue in boxes of 32 mm, and moments of the brain's intensities.

    The three classes are those of Otsu's criterion within each brain: on T1 about cerebrospinal fluid, grey and white
    matter, on T2 the reverse. Boxes of the atlas grid stand for anatomical regions, as no parcellation is assumed.
    Volumes are in atlas space, so that the head's size is taken out of them.
    """

    name, licence, citation, keys = "regions", LICENCE, "Otsu 1979, IEEE Trans. SMC 9:62", "no weights"
    poolings = ("regions",)
    box = 32
    dimension = 463  # 3 classes x (5 x 6 x 5 boxes + whole brain), 3 class means, 7 moments and quantiles

    def preprocess(self, volumes: Tensor, brain: Tensor) -> Tensor:
        """Intensities with exactly 0 outside the brain."""
        return volumes * brain

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        return {"regions": torch.stack([self.describe(volume) for volume in batch[:, 0]])}

    def describe(self, volume: Tensor) -> Tensor:
        """(X, Y, Z) -> (463,) float32."""
        brain = volume > 0
        values = volume[brain].double()
        if len(values) < 2:
            return volume.new_zeros(self.dimension)
        low, high = otsu_thresholds(values)
        classes = torch.stack([brain & (volume <= low), (volume > low) & (volume <= high), volume > high]).float()
        boxes = F.avg_pool3d(classes, self.box) * self.box**3 / 1000  # (3, 5, 6, 5) ml at 1 mm
        whole = classes.sum(dim=(1, 2, 3)) / 1000  # (3,) ml
        means = (classes * volume).sum(dim=(1, 2, 3)) / (1000 * whole).clamp(min=1)  # (3,)
        return torch.cat([boxes.flatten(), whole, means, moments(values).float()])


def moments(values: Tensor) -> Tensor:
    """Mean, standard deviation, skewness, excess kurtosis, and the 5th, 50th and 95th percentile. (n,) -> (7,)."""
    mean, std = values.mean(), values.std(correction=0).clamp(min=1e-12)
    z = (values - mean) / std
    ordered = values.sort().values
    at = [round(q * (len(values) - 1)) for q in (0.05, 0.5, 0.95)]
    return torch.cat([torch.stack([mean, std, z.pow(3).mean(), z.pow(4).mean() - 3]), ordered[at]])


def otsu_thresholds(values: Tensor) -> tuple[Tensor, Tensor]:
    """The two thresholds that maximise the variance between three classes (Otsu 1979). Of values (n,) float64."""
    low, high = values.min(), values.max()
    width = ((high - low) / BINS).clamp(min=1e-12)
    index = ((values - low) / width).long().clamp(max=BINS - 1)
    count = torch.bincount(index, minlength=BINS).double()
    total = torch.bincount(index, weights=values, minlength=BINS)
    # Weight and sum of every class that bins i <= b < j make; between-class variance is the sum of sum^2 / weight.
    weights, sums = (F.pad(part.cumsum(0), (1, 0)) for part in (count, total))  # (BINS + 1,)
    share = (sums[None] - sums[:, None]).square() / (weights[None] - weights[:, None]).clamp(min=1e-12)  # (i, j)
    between = share[0, :, None] + share + share[:, -1][None]  # (first cut, second cut)
    first, second = divmod(int(between.triu(1)[:-1].argmax()), BINS + 1)
    return low + first * width, low + second * width
