"""Two or three lines of every command as one would type them: the end of its ``--help``.

One table, so that a test can parse each line, and see that no command lacks them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

Example = tuple[str, str]
"""What comes after ``fluvial``, and what it is for."""

COLUMNS: Final = 80
EXAMPLES: Final[dict[str, tuple[Example, ...]]] = {
    "demo": (
        ("demo", "40 devices, 4 attackers, an audit at the end"),
        ("demo --devices 12 --versions 8", "a short one"),
        ("demo --chaos 6", "kill -9 workers and merger while it runs"),
    ),
    "new": (("new mine", "writes mine.py"),),
    "run": (
        ("run mine.py --simulate", "in this process, in seconds"),
        ("run mine.py", "on the local stack, signed and audited"),
        ("run mine.py --continue --versions 10", "ten more versions on top"),
        ("run mine.py --from mine@20 --name tuned", "a new task, from a checkpoint"),
        ("run --flower package.client_app:app --simulate", "a Flower app, as it is"),
        ("run mine.py --until accuracy=0.95 --versions 100", "ends when it is reached"),
        ("run mine.py --fresh --set learning_rate=0.05", "a new task, another setting"),
    ),
    "simulate": (
        ("simulate digits --devices 500 --processes 2", "500 devices in virtual time"),
        ("simulate mine.py --delays pareto --dropouts 0.1", "heavy tails, lost rounds"),
        ("simulate --synthetic 10000 --devices 100000 --updates 100000", "what a crowd's size does"),
    ),
    "compare": (
        ("compare policy.toml policy.toml --seeds 3", "side by side, over three seeds"),
        ("compare policy.toml --target accuracy=0.8 --report compare.html", "what it takes, with curves"),
    ),
    "up": (("up", "Kafka and an object store on this machine"), ("up --store file", "a folder, not MinIO")),
    "down": (("down", "data stays"), ("down --delete-data --yes", "and data goes")),
    "doctor": (("doctor", "a table of checks"), ("doctor --json", "for a program")),
    "config show": (("config show --sources", "each value, and where it comes from"),),
    "task create": (
        ("task create digits", "a shipped task"),
        ("task create mine.py --regions eu:4,us:4", "your own, in two regions"),
        ("task create mine.py --set momentum=0.9", "with a key of its CONFIG"),
    ),
    "task check": (("task check mine.py", "one batch of train() and evaluate(), in a second"),),
    "task show": (("task show", "the newest"), ("task show mine --json", "for a program")),
    "task stop": (("task stop mine", "its processes here; data stays"),),
    "task discard": (
        ("task discard mine --version 94", "what no merger made, and stands there as version 94"),
    ),
    "task rm": (
        ("task rm mine", "asks; its topics, objects and keys go"),
        ("task rm mine --yes --keep-keys", "does not ask, leaves the keys"),
    ),
    "task acls": (
        ("task acls digits", "lines of Kafka's own tool, for a task that was created here"),
        (
            "task acls digits --regions eu,us --format strimzi",
            "as users of Strimzi's, before there is a task",
        ),
    ),
    "task list": (("task list", "all of this machine"),),
    "ca init": (
        ("ca init --task mine --region eu", "before the task is created"),
        ("ca init --task mine --region eu --encrypt", "its key encrypted"),
    ),
    "ca issue": (
        ("ca issue --task mine --region local phone-17", "a device's key"),
        ("ca issue --task mine --region local --role worker worker-1", "a worker's"),
        (
            "ca issue --task mine --region local --role worker --key 'pkcs11:token=hsm;object=w2' w2",
            "of a key in a token",
        ),
    ),
    "ca renew": (
        ("ca renew --task mine --region local phone-17", "before its certificate ends"),
        ("ca renew --task mine --region control --role merger merger", "a merger's; then start it again"),
    ),
    "ca list": (("ca list --task mine", "with expiry and serial"),),
    "revoke": (
        ('revoke --task mine --region local --reason "key stolen" phone-17', "from now on"),
        (
            'revoke --task mine --region local --role worker --reason "key stolen" worker-local',
            "a worker's certificate",
        ),
    ),
    "park": (
        ('park --task mine --region local --partition 0 --offset 1234 --reason "FLV-3202"', "one record"),
    ),
    "pardon": (
        (
            'pardon phone-17 --task mine --region local --reason "its data are mended"',
            "its updates are judged again",
        ),
    ),
    "worker": (("worker --task mine --region local --name worker-1", "folds that region's updates"),),
    "edge create": (
        ("edge create local.shop-7 --task mine", "its topics, and its two keys by the region's CA"),
    ),
    "edge start": (
        ("edge start local.shop-7 --task mine", "on the region's own Kafka"),
        ("edge start local.shop-7 --task mine --parent kafka.eu.example:9092", "on a Kafka of its own"),
    ),
    "merger": (("merger --task mine", "makes versions"),),
    "evaluator": (("evaluator --task mine", "evaluates each"),),
    "guardian": (
        ("guardian --task mine", "by guide_data() of the task file, else by held-out examples"),
        ("guardian --task mine --data mine.npz", "by examples of one's own"),
    ),
    "fleet": (
        ("fleet --task mine --devices 20", "until Ctrl-C"),
        ("fleet --task mine --devices 20 --versions 30", "until version 30 is announced"),
    ),
    "model export": (
        ("model export --task mine --format torchscript", "a file that runs with torch alone"),
        (
            "model export --task mine --version 12 --format onnx --out model.onnx",
            "an earlier one, for ONNX Runtime",
        ),
    ),
    "model get": (
        ("model get --task mine", "the newest, to mine-VERSION.safetensors"),
        ("model get --task mine --version 12 --out model.safetensors", "an earlier one"),
    ),
    "device fetch": (
        ("device fetch --task mine --region local --id phone-17 --out model.safetensors", "to a file"),
    ),
    "device publish": (
        (
            "device publish --task mine --region local --id phone-17 --examples 100 model.safetensors",
            "and waits for the verdict",
        ),
    ),
    "device run": (
        ("device run --task mine --region local --id phone-17 --shard 1/40 --rounds 5", "five versions"),
    ),
    "status": (("status", "the newest task"), ("status --task mine --json", "for a program")),
    "versions": (("versions --task mine --limit 50", "the newest 50"),),
    "lineage": (
        ("lineage 3 --task mine", "which updates made version 3"),
        ("lineage 3 --task mine --refold", "from the signed updates themselves"),
    ),
    "verdicts": (
        ("verdicts --task mine", "the newest updates"),
        ("verdicts --task mine --follow --json", "as a stream"),
    ),
    "devices": (
        ("devices --task mine", "the most suspected first"),
        ("devices --task mine --quarantined --json", "who is in quarantine, for a program"),
    ),
    "logs": (
        ("logs --task mine", "the newest 40 lines of all its processes"),
        ("logs --task mine --process merger --follow", "one process, until Ctrl-C"),
    ),
    "tap": (
        ("tap --task mine --kind version --no-follow", "a record a version"),
        ("tap --task mine --since 10m --format json", "the last ten minutes, and what comes"),
    ),
    "parquet": (
        ("parquet --task mine parquet/", "the metrics topic, for DuckDB and pandas"),
        ("parquet --task mine --topic verdicts parquet/", "what became of each update"),
    ),
    "track": (
        ("track --to mlflow=http://127.0.0.1:5000", "a run a task, a step a version"),
        ("track --to tensorboard=runs --follow", "goes on with what comes"),
    ),
    "inspect": (("inspect local 0 5 --task mine", "record 5 of partition 0 of the region local"),),
    "audit": (
        ("audit --task mine", "every version, bit for bit"),
        ("audit --task mine --every 600", "for ever; a difference is an alert"),
    ),
    "canary": (
        ("canary --task mine --region local", "while `fluvial worker --task mine --region local` runs"),
        ("canary --task mine --region local --once", "for scripts"),
    ),
    "console": (("console", "all tasks of this machine"), ("console --task mine --port 0", "a free port")),
    "arena": (
        ("arena --quick", "four attacks against the fold's own defences"),
        ("arena --attacks sign-flip,mimic --defences all", "the papers' rules beside them"),
        ("arena --seeds 3 --malicious 0.2,0.3 --dirichlet 0.5,0.1 --report arena.html", "the whole table"),
    ),
    "chaos": (("chaos", "a stack of its own; it does not touch your tasks"),),
    "completion": (("completion bash", "print it; eval it in ~/.bashrc"),),
}


def add_examples(command: click.Command, path: str) -> None:
    """Give ``command``, called by ``path``, and all below it their examples and summaries that are not cut short."""
    found = list(_examples_of(command, path))
    if found:
        command.epilog = "\n".join(["\b", "Examples:", *_rows(found)])
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            child.short_help = first_sentence(child.help or "")
            add_examples(child, f"{path} {name}")


def first_sentence(text: str) -> str:
    """The first sentence of a help text, whole: click would cut it where a line ends."""
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    head, dot, _ = paragraph.partition(". ")
    return head.removesuffix(".") + "." if dot else paragraph


def _rows(found: list[Example]) -> list[str]:
    """Each purpose behind its line, or above it where that would not fit into a terminal."""
    width = max(len(line) for line, _ in found)
    if all(len(f"    fluvial {line:{width}}  # {purpose}") <= COLUMNS for line, purpose in found):
        return [f"  fluvial {line:{width}}  # {purpose}" for line, purpose in found]
    return [row for line, purpose in found for row in (f"  # {purpose}", f"  fluvial {line}")]


def _examples_of(command: click.Command, path: str) -> Iterator[Example]:
    """Its own; for a group the first of each command in it."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from list(_examples_of(child, f"{path} {name}"))[:1]
    else:
        yield from EXAMPLES.get(path, ())
