"""What many tests type: the smallest model, and a computation that is the same everywhere."""

SMALLEST = ["--init=none", "--backbone=resnet18", "--width=0.125", "--head-channels=64", "--head-convs=1"]
EXACT = ["--device=cpu", "--precision=fp32", "--workers=0"]
