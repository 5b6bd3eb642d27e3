"""What the values of prepared label maps mean: organ names and their stored values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Stored in records for voxels of which nobody says what they are, and kept by `lookup`
# and `relabel`: it is no organ's value and no position in a list of classes.
IGNORED = 255
LARGEST_ORGAN = IGNORED - 1  # as a stored value


@dataclass(frozen=True)
class LabelMap:
    """The stored value of each organ; 0, the background, is not among them.

    A list of class names gives a value another meaning: there it is the position of
    the name. `lookup` and `relabel` translate stored values to such positions.
    `ignore_value` is `IGNORED` where the data has voxels that are left out of loss and
    metrics, else None.
    """

    values: Mapping[str, int]
    ignore_value: int | None = None

    @classmethod
    def numbered(cls, organs: Iterable[str]) -> "LabelMap":
        """Returns the map that numbers `organs` from 1 in their order."""
        return cls({organ: value for value, organ in enumerate(organs, start=1)})

    @classmethod
    def of_outputs(cls, outputs: Sequence[str], classes: Iterable[str]) -> "LabelMap":
        """Returns the position in `outputs` of each organ that `classes` names.

        A fine-tuned network keeps outputs that took no part in its training: `classes`
        are those that did. The first output is the background.
        """
        trained = set(classes)
        return cls(
            {
                name: value
                for value, name in enumerate(outputs)
                if value and name in trained
            }
        )

    @property
    def organs(self) -> tuple[str, ...]:
        """Names of the organs."""
        return tuple(self.values)

    def stored(self, classes: Iterable[str]) -> tuple[int, ...]:
        """Returns the stored values of the organs that `classes` names."""
        return tuple(self.values[name] for name in classes if name in self.values)

    def lookup(self, classes: Sequence[str]) -> tuple[int, ...]:
        """Returns the position in `classes` of each stored value from 0 on.

        Organs that `classes` does not name become 0; `ignore_value` stays itself.
        """
        table = [0] * (max(self.values.values()) + 1)
        if self.ignore_value is not None:
            table += [0] * (self.ignore_value + 1 - len(table))
            table[self.ignore_value] = self.ignore_value
        for organ, value in self.values.items():
            if organ in classes:
                table[value] = classes.index(organ)
        return tuple(table)

    def relabel(self, label: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """Returns `label` with positions in `classes` for stored values, uint8."""
        return np.array(self.lookup(classes), np.uint8)[label]
