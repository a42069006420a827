"""Machine code of the kernels for GPUs: they compile for each card, and no kernel spills more than today."""

import pytest
from machine_code import Use, compiled, nvrtc

pytestmark = pytest.mark.skipif(nvrtc() is None, reason="these wheels of torch bring no NVRTC")
SO3LR = "HEADS=4 WIDE=32 DEGREES=4 NARROW=32 RADIAL=32 SQUARED=1 EACH_DEGREE=1,2,3,4"
SHAPES = {
    "so3lr": f"{SO3LR} HIDDEN=32",
    "so3lr, first layer": f"{SO3LR} HIDDEN=0",
    "2022": "HEADS=4 WIDE=48 DEGREES=3 NARROW=48 HIDDEN=32 RADIAL=32 SQUARED=0 EACH_DEGREE=1,2,3",
    "sphc": "HEADS=0 WIDE=0 DEGREES=3 NARROW=48 HIDDEN=32 RADIAL=32 SQUARED=0 EACH_DEGREE=1,2,3",
    "none": "",
    "any": "DEGREES=4 EACH_DEGREE=1,2,3,4",
}
# Largest use of each kernel: registers of a thread, and bytes that it spills.
LIMITS = {
    ("near.cu", "so3lr"): {"near_forward": Use(168, 0), "near_backward": Use(255, 40)},
    ("near.cu", "so3lr, first layer"): {"near_forward": Use(128, 0), "near_backward": Use(168, 32)},
    ("near.cu", "2022"): {"near_forward": Use(168, 0), "near_backward": Use(255, 160)},
    ("sphc.cu", "sphc"): {
        "sphc_norms": Use(40, 0),
        "sphc_forward": Use(168, 0),
        "sphc_backward": Use(255, 160),
        "sphc_norms_backward": Use(64, 0),
    },
    # sm_80 spills 40 bytes in 80 registers, sm_90 16 in 64, sm_100 none in 255
    ("geometry.cu", "any"): {"geometry_forward": Use(72, 0), "geometry_backward": Use(255, 40)},
    ("lists.cu", "none"): {
        "lists_place": Use(64, 0),
        "lists_bin": Use(72, 0),
        "lists_cells": Use(40, 0),
        "lists_sort": Use(64, 0),
        "lists_order": Use(24, 0),
        "lists_search": Use(72, 0),
        "lists_count": Use(48, 0),
        "lists_first": Use(56, 0),
        "lists_near": Use(48, 0),
    },
    ("long_pairs.cu", "none"): {"long_pairs": Use(48, 0)},
    ("long_rows.cu", "none"): {"long_rows": Use(96, 0)},
    ("update.cu", "any"): {
        name + back: Use(48, 0)
        for name in ("chi_norms", "chi_invariants", "exchange_features", "exchange_degrees")
        for back in ("", "_back")
    },
}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize(("source", "shape"), LIMITS)
def test_registers_and_spills(source, shape, architecture):
    if architecture != "sm_90" and shape not in ("so3lr", "sphc", "none", "any"):
        pytest.skip("one card is enough for this shape, which takes long to compile")
    found = compiled(source, architecture, [f"-DSO3K_{word}" for word in SHAPES[shape].split()])
    limits = LIMITS[source, shape]
    assert set(found) == set(limits)
    for name, use in found.items():
        print(f"{source} {shape} {architecture} {name}: {use.registers} registers, {use.spilled} B spilled")
        assert use.registers <= limits[name].registers, name
        assert use.spilled <= limits[name].spilled, name
