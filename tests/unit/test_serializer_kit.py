"""The conformance kit of serializers: ours pass it."""

from __future__ import annotations

from wool._backends import cloudpickle, dill
from wool.abc import Serializer
from wool.testing import SerializerSuite


class TestCloudpickle(SerializerSuite):
    def serializer(self) -> Serializer:
        return cloudpickle.make(cloudpickle.Options())


class TestDill(SerializerSuite):
    def serializer(self) -> Serializer:
        return dill.make(dill.Options())
