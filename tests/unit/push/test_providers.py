"""Which push providers a configuration makes."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from pushsvc.push.apns import ApnsKey
from pushsvc.push.providers import PushConfig, providers
from pushsvc.push.vapid import VapidKeys


async def test_only_those_that_have_keys_are_made() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    async with providers(PushConfig()) as none:
        assert none == {}
    apns = ApnsKey(key, "ABCDE12345", "TEAM123456")
    async with providers(PushConfig(vapid=VapidKeys([key]), apns=apns)) as made:
        assert list(made) == ["web", "apns"]
        assert all(each.name == name for name, each in made.items())


async def test_a_file_of_authorities_that_is_none_is_refused(tmp_path: Path) -> None:
    config = PushConfig(
        vapid=VapidKeys([ec.generate_private_key(ec.SECP256R1())]), ca_file=tmp_path / "none.pem"
    )
    with pytest.raises(ValueError, match="cannot be read"):
        async with providers(config):
            pass
