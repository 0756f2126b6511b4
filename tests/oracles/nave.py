"""NAVE's Algorithm 1, literally: every map upsampled, the matrix written out, scikit-learn's clustering."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.decomposition import PCA


def composite_matrix(maps, size):
    """Lines 2-11 for one image: ``maps`` are [C_i, h_i, w_i], ``size`` is (H, W); gives [H * W, sum C_i]."""
    act = []
    for x in maps:
        u = torch.nn.functional.interpolate(x[None], size=size, mode="bicubic", align_corners=False)[0]
        channels = u.shape[0]
        u = u.permute(1, 2, 0).reshape(size[0] * size[1], channels).numpy()
        norm = np.linalg.norm(u, ord=2, axis=1, keepdims=True)
        u = np.divide(u, norm, out=np.zeros_like(u), where=norm > 0)  # all-zero pixels of ReLU maps
        act.append(u / (1 + channels))
    return np.concatenate(act, axis=1)


def kmeans_from(matrix, centres):
    """Line 12 with k-means from given centres, run until nothing changes: labels and inertia."""
    # The literal scaling makes squared norms of 1e-5: scikit-learn works on the matrix scaled up, which is the same
    # problem, because its own arithmetic on empty clusters and tolerances is made for numbers around one.
    scale = 1 / np.abs(matrix).max()
    fitted = KMeans(len(centres), init=centres * scale, n_init=1, tol=0, max_iter=1000, algorithm="lloyd")
    fitted.fit(matrix * scale)
    return fitted.labels_, fitted.inertia_ / scale**2


def ward(matrix, n_clusters):
    """Line 12 with Ward's linkage on all pixels."""
    return AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(matrix)


def pca(matrix, n_components):
    """Appendix F, as the authors do: the component of largest absolute score."""
    return np.abs(PCA(n_components, svd_solver="full").fit_transform(matrix)).argmax(1)
