"""The one synthesis loop: parametrisation, objective, transforms, schedule."""
