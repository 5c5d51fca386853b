from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import ecmnet_app
from ecmnet_app import core, network

PACKAGE = Path(ecmnet_app.__file__).parent

MAY_IMPORT = {
    "errors": set(),
    "network": {"network"},
    "media": {"errors", "media"},
    "core": {"errors", "media", "network", "core"},
    "ros_messages": {"errors", "media"},
    "training": {"errors", "media", "network", "core", "training"},
    "ui": {"errors", "media", "core", "ui"},
}
"""Who may import whom inside the package. The doors beside these may import any."""


def test_the_public_names_are_those_of_their_homes() -> None:
    assert ecmnet_app.Segmenter is core.Segmenter
    assert ecmnet_app.Segmentation is core.Segmentation
    assert ecmnet_app.LabelSet is core.LabelSet
    assert ecmnet_app.ECMNet is network.ECMNet
    assert ecmnet_app.ECMNetConfig is network.ECMNetConfig
    assert ecmnet_app.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        ecmnet_app.Segmentor  # noqa: B018


def test_importing_the_package_does_not_wait_for_torch() -> None:
    code = "import sys, ecmnet_app; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def imports(path: Path) -> set[str]:
    """First names below ecmnet_app, and top-level packages, that a module imports anywhere in it."""
    package = path.relative_to(PACKAGE.parent).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            modules = [".".join(filter(None, (base, node.module)))]
            if modules == ["ecmnet_app"]:
                modules = [f"ecmnet_app.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {tuple(module.split("."))[:2] for module in modules}
    return {parts[1] if parts[0] == "ecmnet_app" and len(parts) > 1 else f"{parts[0]}:" for parts in found}


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layers_import_only_those_below(layer: str) -> None:
    home = PACKAGE / layer
    paths = sorted(home.rglob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
    assert paths
    for path in paths:
        found = imports(path)
        inside = {name for name in found if not name.endswith(":")}
        assert inside <= MAY_IMPORT[layer], f"{path} imports {inside - MAY_IMPORT[layer]}"
        if layer != "ui":
            assert not found & {"gradio:", "rclpy:", "pickle:"}, path


def test_pictures_that_the_pages_show_can_be_opened() -> None:
    """One was once committed empty."""
    root = Path(__file__).parents[1]
    pages = [root / "README.md", *sorted(root.glob("docs/**/*.md")), *sorted(root.glob("assets/*.md"))]
    shown = {page.parent / link for page in pages for link in re.findall(r"!\[[^\]]*\]\(([^):]+)\)", page.read_text())}
    assert len(shown) > 30
    for picture in sorted(shown):
        if picture.suffix == ".svg":
            assert picture.read_text().rstrip().endswith("</svg>"), picture
        else:
            with Image.open(picture) as opened:
                opened.load()
