"""``fluvial task acls``: the least that each role needs of Kafka and of the store, for whoever administers them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from backends.settings import DEFAULT_BUCKET
from fluvial.terminal.invocation import Invocation, json_option, pass_invocation
from fluvial.terminal.numbers import bucket_name

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("task_name", metavar="[TASK]", required=False)
@click.option(
    "--format", "form", type=click.Choice(["kafka", "strimzi", "minio"]), default="kafka", show_default=True,
    help="kafka: lines of kafka-acls.sh. strimzi: a KafkaUser for each role and region. minio: a policy document of S3 "
    "for each role, by its name, as JSON.",
)  # fmt: skip
@click.option(
    "--regions",
    metavar="R[,R]",
    help="Its regions. Default: those of the task that was created here.",
)
@click.option(
    "--guided", is_flag=True, help="With --regions: of a task whose policy is guided by a guardian."
)
@click.option("--heartbeats", is_flag=True, help="With --regions: of a task that has a topic of heartbeats.")
@click.option(
    "--principal",
    "principals",
    multiple=True,
    metavar="ROLE=PRINCIPAL",
    help="Who has a role, such as worker=User:worker-{region}. Default: the subject of its certificate, "
    "User:CN=ROLE,OU=ROLE,O=REGION (O=control for a role without a region).",
)
@click.option("--cluster", default="kafka", show_default=True, help="Strimzi's name of the cluster.")
@click.option(
    "--bootstrap-server", "servers", default="localhost:9092", show_default=True, help="Where the lines of kafka lead."
)  # fmt: skip
@click.option(
    "--bucket",
    callback=bucket_name,
    default=DEFAULT_BUCKET,
    show_default=True,
    help="The store's bucket, for minio.",
)
@json_option
@pass_invocation
def acls(
    invocation: Invocation,
    *,
    task_name: str | None,
    form: str,
    regions: str | None,
    guided: bool,
    heartbeats: bool,
    principals: Sequence[str],
    cluster: str,
    servers: str,
    bucket: str,
) -> None:
    """Print what each role of a task needs of Kafka, or of the store (minio), and no more: for their administrators.

    Nothing is asked and nothing is changed: with --regions the task need not exist yet.
    """
    from backends.tasks import read_task_file
    from fluvial.local.acls import (
        Permitted,
        by_principal,
        commands_of,
        minio_of,
        parse_principals,
        strimzi_of,
        yaml_of,
    )
    from fluvial.local.create import parse_regions
    from learning.names import check_task_name

    who = parse_principals(principals)
    if regions is None:
        file = read_task_file(invocation.home, task_name)
        of = Permitted(file.task, sorted(file.regions), file.is_guided, file.has_heartbeats)
    else:
        of = Permitted(check_task_name(task_name, "TASK"), sorted(parse_regions(regions)), guided, heartbeats)
    output = invocation.output
    if form == "minio":
        policies = minio_of(of, bucket)
        output.document({"task": of.task, "policies": policies})
        output.print(json.dumps(policies, indent=2))
        return
    output.document(
        {
            "task": of.task,
            "grants": [
                {
                    "principal": principal,
                    "role": grant.role,
                    "region": grant.region,
                    "kind": grant.kind,
                    "name": grant.name,
                    "pattern": "prefixed" if grant.is_prefix else "literal",
                    "operations": list(grant.operations),
                }
                for principal, grants in by_principal(of, who)
                for grant in grants
            ],
        }
    )
    if form == "strimzi":
        output.print(yaml_of(strimzi_of(of, who, cluster)).rstrip())
        return
    for line in commands_of(of, who, servers):
        output.print(line)
