"""What the estimators of all methods share: scikit-learn's parameters, an encoder that is never copied, a display."""

from __future__ import annotations

import html
import inspect
from typing import Any, TypeVar

from sklearn.base import BaseEstimator, clone

from encoscope.errors import UsageError

E = TypeVar("E", bound="Estimator")

_SHARED = ("encoder", "vlm", "captions", "progress")
"""Parameters that a clone shares with its original: copying a network would cost its memory again."""


class Estimator(BaseEstimator):
    """The base of ``Nave``, ``Vital``, ``Falcon``, ``Craft`` and ``Circuit``: scikit-learn's estimators on an encoder.

    Nothing is computed in the constructor; ``fit(X, y=None)`` gives attributes whose names end in ``_``. The same
    parameters mean the same everywhere:

    - ``encoder``: the frozen network, an ``Encoder``, a module or a source string.
    - ``preset`` and the method's settings; None leaves the preset's own value.
    - ``random_state``: the seed of everything random.
    - ``batch_size``: images at a time; it does not change the result.
    - ``cache_dir``: the folder for what is kept between runs; None is the user's cache.
    - ``progress``: "auto" (the default), "bar", "lines", "none", or a callable; see ``encoscope.progress.Progress``.
    """

    def __sklearn_clone__(self: E) -> E:
        parameters = self.get_params(deep=False)
        return type(self)(
            **{name: value if name in _SHARED else clone(value, safe=False) for name, value in parameters.items()}
        )

    def _changed(self) -> dict[str, Any]:
        """The parameters that differ from their defaults."""
        defaults = type(self)._get_param_defaults()
        return {
            name: value
            for name, value in self.get_params(deep=False).items()
            if name not in defaults or not _equal(value, defaults[name])
        }

    @classmethod
    def _get_param_defaults(cls) -> dict[str, Any]:
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {item.name: item.default for item in parameters if item.default is not item.empty}

    @property
    def _fitted(self) -> dict[str, Any]:
        """The fitted attributes by name."""
        return {name: value for name, value in sorted(vars(self).items()) if name.endswith("_") and name[0] != "_"}

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise UsageError(f"this {type(self).__name__} is not fitted yet: call fit first")

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        text = ", ".join(f"{name}={value!r}" for name, value in self._changed().items())
        return f"{type(self).__name__}({text if len(text) <= N_CHAR_MAX else text[: N_CHAR_MAX - 3] + '...'})"

    def _html_repr(self) -> str:
        """What scikit-learn shows in notebooks."""
        rows = [(name, repr(value)) for name, value in self._changed().items()]
        rows += [(name, _short(value)) for name, value in self._fitted.items()]
        cells = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(text[:200])}</td></tr>"
            for name, text in rows
        )
        state = "fitted" if self._fitted else "not fitted"
        return f"<b>{type(self).__name__}</b> ({state})<table>{cells}</table>"


def _equal(value: Any, default: Any) -> bool:
    return value is default or (
        type(value) is type(default) and isinstance(value, int | float | str) and value == default
    )


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} {tuple(shape)}"
    return f"{len(value)} items" if isinstance(value, list | tuple | dict) and len(value) > 8 else repr(value)
