"""The contract for strangers is true of the code: vectors, tables of checks, keys, fingerprints and names."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from aggregation.codecs import CODECS
from aggregation.defences import DEFENCES
from aggregation.fold.rejections import OUTCOMES, PARKED
from aggregation.merges import MERGES
from aggregation.optimizers import OPTIMIZERS, initial_state
from aggregation.policy import checks, v1, v2, v3, v4, v5, v6
from aggregation.reasons import REASONS, Reason
from aggregation.schedules import SCHEDULES
from aggregation.selection import SELECTIONS
from aggregation.weights.divisors import DIVISORS
from aggregation.weights.staleness import STALENESS_KINDS
from schemas import avro, objects
from schemas.documents import (
    genesis_v1,
    genesis_v2,
    genesis_v3,
    genesis_v4,
    genesis_v5,
    genesis_v6,
    manifest_v1,
    manifest_v2,
    manifest_v3,
)
from schemas.documents.reading import GENESIS_FORMATS, MANIFEST_FORMATS
from schemas.records import SIGNERS
from tests.factories import TASK, policy, sha, update_record
from tests.small_federation import SmallFederation
from tests.vectors.__main__ import FILES, FOLDER, differing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMAS = FOLDER.parent
VECTORS_BYTES_MAX = 4_200_000
ROW = re.compile(r"^\| (.+) \|$", re.MULTILINE)


@cache
def page(name: str) -> str:
    return (SCHEMAS / name).read_text()


@cache
def vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / name).read_text())
    return found


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    return text.partition(f"\n{heading}\n")[2].partition("\n#")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a table without its head."""
    return [[cell.strip() for cell in row.split("|")] for row in ROW.findall(text)[1:] if "---" not in row]


# -- vectors


def test_the_vectors_and_tables_are_what_the_code_gives() -> None:
    assert [path.name for path in differing()] == [], "`make vectors` writes them; look at what changed first"


def test_there_are_no_other_vectors_and_they_stay_small() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, "README.md"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < VECTORS_BYTES_MAX
    assert set(re.findall(r"`([a-z]+\.json)`", page("vectors/README.md"))) == set(FILES)


def test_every_schema_and_every_outcome_is_in_the_vectors() -> None:
    released = {(one.name, one.version) for one in avro.registry().values()}
    assert {(one["schema"], one["version"]) for one in vectors("records.json")["cases"]} == released
    logs = [*vectors("logs.json")["cases"], *vectors("checks.json")["cases"]]
    assert {verdict["outcome"] for log in logs for verdict in log["verdicts"]} == set(OUTCOMES)


def test_every_member_of_a_family_is_in_the_vectors_and_in_the_text() -> None:
    merges = [one["server"] for one in vectors("merges.json")["cases"]]
    tried = {
        "codec": (
            CODECS,
            {one["codec"] for name in ("codecs.json", "norms.json") for one in vectors(name)["cases"]},
        ),
        "optimizer": (OPTIMIZERS, {one["optimizer"] for one in merges}),
        "divisor": (DIVISORS, {one["divide_by"] for one in merges}),
        "defence": (DEFENCES, {one["kind"] for one in vectors("defences.json")["cases"]}),
        "merge": (MERGES, {one["merge"]["kind"] for one in vectors("robust.json")["cases"]}),
        "selection": (SELECTIONS, {one["selection"]["kind"] for one in vectors("lots.json")["cases"]}),
        "schedule": (SCHEDULES, {one["schedule"]["kind"] for one in vectors("rates.json")["cases"]}),
        "staleness kind": (STALENESS_KINDS, {one["kind"] for one in vectors("staleness.json")["cases"]}),
    }
    for family, (members, found) in tried.items():
        assert set(members) == found, family
        assert [name for name in members if name not in page("meaning.md")] == [], family


# -- the order of checks


def checks_section() -> list[list[str]]:
    text = page("meaning.md").partition("<!-- checks: begin -->")[2].partition("<!-- checks: end -->")[0]
    return rows(text)


def table_of_checks() -> list[tuple[int, str]]:
    return [(int(row[0]), row[2].strip("`")) for row in checks_section()]


def codes_in(text: str) -> set[int]:
    """``201 to 210, 220``."""
    spans = [[int(one) for one in part.split(" to ")] for part in text.split(", ")]
    return {code for span in spans for code in range(span[0], span[-1] + 1)}


def probed() -> Iterator[tuple[int, list[int], str]]:
    for case in vectors("checks.json")["cases"]:
        for row in case["checks"]:
            yield row["check"], row["also"], case["verdicts"][row["offset"]]["outcome"]


def test_a_check_has_the_reasons_that_the_table_says() -> None:
    said = {int(row[0]): codes_in(row[3]) for row in checks_section()}
    for case in vectors("checks.json")["cases"]:
        for row in case["checks"]:
            assert case["verdicts"][row["offset"]]["reason"] in said[row["check"]], row
    of_v1_only, of_parked = {Reason.NOT_WHOLE.code}, {Reason.PARKED.code}
    assert set().union(*said.values()) == set(REASONS) - of_v1_only - of_parked
    for number, outcome in table_of_checks():
        forged = number in {17, 52}
        assert forged or {REASONS[code].outcome or "accepted" for code in said[number]} == {outcome}, number


def test_the_table_of_checks_says_what_the_fold_does() -> None:
    said = dict(table_of_checks())
    assert list(said) == list(range(1, len(said) + 1))
    assert [(check, outcome) for check, _, outcome in probed() if said[check] != outcome] == []
    assert {check for check, _, _ in probed()} == set(said)


def test_a_record_that_fails_several_checks_gets_the_first_one_s_outcome() -> None:
    """What shows the order: most checks are tried by a record that fails a later one with another outcome as well."""
    said = dict(table_of_checks())
    assert all(check < min(also, default=99) for check, also, _ in probed())
    shown = {check for check, also, outcome in probed() if any(said[one] != outcome for one in also)}
    nothing_follows = {1, 3, 16, 48, 50, 51, 56, 57, 75, 76}
    same_outcome_follows = {5, 6, *range(36, 43), 47, 49}
    assert set(said) - shown == nothing_follows | same_outcome_follows


def test_outcomes_of_the_table_are_all_but_that_of_parked_records() -> None:
    assert {outcome for _, outcome in table_of_checks()} == set(OUTCOMES) - {PARKED}


# -- documents

TENSORS = (
    genesis_v1.TensorV1,
    genesis_v2.TensorV2,
    genesis_v3.TensorV3,
    genesis_v4.TensorV4,
    genesis_v5.TensorV5,
    genesis_v6.TensorV6,
)
REGIONS = (
    genesis_v1.RegionV1,
    genesis_v2.RegionV2,
    genesis_v3.RegionV3,
    genesis_v4.RegionV4,
    genesis_v5.RegionV5,
    genesis_v5.RegionV5,
)


def by_format(*kinds: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    return {f"v{number}": kind for number, kind in enumerate(kinds, 1)}


DOCUMENTS: dict[str, dict[str, type[msgspec.Struct]]] = {
    "## Genesis": by_format(*GENESIS_FORMATS.values()),
    "### Genesis: a region": by_format(*REGIONS),
    "### Genesis: a tensor": by_format(*TENSORS),
    "### Genesis: the model": {
        "v3": genesis_v3.ModelV3,
        "v4": genesis_v4.ModelV4,
        "v5": genesis_v5.ModelV5,
        "v6": genesis_v5.ModelV5,
    },
    "### Genesis: an object": {
        "v3": genesis_v3.ObjectV3,
        "v4": genesis_v4.ObjectV4,
        "v5": genesis_v5.ObjectV5,
        "v6": genesis_v5.ObjectV5,
    },
    "### Genesis: the code": {
        "v3": genesis_v3.CodeV3,
        "v4": genesis_v4.CodeV4,
        "v5": genesis_v5.CodeV5,
        "v6": genesis_v5.CodeV5,
    },
    "### Genesis: the metric": {
        "v3": genesis_v3.MetricV3,
        "v4": genesis_v4.MetricV4,
        "v5": genesis_v5.MetricV5,
        "v6": genesis_v5.MetricV5,
    },
    "### Genesis: the parent": {
        "v3": genesis_v3.ParentV3,
        "v4": genesis_v4.ParentV4,
        "v5": genesis_v5.ParentV5,
        "v6": genesis_v5.ParentV5,
    },
    "### Genesis: the records": {
        "v4": genesis_v4.RecordsV4,
        "v5": genesis_v5.RecordsV5,
        "v6": genesis_v5.RecordsV5,
    },
    "## Manifest": by_format(*MANIFEST_FORMATS.values()),
    "### Manifest: an input": by_format(manifest_v1.InputV1, manifest_v2.InputV2, manifest_v3.InputV3),
    "### Manifest: what is usual": {"v3": manifest_v3.UsualV3},
    "### Manifest: its merger": {"v2": manifest_v2.MergerV2, "v3": manifest_v3.MergerV3},
}


@pytest.mark.parametrize("heading", DOCUMENTS)
def test_every_key_of_a_document_stands_in_its_table(heading: str) -> None:
    said: dict[str, set[str]] = {}
    for key, formats, _ in rows(section(page("documents.md"), heading)):
        for one in formats.split():
            said.setdefault(one, set()).add(key.strip("`"))
    assert said == {name: set(kind.__struct_fields__) for name, kind in DOCUMENTS[heading].items()}


def keys_of(document: type[msgspec.Struct]) -> set[str]:
    """Every key of a policy, with its section's name."""
    found = set()
    for one in msgspec.structs.fields(document):
        inner = one.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            found |= {f"{one.name}.{name}" for name in inner.__struct_fields__}
        else:
            found.add(one.name)
    return found


def test_every_key_of_a_policy_stands_in_the_table_with_its_bounds() -> None:
    table = rows(section(page("documents.md"), "## Policy"))
    documents: dict[str, type[msgspec.Struct]] = {
        "v1": v1.DocumentV1,
        "v2": v2.DocumentV2,
        "v3": v3.DocumentV3,
        "v4": v4.DocumentV4,
        "v5": v5.DocumentV5,
        "v6": v6.DocumentV6,
    }
    for name, document in documents.items():
        assert {row[0].strip("`") for row in table if name in row[1].split()} == keys_of(document)
    said = {row[0].strip("`"): (float(row[2]), float(row[3])) for row in table if row[2]}
    of_v2 = v6.meaning_of_v5(v5.meaning_of_v4(v4.meaning_of_v3(v3.meaning_of_v2(v2.DocumentV2()))))
    formats = ((v6.DocumentV6(), "defence"), (of_v2, "anomaly"))
    assert said == {key: (low, high) for one in formats for key, _, low, high in checks.ranges(*one)}


def test_every_codec_stands_in_the_table_with_its_length() -> None:
    table = {
        row[0].strip("`"): row[1] for row in rows(section(page("README.md"), "## Bytes")) if len(row) == 3
    }
    lengths: dict[str, Callable[[int], int]] = {
        "n bytes": lambda n: n,
        "4n bytes": lambda n: 4 * n,
        "⌈n / 2⌉ bytes": lambda n: -(-n // 2),
    }
    assert list(table) == list(CODECS)
    for name, text in table.items():
        (length,) = [rule for said, rule in lengths.items() if text.startswith(said)]
        assert [length(n) for n in range(1, 9)] == [CODECS[name].data_bytes(n) for n in range(1, 9)], name


def test_the_formats_of_documents_are_named() -> None:
    for name in (
        *GENESIS_FORMATS,
        *MANIFEST_FORMATS,
        v1.FORMAT,
        v2.FORMAT,
        v3.FORMAT,
        v4.FORMAT,
        v5.FORMAT,
        v6.FORMAT,
    ):
        assert f"`{name}`" in page("documents.md")


def test_every_name_of_the_store_stands_in_the_table() -> None:
    said = {row[0].strip("`") for row in rows(section(page("documents.md"), "## Where things lie"))}
    one = sha("an object")
    made = {
        objects.object_key(TASK, one),
        objects.manifest_key(TASK, 0),
        *(key(TASK, 12) for key in (objects.manifest_key, objects.model_key)),
        *(key(TASK, 12) for key in (objects.optimizer_key, objects.facts_key)),
    }
    made = {name.replace(f"{TASK}/", "<task>/").replace("/12/", "/<n>/") for name in made}
    hashed = "<first two digits of the hash>/<hash>"
    assert said == {name.replace(f"{one[:2]}/{one}", hashed) for name in made}


def test_every_file_of_a_version_has_the_keys_and_arrays_that_the_page_says() -> None:
    federation = SmallFederation()
    federation.rounds(1)
    said = {row[0].strip("`") for row in rows(section(page("documents.md"), "## Facts"))}
    assert said == set(federation.objects.facts(1))
    (files,) = [row[1] for row in rows(section(page("documents.md"), "## Files")) if "optimizer" in row[0]]
    arrays = {
        name
        for optimizer in OPTIMIZERS
        for momentum in (0.0, 0.9)
        for name in initial_state(policy(server={"optimizer": optimizer, "momentum": momentum}).server, 1)
    }
    assert arrays == set(re.findall(r"`(\w+)`", files)) - set(OPTIMIZERS) - {"weights"}


def test_the_table_of_records_says_who_signs_which() -> None:
    said = {row[0]: row[1] for row in rows(page("README.md").partition("\n## Bytes\n")[0])}
    for kind, role in SIGNERS.items():
        assert said[kind].startswith(role.value), kind
    assert set(said) - set(SIGNERS) == {"SignedEnvelope", "Verdict", "PartitionState"}


# -- what a reader takes


def update_of(items: int) -> bytes:
    """A ClientUpdate of over 1 MiB and so many items, most of them dimensions of a tensor."""
    tensor = {"name": "", "shape": [], "scale": 1.0, "data": bytes(1 << 20)}
    record = update_record("d-0001") | {"client_metrics": {}, "tensors": [tensor]}
    # Each dimension is an item, and so are three bytes of their number, and the 0 behind them for the 0 alone.
    shape = [1] * (items - items_in(record) - 3)
    record |= {"tensors": [tensor | {"shape": shape}]}
    assert items_in(record) == items
    return avro.encode("ClientUpdate", record)


def items_in(record: dict[str, Any]) -> int:
    """Items by the rule of the README."""

    def varint(number: int) -> int:
        return max(1, -(-max(1, (2 * number if number >= 0 else -2 * number - 1).bit_length()) // 7))

    def text(value: str | bytes) -> int:
        size = len(value.encode() if isinstance(value, str) else value)
        return varint(size) + 1

    plain = sum(text(record[name]) for name in ("task", "region", "device_id", "base_sha256", "update_id"))
    plain += (
        sum(varint(record[name]) for name in ("base_version", "num_examples", "created_at")) + 1
    )  # local_loss
    plain += 1  # codec
    tensors = varint(len(record["tensors"])) + 1
    for one in record["tensors"]:
        shape = sum(map(varint, one["shape"])) + (varint(len(one["shape"])) + 1 if one["shape"] else 1)
        tensors += text(one["name"]) + shape + 1 + text(one["data"])
    return plain + tensors + 1


def test_items_are_counted_as_the_text_says() -> None:
    assert avro.decode(update_of(avro.ITEMS_MAX))[0].name == "ClientUpdate"
    with pytest.raises(avro.CodecError, match="items"):
        avro.decode(update_of(avro.ITEMS_MAX + 1))


def test_an_enum_s_index_may_count_from_the_end() -> None:
    fields = vectors("records.json")["cases"]
    barrier = bytes.fromhex(next(one["bytes"] for one in fields if one["schema"] == "Barrier"))
    reasons = [avro.decode(barrier[:-1] + bytes([index]))[1]["reason"] for index in (1, 3, 5)]
    assert reasons == ["rollback", "policy", "version"]
    for index in (6, 7):
        with pytest.raises(avro.CodecError):
            avro.decode(barrier[:-1] + bytes([index]))


@pytest.mark.parametrize("name", ["README.md", "documents.md", "meaning.md", "vectors/README.md"])
def test_links_to_places_within_the_texts_are_alive(name: str) -> None:
    dead = []
    for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page(name)):
        target = (SCHEMAS / name).parent / path if path else SCHEMAS / name
        headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
        dead += [f"{path}#{anchor}"] if anchor not in slugs else []
    assert dead == []
