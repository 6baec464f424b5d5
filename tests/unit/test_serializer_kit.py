"""The conformance kit of serializers: ours pass it, broken ones do not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unit.brokenkit import Run, running
from unit.serializers.broken import Broken
from wool._backends import cloudpickle, dill
from wool.abc import Serializer
from wool.testing import SerializerSuite


class TestCloudpickle(SerializerSuite):
    def serializer(self) -> Serializer:
        return cloudpickle.make(cloudpickle.Options())


class TestDill(SerializerSuite):
    def serializer(self) -> Serializer:
        return dill.make(dill.Options())


class TestSound(Broken):
    """What the broken ones are made of is sound."""

    patience = 10.0


KINDS = ("values", "buffers")


@pytest.fixture(scope="module", autouse=True)
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Run]]:
    folder = tmp_path_factory.mktemp("broken")
    yield from running(request, folder, [f"unit.serializers.broken_{kind}" for kind in KINDS])


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", KINDS)
def test_broken_serializers_fail(name: str, runs: dict[str, Run]) -> None:
    """Each at least in those tests that are about its defect."""
    assert len(runs[name].suites) >= 7
    assert runs[name].missed() == []
