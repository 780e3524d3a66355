"""Faces by identity, in folders and packed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from published_formats import face, write_people, write_rec

from lightning_repshape.data import (
    CASIAWebFaceDataModule,
)
from lightning_repshape.errors import ConfigError, DataError


def test_packed_and_unpacked_identities_are_the_same(tmp_path: Path) -> None:
    write_rec(tmp_path / "packed" / "faces_webface_112x112")
    write_people(tmp_path / "folders", people=3, images=2)
    options: dict[str, Any] = {"image_size": (12, 10), "channels": 3, "seed": 0}
    packed = CASIAWebFaceDataModule(str(tmp_path / "packed"), **options)
    folders = CASIAWebFaceDataModule(str(tmp_path / "folders"), **options)
    assert packed.num_classes == folders.num_classes == 3
    assert packed.class_names == ("0", "1", "2") and folders.class_names == ("s1", "s2", "s3")
    assert packed.input_shape == (3, 12, 10)
    assert torch.equal(packed.images("train"), folders.images("train"))
    assert torch.equal(packed.labels("train"), folders.labels("train"))
    assert packed.sample_name("train", 0).endswith("train.rec#1")
    x, y = next(packed.batches("train"))
    assert x.shape == (6, 3, 12, 10) and y.unique().tolist() == [0, 1, 2]
    assert float(x.min()) >= -1.0 and float(x.max()) <= 1.0


def test_identities_come_in_natural_order(tmp_path: Path) -> None:
    write_people(tmp_path, people=11, images=1)
    data = CASIAWebFaceDataModule(str(tmp_path), image_size=8, classes=3)
    assert data.class_names == ("s1", "s2", "s3")
    assert CASIAWebFaceDataModule(str(tmp_path), image_size=8).class_names[-1] == "s11"


def test_identities_with_one_image_are_trained_on_but_not_split(tmp_path: Path) -> None:
    write_people(tmp_path, people=3, images=4)
    (tmp_path / "alone").mkdir()
    Image.fromarray(face(9, 1)).save(tmp_path / "alone" / "1.png")
    with pytest.warns(UserWarning, match="1 identities have one image \\(alone\\)"):
        assert len(CASIAWebFaceDataModule(str(tmp_path), image_size=8).labels("train")) == 13
    with pytest.raises(DataError, match=r"alone.*min_images=2"):
        CASIAWebFaceDataModule(str(tmp_path), image_size=8, val_size=0.25).setup("fit")
    with pytest.warns(UserWarning, match="left out 1 of 4 identities"):
        data = CASIAWebFaceDataModule(str(tmp_path), image_size=8, val_size=0.25, min_images=2)
    assert data.class_names == ("s1", "s2", "s3")
    assert data.labels("val").tolist() == [0, 1, 2] and len(data.labels("train")) == 9
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="hold no image: empty"):
        CASIAWebFaceDataModule(str(tmp_path), image_size=8).setup("fit")


@pytest.mark.filterwarnings("ignore:.*have one image.*")
def test_images_of_other_sizes_follow_the_rule_that_was_chosen(tmp_path: Path) -> None:
    write_people(tmp_path, people=2, images=1)
    wide = np.tile(np.arange(40, dtype=np.uint8)[None] * 6, (24, 1))  # a ramp from left to right
    Image.fromarray(wide).save(tmp_path / "s1" / "wide.png")

    def ramp(**options: Any) -> np.ndarray:
        data = CASIAWebFaceDataModule(str(tmp_path), image_size=(24, 20), channels=1, **options)
        return data.images("train")[1, 0, :, 0].numpy()

    assert np.array_equal(ramp(fit="crop"), wide[0, 10:30])
    assert ramp(fit="stretch")[-1] > 228 and ramp(fit="stretch")[0] < 6
    assert np.array_equal(ramp(fit="exact", center_crop=(24, 20)), wide[0, 10:30])
    with pytest.raises(DataError, match=r"wide\.png has 24 x 40 pixels instead of 24 x 20"):
        ramp(fit="exact")
    with pytest.raises(DataError, match="fewer than the 30 x 30"):
        ramp(center_crop=30)
    (tmp_path / "s2" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"s2.1\.png"):
        ramp()


def test_options_that_cannot_be_are_errors(tmp_path: Path) -> None:
    root = str(write_people(tmp_path / "set", people=2, images=1))
    for options, message in (
        ({"image_size": 0}, "image_size"),
        ({"channels": 2}, "channels"),
        ({"fit": "crp"}, "crop"),
        ({"center_crop": 0}, "center_crop"),
        ({"min_images": 0}, "min_images"),
        ({"mean": (0.5,)}, "1 values for 3"),
        ({"std": (0.0, 1.0, 1.0)}, "positive"),
    ):
        with pytest.raises(ConfigError, match=message):
            CASIAWebFaceDataModule(root, **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a folder for each identity"):
        CASIAWebFaceDataModule(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="pairs of other people"):
        CASIAWebFaceDataModule(root, image_size=8).setup("test")


def test_batches_from_the_mapped_file_are_those_from_memory(tmp_path: Path) -> None:
    root = str(write_people(tmp_path, people=4, images=5))
    options: dict[str, Any] = {"image_size": 12, "batch_size": 7, "seed": 3, "augment": "crop-flip", "val_size": 4}
    memory = CASIAWebFaceDataModule(root, **options)
    mapped = CASIAWebFaceDataModule(root, memory_budget_gb=0.0, **options)
    for epoch in range(2):
        pairs = zip(memory.batches("train", epoch=epoch), mapped.batches("train", epoch=epoch), strict=True)
        for (x, y), (again, labels) in pairs:
            assert torch.equal(x, again) and torch.equal(y, labels)
    assert torch.equal(memory.images("val"), mapped.images("val"))
    assert len(list((tmp_path / ".repshape-cache").glob("*.u8"))) == 1
    assert mapped.checksums()["train.images"].startswith("files:")


def test_identities_one_folder_further_down_are_refused(tmp_path: Path) -> None:
    inner = write_people(tmp_path / "CASIA-WebFace" / "CASIA-WebFace")
    with pytest.raises(DataError, match=r"the classes are those of .*CASIA-WebFace.CASIA-WebFace; set folder to it"):
        CASIAWebFaceDataModule(str(tmp_path))
    assert CASIAWebFaceDataModule(str(tmp_path), folder=str(inner)).num_classes == 6
