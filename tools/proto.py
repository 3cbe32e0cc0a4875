"""Compile every .proto file of the package; with `--check`, only report whether the committed code is up to date.

Run by `make proto` and `make check`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]


def compile_into(target: Path, source: str) -> dict[str, str]:
    """Compile one .proto file (a path below the root); return the generated code by path below the root."""
    status = protoc.main(["protoc", f"-I{ROOT}", f"--python_out={target}", f"--pyi_out={target}", str(ROOT / source)])
    if status:
        message = f"{source}: does not compile"
        raise SystemExit(message)
    stem = source.removesuffix(".proto")
    return {f"{stem}_pb2{suffix}": (target / f"{stem}_pb2{suffix}").read_text("utf-8") for suffix in (".py", ".pyi")}


def main(*, check: bool) -> int:
    """Compile all .proto files; with `check`, return 1 if the committed code differs."""
    stale: list[str] = []
    for proto in sorted((ROOT / "otelwp_agent").rglob("*.proto")):
        with tempfile.TemporaryDirectory() as folder:
            generated = compile_into(Path(folder), proto.relative_to(ROOT).as_posix())
        for path, text in generated.items():
            committed = ROOT / path
            if committed.exists() and committed.read_text("utf-8") == text:
                continue
            stale.append(path)
            if not check:
                committed.write_text(text, "utf-8")
    for path in stale:
        print(f"{path}:1: differs from its .proto; run `make proto` to write it" if check else f"wrote {path}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
