"""ECMNetConfig: everything that shapes the network, and the paper's Table 1 by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

__all__ = ["TABLE_1", "ECMNetConfig"]

BlockName = Literal["edab", "residual"]


@dataclass(frozen=True)
class ECMNetConfig:
    """Architecture of an ECMNet (arXiv 2506.08629). The defaults are the paper's full network.

    Which numbers the paper states, which were found by counting and which are our choice:
    docs/architecture.md.

    Raises:
        ValueError: a field has a value that no network can be built from; the message names it.
    """

    num_classes: int = 11
    """Classes of the classifier; 11 for CamVid, 19 for Cityscapes."""
    long_connections: int = 3
    """Encoder-to-decoder skips, counted from the deepest: 0 to 3 (Table 1's "long connections")."""
    msau: bool = True
    """A Multi-Scale Attention Unit on the long connections (eq. 5-9)."""
    ffm: bool = True
    """The Mamba fusion module between encoder and decoder (eq. 10-11)."""
    block: BlockName = "edab"
    """Building block: the paper's EDAB, or the plain residual block of its ablation."""
    stem_width: int = 32
    widths: tuple[int, int, int] = (64, 128, 16)
    """Channels of the encoder stages at 1/4, 1/8 and 1/16 of the input."""
    dilations: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] = (
        (2, 2, 2),
        (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32),
        (1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32),
    )
    """Dilation of each block of each encoder stage; their number is the stage's depth."""
    decoder_width: int = 16
    decoder_dilations: tuple[int, ...] = (2, 2, 2)
    """Dilation of each block of a decoder stage, the same in all three."""
    state_size: int = 1
    """N of the selective scan: hidden states a channel."""
    expand: int = 4
    """Inner channels of SS2D as a multiple of its input's."""

    def __post_init__(self) -> None:
        def check(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"ECMNetConfig: {message}")

        for name in ("num_classes", "long_connections", "stem_width", "decoder_width", "state_size", "expand"):
            value = getattr(self, name)
            check(isinstance(value, int), f"{name} must be a whole number, not {value!r}")
        for name in ("msau", "ffm"):
            value = getattr(self, name)
            check(isinstance(value, bool), f"{name} must be true or false, not {value!r}")
        check(1 <= self.num_classes <= 255, f"num_classes must be 1 to 255, not {self.num_classes}")
        check(0 <= self.long_connections <= 3, f"long_connections must be 0 to 3, not {self.long_connections}")
        check(
            self.block in get_args(BlockName),
            f"block must be one of {get_args(BlockName)}, not {self.block!r}",
        )
        check(not self.msau or self.long_connections > 0, "msau needs at least one long connection")
        for name in ("stem_width", "decoder_width", "state_size", "expand"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        check(len(self.widths) == 3, f"widths must name three stages, not {len(self.widths)}")
        check(len(self.dilations) == 3, f"dilations must name three stages, not {len(self.dilations)}")
        for width in (*self.widths, self.decoder_width):
            whole = isinstance(width, int)
            check(whole and width >= 4 and width % 2 == 0, f"widths must be even and at least 4, not {width!r}")
        check(self.stem_width < self.widths[0] < self.widths[1], "widths must grow from the stem to 1/8")
        for stage in (*self.dilations, self.decoder_dilations):
            whole = len(stage) > 0 and all(isinstance(dilation, int) for dilation in stage)
            check(whole and min(stage) >= 1, f"dilations must be whole, positive and not empty, not {stage!r}")
        check(
            not self.ffm or self.widths[2] == self.decoder_width,
            "the FFM adds the encoder's output to its own, so widths[2] must equal decoder_width",
        )

    @classmethod
    def named(cls, variant: str, num_classes: int = 11) -> ECMNetConfig:
        """The configuration of a row of Table 1: "baseline", "A1" ... "C3", "ecmnet" or "residual".

        Raises:
            ValueError: there is no such row; the message lists them.
        """
        try:
            return replace(cls(num_classes=num_classes), **TABLE_1[variant])
        except KeyError:
            raise ValueError(f"no variant {variant!r}; choose one of {', '.join(TABLE_1)}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ECMNetConfig:
        """Build from `to_dict`'s output after a trip through JSON (lists become tuples).

        Raises:
            ValueError: an unknown or missing field, or a value that no network can be built from.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"ECMNetConfig: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
        if missing := sorted(known - set(values)):
            raise ValueError(f"ECMNetConfig: field {missing[0]!r} is missing")

        def tupled(value: Any) -> Any:
            return tuple(tupled(item) for item in value) if isinstance(value, list | tuple) else value

        try:
            return cls(**{name: tupled(value) for name, value in values.items()})
        except TypeError as error:
            raise ValueError(f"ECMNetConfig: a field has the wrong type ({error})") from error


TABLE_1: dict[str, dict[str, Any]] = {
    "baseline": {"long_connections": 0, "msau": False, "ffm": False},
    "A1": {"long_connections": 1, "msau": False, "ffm": False},
    "A2": {"long_connections": 2, "msau": False, "ffm": False},
    "A3": {"long_connections": 3, "msau": False, "ffm": False},
    "B1": {"long_connections": 1, "msau": True, "ffm": False},
    "B2": {"long_connections": 2, "msau": True, "ffm": False},
    "B3": {"long_connections": 3, "msau": True, "ffm": False},
    "C1": {"long_connections": 0, "msau": False, "ffm": True},
    "C2": {"long_connections": 3, "msau": False, "ffm": True},
    "C3": {"long_connections": 3, "msau": True, "ffm": True},
    "ecmnet": {},
    "residual": {"block": "residual"},
}
"""Rows of the paper's Table 1; "ecmnet" is C3, "residual" its ablation of the EDAB."""
