"""Loopback in every spelling, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safer_steer.addresses import is_loopback


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1.2.3", "127.1", "2130706433", "0x7f.1", "localhost", "LOCALHOST", "localhost.", "a.localhost",
     "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "0.0.0.0", "0", "[::]"],
)  # fmt: skip
@pytest.mark.parametrize("form", ["http://{}:8000/v1", "https://{}/v1"])
def test_loopback_and_any_address(host, form):
    assert is_loopback(form.format(host))


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1:8000/v1", "http://node-127.example/v1", "http://localhost.example/v1", "http://[fe80::1%25eth0]/v1",
     "http://128.0.0.1/v1", "https://api.openai.com/v1", "http://node01/v1"],
)  # fmt: skip
def test_other_machines(url):
    assert not is_loopback(url)


def test_a_service_of_the_run_listens_on_loopback():
    assert is_loopback("service:teacher")


@given(st.ip_addresses(v=4).filter(lambda a: not a.is_loopback and not a.is_unspecified))
def test_no_other_address(address):
    assert not is_loopback(f"http://{address}/v1")
