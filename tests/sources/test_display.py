from kneessl.sources.volume import edges_of


def test_edges_of_slices_in_dicoms_letters():
    """Anterior is on the left of a sagittal picture, and the patient's right on the left of the two others."""
    assert edges_of("sagittal") == {"top": "S", "bottom": "I", "left": "A", "right": "P"}
    assert edges_of("coronal") == {"top": "S", "bottom": "I", "left": "R", "right": "L"}
    assert edges_of("axial") == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
