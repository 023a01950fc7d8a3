"""How good the model of a run is: what is measured, what is kept, what is said of it."""
