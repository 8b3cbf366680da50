from pathlib import Path

import pytest

from tests.workers.engines import make_engine, request, run
from workers.engine.energy import EnergyMeter, meter_for


def package(powercap: Path, name: str, *, energy_uj: int, range_uj: int = 10_000_000) -> Path:
    zone = powercap / name
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone / "energy_uj"


def test_packages_are_summed_and_their_parts_are_not_counted_twice(tmp_path: Path):
    # given
    first = package(tmp_path, "intel-rapl:0", energy_uj=1_000_000)
    second = package(tmp_path, "intel-rapl:1", energy_uj=2_000_000)
    part = package(tmp_path, "intel-rapl:0:0", energy_uj=0)
    meter = meter_for("cpu", powercap=tmp_path)

    # when
    first.write_text("3500000")
    second.write_text("3000000")
    part.write_text("9000000")

    # then
    assert meter.source == "rapl"
    assert meter.joules() == pytest.approx(3.5)


def test_a_counter_that_wraps_goes_on(tmp_path: Path):
    # given
    counter = package(tmp_path, "intel-rapl:0", energy_uj=9_000_000)
    meter = meter_for("cpu", powercap=tmp_path)

    # when
    readings = []
    for value in (9_500_000, 500_000, 1_500_000):
        counter.write_text(str(value))
        readings.append(meter.joules())

    # then
    assert readings == pytest.approx([0.5, 1.5, 2.5])


@pytest.mark.parametrize("spoil", ["missing", "text", "folder"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, spoil: str):
    # given: one good package, and one that is not
    package(tmp_path, "intel-rapl:0", energy_uj=0)
    bad = package(tmp_path, "intel-rapl:1", energy_uj=0)
    bad.unlink()
    if spoil == "text":
        bad.write_text("soon")
    elif spoil == "folder":
        bad.mkdir()

    # then
    meter = meter_for("cpu", powercap=tmp_path)
    assert (meter.source, meter.joules()) == ("unknown", None)


def test_a_counter_that_goes_away_later_makes_it_unknown(tmp_path: Path):
    counter = package(tmp_path, "intel-rapl:0", energy_uj=0)
    meter = meter_for("cpu", powercap=tmp_path)
    counter.unlink()
    assert meter.joules() is None
    assert meter.source == "unknown"


def test_a_gpu_without_a_driver_is_unknown():
    assert meter_for("GPU-0").joules() is None


def test_the_page_shows_joules_only_where_they_are_known(tmp_path: Path, tiny_model_dir: Path):
    # given
    counter = package(tmp_path, "intel-rapl:0", energy_uj=0, range_uj=10**12)
    engine = make_engine(tiny_model_dir)
    engine.meter = EnergyMeter("unknown", [])
    run(engine, [request("a", [5, 6, 7], max_tokens=7, ignore_eos=True)])
    engine.publish_gauges()
    assert b"energy_joules" not in engine.metrics.render()

    # when
    engine.meter = meter_for("cpu", powercap=tmp_path)
    counter.write_text("20000000")
    engine.publish_gauges()

    # then: 20 J for 3 tokens in and 7 out
    page = engine.metrics.render().decode()
    assert "tokenhouse_worker_energy_joules 20.0" in page
    assert "tokenhouse_worker_joules_per_million_tokens 2e+06" in page
    assert engine.metrics.totals.joules == 20.0
