"""msad doctor: what is installed, what the machine has, and what to do about it."""

from dataclasses import asdict

from msad_cli.cli import options
from msad_cli.errors import DeviceError


def doctor(as_json: options.Json = False) -> None:
    """Check torch, GPU, CPU, decoder, evaluators, command, extras, shared memory, cache. Exit 5 if one is unusable."""
    from msad_cli.cli.output.json_output import print_json
    from msad_cli.cli.output.tables import print_beside
    from msad_cli.system.examination import examine

    checks = []
    for each in examine():
        checks.append(each)
        if not as_json:
            print_beside(f"{each.state:8} {each.name:17} ", each.found)
        if not as_json and each.advice:
            print_beside(f"{'':8} {'':17} → ", each.advice)
    if as_json:
        print_json("doctor", checks=[asdict(each) for each in checks])
    for each in checks:
        if each.state == "error":
            raise DeviceError(f"{each.name}: {each.found}", each.advice, code="machine-unusable")
