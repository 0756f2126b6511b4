from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.images.panoptic import read_panoptic, read_segment_ids


@pytest.fixture
def annotated(tmp_path):
    ids = np.array([[7, 7, 300], [0, 70000, 300]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    folder = tmp_path / "panoptic"
    folder.mkdir()
    Image.fromarray(colours).save(folder / "1.png")
    document = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 184, "name": "tree"}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1.png",
                "segments_info": [
                    {"id": 7, "category_id": 18},
                    {"id": 70000, "category_id": 18},
                    {"id": 300, "category_id": 184},
                ],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(document))
    return tmp_path


def test_categories_join_segments_and_unlabelled_is_void(annotated):
    (image,) = read_panoptic(annotated / "images", annotated / "panoptic.json")
    assert image.path == annotated / "images" / "1.jpg"
    np.testing.assert_array_equal(image.labels, [[18, 18, 184], [-1, 18, 184]])
    assert image.names == {18: "dog", 184: "tree"}


def test_segments_stay_apart(annotated):
    (image,) = read_panoptic(annotated / "images", annotated / "panoptic.json", "segment")
    np.testing.assert_array_equal(image.labels, [[0, 0, 2], [-1, 1, 2]])
    assert image.names == {0: "dog", 1: "dog", 2: "tree"}


def test_errors_say_what_to_do(annotated, tmp_path):
    with pytest.raises(UsageError, match="'category' or 'segment'"):
        read_panoptic(annotated, annotated / "panoptic.json", "things")
    with pytest.raises(MissingError, match="panoptic JSON"):
        read_panoptic(annotated, tmp_path / "none.json")
    (tmp_path / "broken.json").write_text('{"images": []}')
    with pytest.raises(ImageError, match="no COCO panoptic JSON"):
        read_panoptic(annotated, tmp_path / "broken.json")
    (annotated / "panoptic" / "1.png").unlink()
    with pytest.raises(MissingError, match="beside its JSON"):
        list(read_panoptic(annotated, annotated / "panoptic.json"))
    Image.new("L", (2, 2)).save(annotated / "panoptic" / "1.png")
    with pytest.raises(ImageError, match="mode is L"):
        read_segment_ids(annotated / "panoptic" / "1.png")


def test_real_masks_have_the_areas_that_their_json_states(data_root):
    source = data_root / "coco128" / "annotations" / "panoptic_train2017.json"
    entries = json.loads(source.read_text())["annotations"]
    images = read_panoptic(data_root / "coco128" / "train2017", source, "segment")
    for _, image, entry in zip(range(5), images, entries, strict=False):
        counts = np.bincount(image.labels[image.labels >= 0])
        assert counts.tolist() == [segment["area"] for segment in entry["segments_info"]]
        assert image.path.is_file()
        with Image.open(image.path) as photo:
            assert photo.size == image.labels.shape[::-1]
