"""TwoNN, the intrinsic dimension by two neighbours, against scikit-dimension and a script with SciPy's distances.

scikit-dimension is timed where it is installed (it is not needed for anything else).
"""

import numpy as np
import torch
from timing import arguments, interleaved, processor_clock, report

from lightning_repshape.functional import twonn_dimension


def script(x: np.ndarray) -> float:
    """As published scripts have it: all distances, every row sorted, a line through the origin."""
    from scipy.spatial.distance import pdist, squareform

    near = np.sort(squareform(pdist(x)), axis=1)
    ratio = np.sort(near[:, 2] / near[:, 1])
    kept = int(0.9 * len(ratio))
    height = -np.log(1 - np.arange(1, kept + 1) / len(ratio))
    along = np.log(ratio[:kept])
    return float(along @ height / (along @ along))


def main() -> None:
    """Prints the table."""
    options = arguments(__doc__.splitlines()[0])
    try:
        from skdim.id import TwoNN
    except ImportError:
        TwoNN = None
    rows = []
    for count, width in ((1000, 64),) if options.quick else ((2000, 128), (5000, 512)):
        source = torch.Generator().manual_seed(0)
        x = torch.randn(count, 12, generator=source) @ torch.randn(12, width, generator=source)
        x, array = x.relu().to(options.device), x.relu().double().numpy()
        ways = {"ours": lambda x=x: float(twonn_dimension(x)), "script": lambda array=array: script(array)}
        if TwoNN is not None:
            ways["skdim"] = lambda array=array: float(TwoNN().fit(array).dimension_)
        found = {name: way() for name, way in ways.items()}
        seconds = interleaved(ways, repeats=3, min_seconds=0.0, clock=processor_clock(options))
        rows.append(
            {
                "samples x features": f"{count} x {width}",
                "ours (s)": seconds["ours"],
                "scikit-dimension (s)": seconds.get("skdim", float("nan")),
                "script (s)": seconds["script"],
                "scikit-dimension / ours": seconds.get("skdim", float("nan")) / seconds["ours"],
                "script / ours": seconds["script"] / seconds["ours"],
                "ours": found["ours"],
                "theirs": found.get("skdim", found["script"]),
            }
        )
    report("TwoNN", rows)


if __name__ == "__main__":
    main()
