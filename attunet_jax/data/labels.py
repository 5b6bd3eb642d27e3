"""What the values of prepared label maps mean: organ names and their stored values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LabelMap:
    """The stored value of each organ; 0, the background, is not among them.

    A list of class names gives a value another meaning: there it is the position of
    the name. `lookup` and `relabel` translate stored values to such positions.
    """

    values: Mapping[str, int]

    @classmethod
    def numbered(cls, organs: Iterable[str]) -> "LabelMap":
        """Returns the map that numbers `organs` from 1 in their order."""
        return cls({organ: value for value, organ in enumerate(organs, start=1)})

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the organs."""
        return tuple(self.values)

    def lookup(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Returns the position in `classes` of each stored value from 0 on.

        Organs that `classes` does not name become 0.
        """
        table = [0] * (max(self.values.values()) + 1)
        for organ, value in self.values.items():
            if organ in classes:
                table[value] = classes.index(organ)
        return tuple(table)

    def relabel(self, label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Returns `label` with positions in `classes` for stored values, uint8."""
        return np.array(self.lookup(classes), np.uint8)[label]
