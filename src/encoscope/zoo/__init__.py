"""Small trained networks that ship with the package, and the recipes they came from."""
