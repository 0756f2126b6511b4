"""The measurement of FALCON's descriptions as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(document: Mapping[str, Any]) -> str:
    """The document as a page."""
    classes, hidden, groups = document["results"]
    sizes = document["settings"]
    lines = [
        "# FALCON on the zoo",
        "",
        "Made by `python -m encoscope.reproduce.falcon.zoo CALTECH101_FOLDER`.",
        "",
        f"{document['model']['source']}, captions and images by {sizes['vlm']['source']}; made from {sizes['made']} "
        f"photos, tested on {sizes['test']} others.",
        "",
        "## Class neurons: is a top-3 concept the class's name or one of its attributes?",
        "",
        "| | right | permuted units | best constant label | lift over permuted | over constant | name in top 3 | AUC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in classes["presets"].items():
        mean = row["summary"].get("auc")
        lines.append(
            f"| {name} | {row['precision']['value']:.3f} | {row['permuted']:.3f} | {row['constant']:.3f} | "
            f"{_told(row['lift'])} | {_told(row['over_constant'])} | {row['named']:.0%} | "
            f"{'' if mean is None else format(mean['mean'], '.3f')} |"
        )
    gain = classes["contrast"]
    lines += [
        "",
        f"Contrast at equal concept recall ({gain['recall']:.3f}): precision {_number(gain['contrast'])} with, "
        f"{_number(gain['no_contrast'])} without.",
        "",
        "## Hidden features",
        "",
        f"Coverage {hidden['summary']['coverage']:.0%} by FALCON, {hidden['summary']['labelled']:.0%} with any label; "
        f"mean clarity {_number(hidden['summary']['clarity'])}; {hidden['interpretable']:.0%} above the authors' 0.8.",
        "",
    ]
    lines += ["| described as | coverage | predictive AUC |", "|---|---|---|"]
    for name, summary in hidden["ways"].items():
        mean = _told(summary["auc"]) if "auc" in summary else ""
        lines.append(f"| {name} | {summary['coverage']:.0%} | {mean} |")
    lines.append("")
    if hidden["compared"]:
        lines += ["| predictive AUC | mean over features |", "|---|---|"]
        lines += [f"| {name} | {_told(value)} |" for name, value in hidden["compared"].items()]
        for name, value in hidden["summary"].get("controls", {}).items():
            lines.append(f"| control: {name} | {_told(value)} |")
        constant = hidden["summary"].get("constant")
        if constant:
            lines.append(f"| control: best constant label ({constant['word']}) | {constant['auc']:.3f} |")
    lines += ["", "## Groups that explain more than their features", ""]
    for group in groups["groups"]:
        lines.append(
            f"- **{group['unit']}** ({group['images']} images): {', '.join(group['concepts'])}; clarity "
            f"{group['clarity']:.2f}, AUC {group['auc']:.3f}"
        )
        for part in group["members"]:
            lines.append(
                f"  - {part['unit']}: {', '.join(part['concepts'])}; clarity {part['clarity']:.2f}, "
                f"AUC {part['auc']:.3f}"
            )
    if not groups["groups"]:
        lines.append("None.")
    return "\n".join(lines) + "\n"


def _told(value: Mapping[str, Any]) -> str:
    middle = value["value"] if "value" in value else value["mean"]
    return f"{middle:.3f} [{value['interval'][0]:.3f}, {value['interval'][1]:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
