"""The hardware's limit: arithmetic from shapes, peaks from a table, the slower of two roofs."""

from __future__ import annotations

import pytest

from bench.analysis.roofline import Measured, Shape, limit_per_s, peak_of

BASE = Shape(768, 3072, 12, 197, 768, 86_389_248)
TINY = Shape(192, 768, 12, 197, 768, 5_561_472)


def test_vit_base_takes_35_gflop_an_image() -> None:
    assert pytest.approx(35.1e9, rel=0.002) == BASE.flop_per_image


def test_tiny_is_counted_from_its_own_shapes() -> None:
    assert pytest.approx(2.51e9, rel=0.002) == TINY.flop_per_image


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200 NVL"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA A10", "A10"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100 SXM2"),
    ],
)
def test_devices_are_known_by_the_name_the_driver_gives(device: str, name: str) -> None:
    peak = peak_of(device)
    assert peak is not None
    assert peak.name == name
    assert peak.source


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        "NVIDIA A10G",
        "NVIDIA GeForce RTX 4090",
        "NVIDIA GH200 480GB",  # an H100's memory
        "NVIDIA GB200",
        "NVIDIA H200 MIG 1g.18gb",  # a seventh of one
        "",
    ],
)
def test_a_device_that_is_not_in_the_table_gets_no_guess(device: str) -> None:
    assert peak_of(device) is None


def test_a_card_has_no_rate_in_a_precision_it_cannot_compute_in() -> None:
    peak = peak_of("Tesla T4")
    assert peak is not None
    assert limit_per_s(BASE, "bf16", 8, peak, pooled=False) is None


def test_large_batches_meet_the_arithmetic_roof() -> None:
    peak = peak_of("NVIDIA H200")
    assert peak is not None
    found = limit_per_s(BASE, "bf16", 64, peak, pooled=True)
    assert found == pytest.approx(989.5e12 / BASE.flop_per_image)


def test_a_batch_of_one_meets_the_memory_roof_where_memory_is_slow() -> None:
    slow = Measured(flop_per_s=1e15, bytes_per_s=1e9)
    found = limit_per_s(BASE, "fp32", 1, slow, pooled=True)
    assert found == pytest.approx(1e9 / (4 * BASE.parameters + BASE.bytes_per_image(pooled=True)))


def test_of_rates_measured_twice_the_higher_count() -> None:
    """What else a machine does makes it slower, never faster."""
    assert Measured(5.0, 2.0).best(Measured(3.0, 4.0)) == Measured(5.0, 4.0)
    assert Measured(5.0, 2.0).best(None) == Measured(5.0, 2.0)
