"""Counters and gauges of the process, printed in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Sample = tuple[str, dict[str, str], float]


class Telemetry:
    """Counts by name and labels; gauges are asked for when somebody looks."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._gauges: list[Callable[[], Iterable[Sample]]] = []

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter; its name ends in `_total`."""
        key = (name, tuple(sorted(labels.items())))
        self._counters[key] = self._counters.get(key, 0) + amount

    def watch(self, gauge: Callable[[], Iterable[Sample]]) -> None:
        """Ask this whenever the figures are printed."""
        self._gauges.append(gauge)

    def text(self) -> str:
        """All figures, in the Prometheus text format 0.0.4."""
        samples: list[Sample] = [(name, dict(labels), value) for (name, labels), value in self._counters.items()]
        for gauge in self._gauges:
            samples.extend(gauge())
        lines = []
        known = set()
        for name, labels, value in sorted(samples, key=lambda sample: sample[0]):
            if name not in known:
                known.add(name)
                lines.append(f"# TYPE aftersend_{name} {'counter' if name.endswith('_total') else 'gauge'}")
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"aftersend_{name}{{{inside}}} {value!r}" if inside else f"aftersend_{name} {value!r}")
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
