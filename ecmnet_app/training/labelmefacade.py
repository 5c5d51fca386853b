"""What is peculiar to LabelMeFacade (Froehlich, Rodner, Denzler, ICPR 2010) in CamVid's layout and ids."""

from __future__ import annotations

__all__ = ["LABELLED", "NAME", "city_of"]

NAME = "labelmefacade"
"""Of its folder."""

LABELLED = ("Sky", "Building", "Road", "Pavement", "Tree", "Car")
"""The classes that its annotators drew; other things are void there, or take the label behind them."""

# Words of LabelMe's folder names, which start each stem; the first that occurs decides.
_CITIES = {
    "cambridge_uk": "Cambridge, UK",
    "boston": "Boston",
    **dict.fromkeys(["cambridge", "porter", "davis", "kendall", "techsquare", "harvard"], "Cambridge, US"),
    "barcelona": "Barcelona",
    "madrid": "Madrid",
    "coruna": "A Coruña",
    "palma_": "Palma",
    "mallorca": "Mallorca",
    "london": "London",
    "paris": "Paris",
}


def city_of(stem: str) -> str:
    """The city that a picture's name tells, or "other or unknown"."""
    folder = stem.partition("__")[0] + "_"
    return next((city for word, city in _CITIES.items() if word in folder), "other or unknown")
