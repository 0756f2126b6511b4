"""Readers of sets with boxes, on tiny sets written here in each format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from encoscope.errors import ImageError, MissingError, UsageError
from encoscope.images import BoxedImages, collect_files, open_boxed_dataset, open_dataset


def save(path, width=60, height=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 30)).save(path)
    return path


def thing(name="dog", box=(1, 1, 20, 30), extra=""):
    corners = "".join(f"<{c}>{v}</{c}>" for c, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def xml(*things, size="<size><width>60</width><height>40</height><depth>3</depth></size>", filename="x.jpg"):
    return f"<annotation><filename>{filename}</filename>{size}{''.join(things)}</annotation>"


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def voc2007(tmp_path):
    """Two photos of VOC 2007, as its archive unpacks."""
    home = tmp_path / "VOCdevkit" / "VOC2007"
    for stem in ("000005", "000007"):
        save(home / "JPEGImages" / f"{stem}.jpg")
    hard = "<truncated>1</truncated><difficult>1</difficult>"
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></part>"
    write(home / "Annotations" / "000005.xml", xml(thing("person", (1, 1, 60, 40), part), thing("dog", extra=hard)))
    write(home / "Annotations" / "000007.xml", xml(thing("chair", (11, 6, 20, 9))))
    write(home / "ImageSets" / "Main" / "trainval.txt", "000005\n000007\n")
    write(home / "ImageSets" / "Main" / "dog_trainval.txt", "000005  1\n000007 -1\n")
    return tmp_path


def test_voc_by_losts_rules(voc2007):
    found = open_dataset(f"voc07:{voc2007}")
    assert isinstance(found, BoxedImages) and len(found) == 2 and found.labels == ()
    assert [path.name for path in found.paths] == ["000005.jpg", "000007.jpg"]
    # (1, 1, width, height) is the whole image: (0, 0, width, height)
    np.testing.assert_array_equal(found.boxes[0], [[0, 0, 60, 40], [0, 0, 20, 30]])
    np.testing.assert_array_equal(found.boxes[1], [[10, 5, 20, 9]])
    assert [found.classes[label] for label in found.box_labels[0]] == ["person", "dog"]
    assert len(found.classes) == 20
    assert found.difficult[0].tolist() == found.truncated[0].tolist() == [False, True]
    # difficult and truncated objects count unless asked otherwise
    assert len(found.ground_truth(0)) == 2 and len(found.ground_truth(0, hard=False)) == 1
    assert found.notes == found.skipped == ()
    for root in (voc2007 / "VOCdevkit", voc2007 / "VOCdevkit" / "VOC2007"):
        assert open_boxed_dataset(f"voc07:{root}#trainval").paths == found.paths
    assert open_boxed_dataset(f"voc07:{voc2007}#dog_trainval").paths == found.paths
    assert collect_files(f"voc07:{voc2007}") == list(found.paths)


def test_voc_that_is_not_there_or_not_whole(voc2007, tmp_path):
    home = voc2007 / "VOCdevkit" / "VOC2007"
    with pytest.raises(MissingError, match=r"no VOC2012 .*VOCdevkit/VOC2012.*VOCtrainval_11-May-2012.tar"):
        open_dataset(f"voc12:{tmp_path}")
    with pytest.raises(UsageError, match=r"no split 'trainva' .nearest: trainval.*; there are trainval"):
        open_dataset(f"voc07:{voc2007}#trainva")
    (home / "Annotations" / "000007.xml").unlink()
    with pytest.raises(MissingError, match=r"incomplete: 1 of 2 files .*000007.xml; .* as voc:"):
        open_dataset(f"voc07:{voc2007}")
    assert [path.name for path in open_boxed_dataset(f"voc:{home}").paths] == ["000005.jpg"]
    (home / "JPEGImages" / "000005.jpg").unlink()
    with pytest.raises(
        MissingError, match=r"no annotated image of .* can be used; .*looked for .*000005 with any suffix"
    ):
        open_dataset(f"voc:{home}")
    with pytest.raises(MissingError, match="no VOC layout at"):
        open_dataset(f"voc:{tmp_path / 'nothing'}")
    (home / "ImageSets" / "Main" / "trainval.txt").write_text("\n")
    with pytest.raises(MissingError, match=r"the list trainval of .* is empty"):
        open_dataset(f"voc07:{voc2007}")


def test_what_labelling_tools_write(tmp_path, caplog):
    """XML beside the images, floats, no flags, no size, other encodings, Windows paths, boxes out of the image."""
    for stem in ("a", "b", "c", "d", "e", "f"):
        save(tmp_path / f"{stem}.png")
    write(tmp_path / "a.xml", xml(thing("Hündin", ("1.0", " 2.5 ", "3e1", "20.25")), size=""))
    declared = '<?xml version="1.0" encoding="{}"?>'
    write(tmp_path / "b.xml", (declared.format("gb2312") + xml(thing("狗"))).encode("gb2312"))
    write(tmp_path / "c.xml", ('<?xml version="1.0" encoding="utf-16"?>' + xml(thing("chat"))).encode("utf-16"))
    write(tmp_path / "d.xml", (declared.format("utf-8") + xml(thing("Kätzchen"))).encode("latin-1"))
    odd = [thing("dog", (30, 30, 70, 80)), thing("dog", (61, 1, 90, 9)), thing("dog", (20, 30, 5, 10))]
    write(tmp_path / "e.xml", b"\xef\xbb\xbf" + xml(*odd, "<object><name>area</name><polygon/></object>").encode())
    wrong_size = "<size><width>40</width><height>60</height></size>"  # before the camera's turn was applied
    named = "C:\\photos\\f.jpg"
    write(tmp_path / "other.xml", xml(thing("dog", (41, 1, 60, 40)), size=wrong_size, filename=named))
    write(tmp_path / "z.xml", xml(thing("dog"))[:60])
    write(tmp_path / "y.xml", xml(thing("dog")))
    write(tmp_path / "x.xml", '<!DOCTYPE a [<!ENTITY b "c">]>' + xml())
    found = open_boxed_dataset(f"voc:{tmp_path}")
    assert [path.name for path in found.paths] == ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"]
    assert found.classes == ("Hündin", "Kätzchen", "chat", "dog", "狗")
    np.testing.assert_array_equal(found.boxes[0], [[0, 1.5, 30, 20.25]])
    np.testing.assert_array_equal(found.ground_truth(0), [[0, 2, 30, 20]])
    np.testing.assert_array_equal(found.boxes[4], [[29, 29, 60, 40], [4, 9, 20, 30]])
    np.testing.assert_array_equal(found.boxes[5], [[40, 0, 60, 40]])
    reasons = [skipped.reason for skipped in found.skipped]
    assert len(reasons) == 3 and "entities" in reasons[0] and "no image for" in reasons[1] and "z.xml" in reasons[2]
    notes = " ".join(found.notes)
    assert (
        "1 boxes reached outside" in notes
        and "1 boxes without area" in notes
        and "1 objects annotated without" in notes
    )
    assert "3 images were left out" in caplog.text


def test_a_tool_that_counts_from_zero(tmp_path):
    for stem, box in (("a", (0, 5, 60, 40)), ("b", (10, 10, 20, 20))):
        save(tmp_path / "images" / f"{stem}.jpg")
        write(tmp_path / "Annotations" / f"{stem}.xml", xml(thing("dog", box)))
    found = open_boxed_dataset(f"voc:{tmp_path}")
    np.testing.assert_array_equal(np.vstack(found.boxes), [[0, 5, 60, 40], [10, 10, 20, 20]])


def test_a_number_that_is_none(tmp_path):
    save(tmp_path / "a.jpg")
    write(tmp_path / "a.xml", xml(thing("dog", ("one", 1, 2, 3))))
    with pytest.raises(MissingError, match="xmin is 'one', not a number"):
        open_dataset(f"voc:{tmp_path}")


@pytest.fixture
def coco(tmp_path):
    """Three images and their COCO JSON, the third without boxes."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save(tmp_path / "images" / name)
    document = {
        "images": [
            {"id": 9, "file_name": "a.jpg", "width": 60, "height": 40},
            {"id": 4, "file_name": "train/b.jpg"},
            {"id": 5, "file_name": "c.jpg", "width": 60, "height": 40},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 18, "bbox": [10.4, 5.5, 20.2, 10], "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            {"id": 3, "image_id": 4, "category_id": 18, "bbox": [50, 30, 20, 20]},
        ],
    }
    return tmp_path, document


def string(coco, document=None):
    root = coco[0]
    (root / "ann.json").write_text(json.dumps(coco[1] if document is None else document))
    return f"coco:{root / 'images'}#{root / 'ann.json'}"


def test_coco_by_losts_rules(coco):
    found = open_boxed_dataset(string(coco))
    assert [path.name for path in found.paths] == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.classes == ("person", "dog")  # by category id
    np.testing.assert_allclose(found.boxes[0], [[10.4, 5.5, 30.6, 15.5], [0, 0, 60, 40]])
    np.testing.assert_array_equal(found.ground_truth(0), [[10, 6, 31, 16]])  # no crowd, rounded half to even
    np.testing.assert_array_equal(found.boxes[1], [[50, 30, 60, 40]])  # clipped to the size in the file
    assert found.box_labels[0].tolist() == [1, 0] and found.crowd[0].tolist() == [False, True]
    assert found.ground_truth(2).shape == (0, 4)
    assert found.notes == ("1 boxes reached outside their image and were clipped", "1 of 3 images have no box")


def test_coco_of_other_tools(coco):
    root, document = coco
    document["images"].append({"id": "x", "file_name": "gone.jpg", "width": 3, "height": 3})
    document["annotations"] += [
        {"image_id": 5, "category_id": 77, "bbox": [1, 1, 5, 5]},
        {"image_id": 5, "category_id": 18, "segmentation": [[1, 1, 2, 2]], "bbox": []},
        {"image_id": 5, "category_id": 18, "bbox": [1, float("nan"), 5, 5]},
        {"image_id": 100, "category_id": 18, "bbox": [1, 1, 5, 5]},
    ]
    found = open_boxed_dataset(string(coco))
    assert found.classes == ("person", "dog", "category 77")
    np.testing.assert_array_equal(found.boxes[2], [[1, 1, 6, 6]])
    assert [skipped.path for skipped in found.skipped] == [str(root / "images" / "gone.jpg")]
    notes = " ".join(found.notes)
    for part in ("1 boxes belong to images", "1 boxes without area", "1 objects annotated without", "gone.jpg"):
        assert part in notes


def test_coco_refusals(coco, tmp_path):
    name = string(coco)
    with pytest.raises(UsageError, match="names its annotations too"):
        open_dataset(f"coco:{tmp_path / 'images'}")
    with pytest.raises(MissingError, match="no folder of COCO images"):
        open_dataset(f"coco:{tmp_path / 'nowhere'}#{tmp_path / 'ann.json'}")
    with pytest.raises(MissingError, match="no annotations at"):
        open_dataset(f"coco:{tmp_path / 'images'}#{tmp_path / 'nothing.json'}")
    (tmp_path / "ann.json").write_text(json.dumps(coco[1])[:200])
    with pytest.raises(ImageError, match="only a part of one"):
        open_dataset(name)
    with pytest.raises(ImageError, match="no lists 'images' and 'annotations'"):
        open_dataset(string(coco, [{"image_id": 1, "bbox": [1, 1, 2, 2]}]))
    with pytest.raises(ImageError, match="panoptic annotations"):
        open_dataset(string(coco, {"images": [], "annotations": [{"segments_info": []}]}))
    with pytest.raises(ImageError, match=r"not in COCO's form .KeyError.'category_id'"):
        open_dataset(string(coco, coco[1] | {"annotations": [{"image_id": 9, "bbox": [1, 1, 2, 2]}]}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match="none of the 3 images"):
        open_dataset(f"coco:{tmp_path / 'empty'}#{string(coco).partition('#')[2]}")
    with pytest.raises(UsageError, match="has no boxes"):
        open_boxed_dataset(tmp_path / "images")


@pytest.fixture
def coco20k(tmp_path):
    """Three images of train2014, of which the list names two."""
    numbers = (30, 9, 25)
    names = [f"COCO_train2014_{number:012d}.jpg" for number in numbers]
    for name in names:
        save(tmp_path / "images" / "train2014" / name)
    document = {
        "images": [{"id": i, "file_name": n, "width": 60, "height": 40} for i, n in zip(numbers, names, strict=True)],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [i, 0, 5, 5]} for i in numbers],
    }
    write(tmp_path / "annotations" / "instances_train2014.json", json.dumps(document))
    write(tmp_path / "coco_20k_filenames.txt", f"{names[2]}\ntrain2014/{names[0]}\n")
    return tmp_path, names


def test_coco20k_takes_the_listed_images_in_the_lists_order(coco20k):
    root, names = coco20k
    found = open_boxed_dataset(f"coco20k:{root}")
    assert [path.name for path in found.paths] == [names[2], names[0]]
    np.testing.assert_array_equal(np.vstack(found.boxes)[:, 0], [25, 30])
    assert "lists 2 images; COCO20k has 19,817" in found.notes[0]
    (root / "mine.txt").write_text(names[1])
    assert [path.name for path in open_boxed_dataset(f"coco20k:{root}#{root / 'mine.txt'}").paths] == [names[1]]


def test_coco20k_says_what_is_missing(coco20k, tmp_path):
    root, names = coco20k
    (root / "images" / "train2014" / names[0]).unlink()
    with pytest.raises(MissingError, match=r"incomplete: 1 of 2 listed images .*as coco:"):
        open_dataset(f"coco20k:{root}")
    (root / "coco_20k_filenames.txt").write_text("a photo\n")
    with pytest.raises(ImageError, match="no list of COCO file names"):
        open_dataset(f"coco20k:{root}")
    (root / "coco_20k_filenames.txt").write_text("COCO_train2014_000000000001.jpg")
    with pytest.raises(ImageError, match="lists image 1, which is not in"):
        open_dataset(f"coco20k:{root}")
    (root / "coco_20k_filenames.txt").unlink()
    with pytest.raises(MissingError, match=r"it is not part of COCO; take coco_20k_filenames.txt .* LOST"):
        open_dataset(f"coco20k:{root}")
    with pytest.raises(MissingError, match=r"looked for .*train2014; unpack train2014.zip"):
        open_dataset(f"coco20k:{tmp_path / 'annotations'}")


def test_real_coco_boxes(data_root):
    root = data_root / "coco128"
    found = open_boxed_dataset(f"coco:{root / 'train2017'}#{root / 'annotations' / 'instances_train2017.json'}")
    assert len(found) == 128 and sum(map(len, found.boxes)) == 929 and len(found.classes) == 80
    assert not found.skipped
    for path, boxes in zip(found.paths, found.boxes, strict=True):
        with Image.open(path) as image:
            assert (boxes[:, 2] <= image.width).all() and (boxes[:, 3] <= image.height).all()
    crowds = sum(int(crowd.sum()) for crowd in found.crowd)
    assert sum(len(found.ground_truth(index)) for index in range(128)) == 929 - crowds
