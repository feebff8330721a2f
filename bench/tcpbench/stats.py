# SPDX-License-Identifier: GPL-2.0-or-later
"""Medians, and how far they can be trusted.

Paired samples come in rounds: a round is one boot of each kernel, and in it
the kernels took turns. Boots differ (where things lie in memory), and so do
moments in a boot; the bootstrap draws boots first and pairs within them, so
that an interval says what another night's run may show.
"""

import random
import statistics
from collections.abc import Sequence

Pairs = Sequence[tuple[float, float]]
DRAWS = 2000


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def _ratio(pairs: Pairs) -> float:
    return median([a / b for a, b in pairs])


def median_ratio(rounds: Sequence[Pairs]) -> tuple[float, tuple[float, float]]:
    """The median of the ratios of first to second values, and its 95 % interval.

    Not the ratio of their medians: a shared machine becomes slower and faster by a third
    in half an hour, which neighbours in time have in common.
    """
    point = _ratio([p for pairs in rounds for p in pairs])
    chance = random.Random(1)
    drawn = []
    for _ in range(DRAWS):
        sample: list[tuple[float, float]] = []
        for pairs in chance.choices(rounds, k=len(rounds)):
            sample += chance.choices(pairs, k=len(pairs))
        drawn.append(_ratio(sample))
    drawn.sort()
    return point, (drawn[int(DRAWS * 0.025)], drawn[int(DRAWS * 0.975)])


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a median by order statistics: exact, whatever the distribution."""
    ordered, n = sorted(values), len(values)
    # The largest k with P(Binomial(n, 1/2) < k) <= 0.025: the median lies
    # between the k-th value from below and the k-th from above.
    tail, term, k = 0.0, 0.5 ** n, 0
    while k < n // 2 and tail + term <= 0.025:
        tail += term
        term *= (n - k) / (k + 1)
        k += 1
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]
