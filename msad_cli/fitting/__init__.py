"""From a set and a budget to a model that is ready to ship: what `msad fit` does."""
