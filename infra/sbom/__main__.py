"""Add to a CycloneDX document of our Python packages what the local stack runs besides. ``make sbom`` calls this.

Kafka's jars by their hashes, and the modules that Go builds. Reproducible: the same tree gives the same document.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import click

from fluvial.local import downloads
from fluvial.local.pinned import read_pins
from fluvial.local.resources import infra_file

GO_MODULES: Final = {
    "minio/version.txt": downloads.MINIO_MODULE,
    "toxiproxy/version.txt": downloads.TOXIPROXY_MODULE,
}


def jars() -> list[dict[str, Any]]:
    """Each jar that ``fluvial up`` runs Kafka from."""
    pins = read_pins(infra_file(downloads.KAFKA_PINS).read_text(encoding="utf-8"))
    return [
        {
            "type": "library",
            "bom-ref": f"jar:{name}",
            "name": name.removesuffix(".jar").rpartition("-")[0],
            "version": name.removesuffix(".jar").rpartition("-")[2],
            "purl": f"pkg:generic/{name}?checksum=sha256:{sha256}",
            "hashes": [{"alg": "SHA-256", "content": sha256}],
        }
        for name, sha256 in sorted(pins.items())
    ]


def go_modules() -> list[dict[str, Any]]:
    """Each program that Go builds, by the version that its checksum database vouches for."""
    found = []
    for file, module in sorted(GO_MODULES.items()):
        version = infra_file(file).read_text(encoding="utf-8").strip()
        found.append(
            {
                "type": "application",
                "bom-ref": f"go:{module}",
                "name": module,
                "version": version,
                "purl": f"pkg:golang/{module}@{version}",
            }
        )
    return found


def main(path: Path) -> None:
    """Add them to the document at ``path``."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["components"] = [*document.get("components", []), *jars(), *go_modules()]
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    click.echo(f"{path}: {len(document['components'])} components")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
