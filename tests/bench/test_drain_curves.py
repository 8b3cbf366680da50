"""The curves of the drain's benches: drawn from the figures that were kept, from nothing else."""

from pathlib import Path
from xml.etree import ElementTree

from bench.drain import figures
from bench.drain.curves import Panel, svg

SVG = "{http://www.w3.org/2000/svg}"


def test_a_line_goes_from_the_lowest_place_to_the_highest() -> None:
    # given
    panel = Panel(title="rate", across=[1, 2], lines={"a & b": [0, 100]}, aim=50)
    # when
    root = ElementTree.fromstring(svg([panel], across="events"))
    # then: zero is at the bottom, and the farthest place at the right
    (line,) = root.findall(f"{SVG}polyline")
    first, last = (point.split(",") for point in line.attrib["points"].split())
    assert (float(first[0]), float(last[0])) == (375.0, 680.0)
    assert float(first[1]) == 212.0
    assert float(last[1]) < float(first[1])
    assert [text.text for text in root.iter(f"{SVG}text")].count("a & b") == 1


def test_figures_are_kept_row_by_row_and_drawn_beside_themselves(tmp_path: Path) -> None:
    # given
    path = tmp_path / "drain.csv"
    row = {"per_s": 20_000.0, "drain_us": 20.0, "postgres_us": 25.0, "redis_us": 5.0}
    # when: what was written before the end stays, whatever comes then
    with figures.written(path) as write:
        write({"events": 200_000, **row, "memory_mib": 120.0, "refresh_s": 0.3})
        kept = path.read_text(encoding="utf-8")
        write({"events": 400_000, **row, "memory_mib": 120.004, "refresh_s": 0.3})
    figures.draw_drain(path)
    # then
    header = "events,per_s,drain_us,postgres_us,redis_us,memory_mib,refresh_s"
    assert kept.splitlines() == [header, "200000,20000.0,20.0,25.0,5.0,120.0,0.3"]
    root = ElementTree.fromstring(path.with_suffix(".svg").read_text(encoding="utf-8"))
    assert len(root.findall(f"{SVG}polyline")) == 6


def test_no_file_asked_for_is_none_written(tmp_path: Path) -> None:
    # when
    with figures.written(None) as write:
        write({"events": 1})
    # then
    assert list(tmp_path.iterdir()) == []
