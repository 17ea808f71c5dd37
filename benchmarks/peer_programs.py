"""What runs in the peers' own environments, as text: the smallest server and client that their documentation shows.

Clients do not train: they send back the model with a fixed step added (NVFlare: the step), so that the system is
measured. Each takes its numbers from the environment (``PEERS_*``), and writes down when a round ended.
"""

from __future__ import annotations

from typing import Final

STEP: Final = 0.001
"""What a client adds to every parameter."""

FLOWER_PROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "peer"
version = "1.0.0"
description = "A round without training"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "peers"

[tool.flwr.app.components]
serverapp = "peer.apps:server"
clientapp = "peer.apps:client"

[tool.flwr.app.config]
"""

FLOWER_APPS: Final = f"""\
import json
import os
import time

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message, context):
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    content = {{"arrays": ArrayRecord([model + np.float32({STEP})]), "metrics": MetricRecord({{"num-examples": 1}})}}
    return Message(content=RecordDict(content), reply_to=message)


class Noted(FedAvg):
    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        result = super().aggregate_train(server_round, replies)
        good = sum(reply.has_content() for reply in replies)
        with open(os.environ["PEERS_ROUNDS"], "a") as file:
            file.write(json.dumps([server_round, good, time.time()]) + "\\n")
        return result


@server.main()
def main(grid, context):
    clients = int(os.environ["PEERS_CLIENTS"])
    strategy = Noted(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
    model = ArrayRecord([np.zeros(int(os.environ["PEERS_PARAMETERS"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=model, num_rounds=int(os.environ["PEERS_ROUNDS_MAX"]))
"""

FLOWER_SIMULATION: Final = """\
import os

from flwr.simulation import run_simulation
from peer.apps import client, server

clients = int(os.environ["PEERS_CLIENTS"])
cores = os.cpu_count()
resources = {"num_cpus": 1.0, "num_gpus": 0.0}
backend = {"init_args": {"num_cpus": cores}, "client_resources": resources}
run_simulation(server, client, num_supernodes=clients, backend_config=backend)
"""

FLOWER_CONFIGURATION: Final = """\
[superlink]
default = "peers"

[superlink.peers]
address = "{address}"
insecure = true
"""

NVFLARE_CLIENT: Final = f"""\
import os

import numpy as np
import nvflare.client as flare

flare.init()
step = np.full(int(os.environ["PEERS_PARAMETERS"]), {STEP}, np.float32)
while flare.is_running():
    if flare.receive() is None:
        break
    flare.send(flare.FLModel(params={{"numpy_key": step}}, params_type="DIFF", meta={{"NUM_STEPS_CURRENT_ROUND": 1}}))
"""

NVFLARE_JOB: Final = """\
import os

import numpy as np
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe
from nvflare.recipe import SimEnv

clients = int(os.environ["PEERS_CLIENTS"])
recipe = NumpyFedAvgRecipe(
    name="peer",
    model=np.zeros(int(os.environ["PEERS_PARAMETERS"]), np.float32),
    min_clients=clients,
    num_rounds=int(os.environ["PEERS_ROUNDS_MAX"]),
    train_script="client.py",
)
# A client asks for its next task every 2 s by default: the figures would be of that pause.
recipe.add_server_config({"server": {"task_request_interval": 0.05}})
recipe.execute(SimEnv(num_clients=clients, num_threads=clients, workspace_root=os.environ["PEERS_WORKSPACE"]))
"""
