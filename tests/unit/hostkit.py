"""Questions of tests to the machine that they run on."""

from __future__ import annotations

import ifaddr
import pytest


def link_local() -> str:
    """An address of this machine that means nothing without its interface."""
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if ip.is_IPv6 and ip.ip[0].startswith("fe80:"):
                return f"{ip.ip[0].partition('%')[0]}%{adapter.name}"
    pytest.skip("this machine has no link-local address")
