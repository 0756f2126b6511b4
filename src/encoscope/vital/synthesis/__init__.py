"""The one synthesis loop: parametrization, objective, transforms, schedule."""
