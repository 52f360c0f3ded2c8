"""Every reply of an attack, in order, by the point that it was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recon.exact.deep.segment import Ask
from recon.replies import Reply


@dataclass
class Log:
    """The victim, and every reply in order."""

    ask_victim: Ask
    eps: float
    x: list[np.ndarray] = field(default_factory=list)
    value: list[np.ndarray] = field(default_factory=list)
    gradient: list[np.ndarray] = field(default_factory=list)
    scale: float = 0.0
    _rows: dict[bytes, int] = field(default_factory=dict)  # the number of each point

    def __call__(self, x: np.ndarray) -> Reply:
        """Replies at x [n, d]; no point is asked twice."""
        new = ~self.asked(x)
        if new.any():
            reply = self.ask_victim(x[new])
            self.keep(x[new], reply)
            if new.all():
                return reply
        at = self.at(x)
        return Reply(*(part[at] for part in self.reply))

    def asked(self, x: np.ndarray) -> np.ndarray:
        """Which of the points [n, d] were asked: [n]."""
        return np.array([point.tobytes() in self._rows for point in x], bool)

    def repeats(self, n: int) -> bool:
        """Whether the replies of the n largest values come again when they are asked for again."""
        largest = np.argsort(np.abs(self.reply.value).max(1))[-n:]
        again, reply = self.ask_victim(self.points[largest]), self.reply
        return all(
            np.allclose(a, b[largest], rtol=self.eps**0.5, atol=0)
            for a, b in zip(again, reply, strict=True)
        )

    def keep(self, x: np.ndarray, reply: Reply) -> None:
        """Note replies that were asked elsewhere."""
        self._rows.update((point.tobytes(), i) for i, point in enumerate(x, self.count))
        self.x.append(x)
        self.value.append(reply.value)
        self.gradient.append(reply.gradient)
        size = np.sqrt(np.einsum("nkd,nkd->n", reply.gradient, reply.gradient))
        self.scale = max(self.scale, float(size.max(initial=0.0)))

    @property
    def count(self) -> int:
        return sum(map(len, self.x))

    def at(self, x: np.ndarray) -> list[int]:
        """The row numbers of points [n, d] that were asked."""
        return [self._rows[point.tobytes()] for point in x]

    @property
    def outputs(self) -> int:
        return self.gradient[0].shape[1]

    @property
    def points(self) -> np.ndarray:
        return _joined(self.x)

    @property
    def reply(self) -> Reply:
        return Reply(_joined(self.value), _joined(self.gradient))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """All parts as one, which takes their place in the list: they are copied once."""
    if len(parts) > 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]
