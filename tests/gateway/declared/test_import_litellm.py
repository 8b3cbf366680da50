"""A LiteLLM configuration: what becomes ours, what does not, and no secret on the way."""

from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from gateway.declared import document
from tests.gateway.console_rows import offer

CONFIG = """
model_list:
  - model_name: fast
    litellm_params: {model: acme/small, api_key: sk-very-secret}
  - model_name: own
    litellm_params: {model: openai/anything, api_base: http://10.0.0.7/v1}
  - model_name: nowhere
    litellm_params: {model: acme/unheard-of}
  - {model_name: broken}
litellm_settings: {max_budget: 250.5, budget_duration: 30d, drop_params: true, cache: true}
router_settings: {routing_strategy: latency-based-routing, fallbacks: [{fast: [own]}]}
general_settings: {master_key: sk-master-secret}
"""


def run(path: Path, *options: object) -> str:
    out = StringIO()
    call_command("import_litellm", str(path), *map(str, options), stdout=out)
    return out.getvalue()


def test_what_maps_is_declared_and_the_rest_is_named(db: None, tmp_path: Path) -> None:
    # given
    sold = offer()
    config, out = tmp_path / "config.yaml", tmp_path / "house.yaml"
    config.write_text(CONFIG)
    # when
    shown = run(config, "--tenant", "research", "--out", out)
    # then
    assert f"fast: {sold.sku}; clients ask for it as small here" in shown
    assert "own: its own address" in shown
    assert "nowhere: acme sells no" in shown
    assert "entry 4: names no model" in shown
    assert "setting cache" in shown
    assert "router setting fallbacks" in shown
    assert "drop_params" not in shown
    assert "secret" not in shown + out.read_text()
    (tenant,) = document.read(out.read_bytes()).tenants
    assert tenant.policy is not None
    assert tenant.policy.kind == "fastest"
    assert (tenant.quotas[0].window, tenant.quotas[0].limit_usd) == ("month", "250.5")


@pytest.mark.parametrize(
    "text", ["", "- a", "model_list: 7", "a: [", "litellm_settings: {max_budget: -1}", "\x00"]
)
def test_what_is_no_configuration_is_refused(text: str, db: None, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CommandError):
        run(path)


def test_names_of_settings_may_be_numbers_and_parts_empty(db: None, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model_list:\nlitellm_settings: {12: x}\nrouter_settings:\nunheard_of: [1]\n")
    shown = run(path)
    assert "setting 12: has no counterpart here" in shown
    assert "Not mapped: 1" in shown


def test_a_file_that_is_not_there_is_told(db: None, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        run(tmp_path / "none.yaml")
