"""The recipe for Kubernetes: its manifests are valid, and what they would run works.

There is no cluster here. The containers' commands are run as the manifests say, each pod in a
network namespace of its own, with a name server for the headless service, and with the requests
that probes make.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import wool
from publishing.walk import File
from recipes.kit import CLUSTERS, EXAMPLES, meeting, need
from support.network import Host, lan
from support.waiting import until
from wool._plugins import lookup
from wool._settings.settings import Settings

pytestmark = pytest.mark.timeout(120)

FOLDER = EXAMPLES / "kubernetes"
NAMES = ("workers.yaml", "caller.yaml")

PROBE = """
import ssl, sys, urllib.request
anybody = ssl.create_default_context()
anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
print(urllib.request.urlopen(sys.argv[1], context=anybody, timeout=20).status)
"""
"""What the kubelet does with a probe of the scheme HTTPS: it verifies no certificate."""

Document = dict[str, Any]


def documents() -> list[Document]:
    return [one for name in NAMES for one in yaml.safe_load_all((FOLDER / name).read_text())]


def of(kind: str) -> Document:
    (one,) = (document for document in documents() if document["kind"] == kind)
    return one


def pod_of(kind: str) -> Document:
    return of(kind)["spec"]["template"]


def container_of(kind: str) -> Document:
    (one,) = pod_of(kind)["spec"]["containers"]
    return one


# The manifests


@pytest.mark.parametrize("document", documents(), ids=lambda one: one["kind"])
def test_it_fits_the_schema(document: Document) -> None:
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_the_schema_is_looked_at() -> None:
    broken = of("Deployment")
    broken["spec"]["replikas"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_parts_fit_together() -> None:
    labels = pod_of("Deployment")["metadata"]["labels"]
    for selector in (
        of("Service")["spec"]["selector"],
        of("Deployment")["spec"]["selector"]["matchLabels"],
        of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    service, worker = of("Service"), container_of("Deployment")
    assert service["spec"]["clusterIP"] == "None", "headless"
    (port,) = worker["ports"]
    for name in (
        service["spec"]["ports"][0]["targetPort"],
        of("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"],
        *(worker[probe]["httpGet"]["port"] for probe in worker if probe.endswith("Probe")),
    ):
        assert name == port["name"]
    (allowed,) = of("NetworkPolicy")["spec"]["ingress"][0]["from"]
    for pod in (pod_of("Deployment"), pod_of("Job")):
        assert allowed["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    told = variables(container_of("Job"), "")
    assert told["WOOL_DNS__NAME"] == service["metadata"]["name"]
    assert int(told["WOOL_DNS__PORT"]) == port["containerPort"]
    assert pod_of("Deployment")["spec"]["terminationGracePeriodSeconds"] > 30 + 10


def test_settings_are_known() -> None:
    told = variables(container_of("Job"), wool.Credentials.new_token())
    settings = Settings.read(lookup.names, variables=told, folder=Path("/"))
    plugin = lookup.discovery(settings.get("discovery").value).plugin
    options, _ = settings.options(plugin.name, plugin.options)
    assert (options.name, options.port, options.scheme) == ("wool-workers", 7000, "ws")


def test_the_page_shows_all_files() -> None:
    page = (CLUSTERS / "kubernetes.md").read_text()
    for path in FOLDER.iterdir():
        assert f"../examples/kubernetes/{path.name}\n" in page


# What they run


def variables(container: Document, token: str) -> dict[str, str]:
    """The environment of a container; its secret is the token."""
    found: dict[str, str] = {}
    for one in container["env"]:
        if "valueFrom" in one:
            assert one["valueFrom"]["secretKeyRef"] == {"name": "wool", "key": "token"}
        found[one["name"]] = one.get("value", token)
    return found


class Cluster:
    """Pods, each with an address of its own, and the name of the service."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.token = wool.Credentials.new_token()
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WOOL_")
        } | environment

    def start(self, host: Host, kind: str, **more: str) -> subprocess.Popen[str]:
        """Starts the container of a pod."""
        container = container_of(kind)
        return host.popen(
            [*container["command"], *container.get("args", [])],
            env={**self._environment, **variables(container, self.token), **more},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def probe(self, host: Host, name: str) -> None:
        """Makes the request of a probe until it succeeds."""
        asked = container_of("Deployment")[name]["httpGet"]
        (port,) = container_of("Deployment")["ports"]
        url = f"{asked['scheme'].lower()}://{host.address}:{port['containerPort']}{asked['path']}"

        def succeeds() -> bool:
            try:
                told = host.run(["python", "-c", PROBE, url], env=self._environment)
            except subprocess.CalledProcessError:
                return False
            return told == "200\n"

        await until(lambda: asyncio.to_thread(succeeds), within=60, what=f"the {name}")


@contextmanager
def resolving(caller: Host, folder: Path, pods: Sequence[Host]) -> Iterator[None]:
    """Has the name of the service resolve to pods, on the machine of a caller."""
    etc = Path("/etc/netns") / caller.name  # put in the place of /etc by `ip netns exec`
    etc.mkdir(parents=True)
    name = of("Service")["metadata"]["name"]
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch default.svc.cluster.local\n")
    (folder / "hosts").write_text(
        "".join(f"{pod.address} {name}.default.svc.cluster.local\n" for pod in pods)
    )
    caller.popen(
        [
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"),
            *("--no-hosts", f"--addn-hosts={folder / 'hosts'}", "--pid-file", "--user="),
            *("--group=", "--listen-address=127.0.0.1", "--bind-interfaces"),
        ]
    )
    try:
        yield
    finally:
        shutil.rmtree(etc)


async def test_pods(folder: Path, program: File, variables: dict[str, str]) -> None:
    need(("dnsmasq", "dnsmasq-base"))
    program = meeting(program, 2, folder / "met")
    (folder / program.name).write_text(program.text)
    cluster = Cluster(folder, variables)
    async with lan(3) as (one, two, caller):
        workers = [cluster.start(host, "Deployment") for host in (one, two)]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            await cluster.probe(one, probe)
        await cluster.probe(two, "readinessProbe")
        with resolving(caller, folder, [one, two]):
            job = cluster.start(caller, "Job")
            told, _ = await asyncio.to_thread(job.communicate, timeout=60)
        assert (job.returncode, told) == (0, "17984 primes, found by 2 workers\n")
        for worker in workers:  # the Deployment is scaled down
            worker.send_signal(signal.SIGTERM)
            told, _ = await asyncio.to_thread(worker.communicate, timeout=40)
            assert worker.returncode == 0
            assert told.splitlines()[-1].endswith("wool: left")
