"""One file a distillation loss; table.py lists them."""
