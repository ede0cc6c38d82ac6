"""How a finding is told."""

from pushsvc.server.findings import Finding, State, refused
from pushsvc.settings import SettingsError


def test_a_finding_is_one_line_that_says_what_to_change() -> None:
    assert str(Finding(State.OK, "keys", "there")) == "ok    keys: there"
    told = str(Finding(State.FAIL, "port", "in use\nby \x1b[2J", "choose another"))
    assert told == "fail  port: in use\\nby \\x1b[2J → choose another"


def test_what_stops_a_start_names_the_setting_and_the_way_out() -> None:
    error = SettingsError("PUSHSVC_PORT", "8080 is in use", "choose another")
    assert str(error) == "PUSHSVC_PORT: 8080 is in use: choose another"
    assert refused("port", error).change == "choose another"
    assert "PUSHSVC_PORT" in refused("port", SettingsError("PUSHSVC_PORT", "bad")).change
