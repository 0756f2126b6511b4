"""CRAFT, step by step: patches one by one, masks one by one, the network run again for each."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.optimize import nnls
from sklearn.decomposition import NMF
from sklearn.exceptions import ConvergenceWarning

from oracles import patches as cutting


def layer_output(network, layer, pixels):
    kept = []
    handle = dict(network.named_modules())[layer].register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        network.eval()(pixels)
    handle.remove()
    return kept[0][0].double().numpy()  # [C, h, w]


def patch_activations(network, layer, files, side, patch, stride, mean, std):
    rows = []
    for file in files:
        for _, _, pixels in cutting.patches(cutting.whole(file, side, mean, std), patch, stride):
            sized = torch.nn.functional.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
            rows.append(layer_output(network, layer, sized).mean((1, 2)))
    return np.array(rows)


def concepts(activations, number, seed):
    """Directions of unit length, as factorised."""
    nmf = NMF(n_components=number, init="nndsvda", max_iter=1000, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        nmf.fit(activations)
    return np.array([row / np.linalg.norm(row) for row in nmf.components_])


def logit_of_masked(network, layer, pixels, directions, mask, index):
    """The class's logit when every position's activation is rebuilt from masked concepts."""
    maps = layer_output(network, layer, pixels)
    rebuilt = np.zeros_like(maps)
    for row in range(maps.shape[1]):
        for column in range(maps.shape[2]):
            amounts, _ = nnls(directions.T.astype(float), maps[:, row, column])
            rebuilt[:, row, column] = (amounts * mask) @ directions
    replacement = torch.from_numpy(rebuilt[None]).float()
    handle = dict(network.named_modules())[layer].register_forward_hook(lambda _m, _i, _output: replacement)
    with torch.no_grad():
        answer = float(network.eval()(pixels)[0, index])
    handle.remove()
    return answer


def total_indices(function, base, changed):
    """Jansen's estimator, sum by sum."""
    answers = [function(point) for point in base]
    mean = sum(answers) / len(answers)
    variance = sum((answer - mean) ** 2 for answer in answers) / (len(answers) - 1)
    found = []
    for points in changed:
        squares = [(answer - function(point)) ** 2 for answer, point in zip(answers, points, strict=True)]
        found.append(sum(squares) / (2 * len(squares)) / variance)
    return found
