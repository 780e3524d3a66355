"""Pairs of faces: published lists, and pairs made here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from published_formats import LFW_LIST, lfw_table, write_lfw, write_people, write_ytf

from lightning_repshape.data import (
    IdentityPairs,
    LFWPairs,
    PairsFile,
    PairTable,
    YTFPairs,
)
from lightning_repshape.errors import ConfigError, DataError


@pytest.mark.parametrize("layout", ["lfw", "lfw-py/lfw_funneled", "lfw_home/lfw_funneled", "."])
def test_lfw_is_found_in_every_layout(tmp_path: Path, layout: str) -> None:
    folder = write_lfw(tmp_path / layout)
    (folder if layout == "." else folder.parent).joinpath("pairs.txt").write_text(LFW_LIST)
    opened = LFWPairs(str(tmp_path)).open((3, 12, 12))
    table = opened.table
    assert table.same.tolist() == [True, True, False, False] * 2
    assert table.folds.tolist() == [0] * 4 + [1] * 4
    names = [(table.items[a], table.items[b]) for a, b in zip(table.first, table.second, strict=True)]
    assert names[1] == ("Person_B_0001", "Person_B_0003") and names[3] == ("Person_A_0003", "Person_B_0001")
    assert len(opened.images.paths) == len(set(opened.images.paths)) == len(table.items)
    assert opened.images.paths[opened.table.first[0]].endswith("Person_A_0001.jpg")


def test_development_lists_without_folds_are_dealt_out(tmp_path: Path) -> None:
    write_lfw(tmp_path / "lfw")
    lines = LFW_LIST.splitlines()
    order = [1, 2, 5, 6, 3, 4, 7, 8]
    (tmp_path / "pairsDevTest.txt").write_text("\n".join(["4", *(lines[place] for place in order)]))
    table = LFWPairs(str(tmp_path), pairs="pairsDevTest.txt").read()
    assert table.same.tolist() == [True] * 4 + [False] * 4
    assert table.folds.tolist() == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: ["name\tother", *lines[1:]], "line 1: expected the number of folds"),
        (lambda lines: [*lines[:3], "Person_A\t1\t2", *lines[4:]], "line 4: expected 'name number name number'"),
        (lambda lines: [lines[0], "a,b,1", *lines[2:]], "line 2: expected 'name number number'"),
        (lambda lines: [*lines[:2], "Person_B one 3", *lines[3:]], "line 3"),
        (lambda lines: lines[:-1], "ends after 7 pairs, but line 1 promises 8"),
        (lambda lines: [*lines, "Person_C\t1\t2"], "line 10: more pairs"),
        (lambda lines: [], "line 1"),
    ],
)
def test_lists_of_another_format_are_errors_with_the_line(tmp_path: Path, change: Any, message: str) -> None:
    write_lfw(tmp_path / "lfw", people=2)
    (tmp_path / "pairs.txt").write_text("\n".join(change(LFW_LIST.splitlines())))
    with pytest.raises(DataError, match=message):
        LFWPairs(str(tmp_path)).read()


def test_missing_images_are_counted_and_some_are_named(tmp_path: Path) -> None:
    folder = write_lfw(tmp_path / "lfw")
    (tmp_path / "pairs.txt").write_text(LFW_LIST)
    for name in ("Person_A_0001", "Person_D_0003"):
        (folder / name[:8] / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=r"2 of \d+ images.*Person_A_0001.jpg, .*Person_D_0003.jpg; .*taken are"):
        LFWPairs(str(tmp_path)).open((1, 8, 8))
    for picture in folder.rglob("*.jpg"):
        if "_0001" not in picture.name:
            picture.unlink()
    for person in range(3):
        (folder / f"Person_{'ABC'[person]}" / f"Person_{'ABC'[person]}_0001.jpg").unlink(missing_ok=True)
    with pytest.raises(DataError, match="11 of 12 images") as caught:
        LFWPairs(str(tmp_path)).open((1, 8, 8))
    assert "\n" not in str(caught.value) and str(caught.value).count(".jpg") < 10  # one line, whatever is missing
    with pytest.raises(DataError, match="torchvision"):
        LFWPairs(str(tmp_path / "nowhere")).read()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("s1/1.png s1/2.png 1 4", "s1/1.png s2/1.png 0 4"), "all 2 pairs are in fold 4"),
        (("s1/1.png s1/2.png 1", "s2/1.png s2/2.png 1"), "all 2 pairs are of one person"),
        (("s1/1.png s2/2.png 0", "s2/1.png s1/2.png 0"), "all 2 pairs are of two people"),
    ],
)
def test_pairs_without_a_threshold_are_refused_before_training(
    tmp_path: Path, lines: Sequence[str], message: str
) -> None:
    write_people(tmp_path, people=2, images=2)
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        PairsFile(str(tmp_path)).open((1, 8, 8))


def test_videos_are_items_of_several_frames(tmp_path: Path) -> None:
    write_ytf(tmp_path)
    opened = YTFPairs(str(tmp_path)).open((1, 12, 12))
    assert opened.table.same.tolist() == [True, True, False, False] * 2
    assert opened.table.folds.tolist() == [1] * 4 + [2] * 4
    assert len(opened.table.items) == 8 and len(opened.images.paths) == 4 * 7
    counts = torch.bincount(opened.item_of_image).tolist()
    assert {name: count for name, count in zip(opened.table.items, counts, strict=True)}["P2/1"] == 4
    assert [Path(p).name for p in opened.table.paths[0]] == ["0.8.jpg", "0.9.jpg", "0.10.jpg"]  # natural order
    few = YTFPairs(str(tmp_path), frames=2).open((1, 12, 12))
    assert torch.bincount(few.item_of_image).unique().tolist() == [2]
    (tmp_path / "splits.txt").write_text("head\n1, P0/0, P0/1, 1\n1, P0/0, P1, 0\n")
    with pytest.raises(DataError, match="line 3: expected 'fold, name/video"):
        YTFPairs(str(tmp_path)).read()
    (tmp_path / "splits.txt").write_text(LFW_LIST)
    with pytest.raises(DataError, match="line 2: expected 'fold, name/video"):
        YTFPairs(str(tmp_path)).read()
    (tmp_path / "splits.txt").write_text("1, P0/0, P0/7, 1\n")
    with pytest.raises(DataError, match=r"1 of 2 .*P0/7"):
        YTFPairs(str(tmp_path)).open((1, 8, 8))


def test_lists_of_ones_own(tmp_path: Path) -> None:
    write_people(tmp_path, people=3, images=2)
    (tmp_path / "pairs.txt").write_text("# mine\ns1/1.png s1/2.png 1 0\n\ns1/1.png,s2/1.png,0,1\n")
    table = PairsFile(str(tmp_path)).open((1, 8, 8)).table
    assert table.same.tolist() == [True, False] and table.folds.tolist() == [0, 1]
    assert table.identities == ("s1", "s1", "s2")
    (tmp_path / "pairs.txt").write_text("s1/1.png s1/2.png 1\ns2/1.png s2/2.png 1\ns1/1.png s2/1.png 0\n")
    assert PairsFile(str(tmp_path)).read().folds.tolist() == [0, 1, 0]
    (tmp_path / "pairs.txt").write_text("2 1\ns1 1 2\ns1 1 s2 2\ns2 1 2\ns3 1 s2 2\n")
    opened = PairsFile(str(tmp_path)).open((1, 8, 8))
    assert opened.table.same.tolist() == [True, False] * 2 and opened.images.paths[0].endswith("s1/1.png")
    (tmp_path / "pairs.txt").write_text("s1/1.png s1/2.png 1\ns2/1.png s2/2.png yes\n")
    with pytest.raises(DataError, match="line 2"):
        PairsFile(str(tmp_path)).read()


def test_pairs_of_identities_are_balanced_and_folds_share_nobody(tmp_path: Path) -> None:
    write_people(tmp_path, people=10, images=4)

    def make(**options: Any) -> PairTable:
        return IdentityPairs(str(tmp_path), **options).read()

    table = make(identities=-6, folds=3)
    assert set(table.identities) == {f"s{person}" for person in range(5, 11)}
    who = [table.identities[item] for item in range(len(table.items))]
    people: list[set[str]] = []
    for fold in range(3):
        rows = (table.folds == fold).nonzero().flatten().tolist()
        assert sum(bool(table.same[row]) for row in rows) == len(rows) / 2 == 12
        people.append({who[item] for row in rows for item in (table.first[row], table.second[row])})
        for row in rows:
            assert (who[table.first[row]] == who[table.second[row]]) == bool(table.same[row])
    assert sum(len(group) for group in people) == 6
    pairs = {frozenset(pair) for pair in zip(table.first.tolist(), table.second.tolist(), strict=True)}
    assert len(pairs) == len(table.first)  # none twice, none with itself
    again, other = make(identities=-6, folds=3), make(identities=-6, folds=3, seed=1)
    assert torch.equal(table.second, again.second) and again.items == table.items
    assert other.items != table.items or not torch.equal(table.second, other.second)
    assert len(make(folds=2, pairs_per_fold=3).same) == 12
    for options, message in (
        ({"folds": 6}, "too few for 6 folds"),
        ({"identities": 11}, "has 10 identities"),
        ({"identities": ["s99"]}, "s99"),
    ):
        with pytest.raises(DataError, match=message):
            make(**options)
    for wrong in ({"folds": 1}, {"identities": 0}, {"pairs_per_fold": 0}):
        with pytest.raises(ConfigError):
            make(**wrong)


@pytest.mark.parametrize("stem", ["{who}/{who}_{n}", "{who}/{n:04d}", "{who}/{n}", "{who}_{n:04d}"])
def test_lfw_images_named_otherwise(tmp_path: Path, stem: str) -> None:
    folder = write_lfw(tmp_path / "lfw")
    for path in sorted(folder.rglob("*.jpg")):
        who, number = path.parent.name, int(path.stem[-4:])
        path.rename(folder / f"{stem.format(who=who, n=number)}.JPG")
    (tmp_path / "pairs.txt").write_text(LFW_LIST)
    opened = LFWPairs(str(tmp_path), images="lfw").open((1, 8, 8))
    assert len(opened.images.paths) == len(set(opened.images.paths)) == 12
    if stem == "{who}_{n:04d}":
        for person in "ABCD":
            (folder / f"Person_{person}").rmdir()
        assert len(LFWPairs(str(tmp_path)).open((1, 8, 8)).images.paths) == 12


def test_lfw_images_that_are_missing_take_one_line(tmp_path: Path) -> None:
    folder = write_lfw(tmp_path / "lfw")
    (tmp_path / "pairs.txt").write_text(LFW_LIST)
    for path in sorted(folder.rglob("*.jpg")):
        path.rename(path.with_name(f"portrait-{path.name}"))
    message = r"12 of 12 images.*Person_A holds portrait-Person_A_0001.jpg.*taken are <name>/<name>_0001.jpg"
    with pytest.raises(DataError, match=message) as caught:
        LFWPairs(str(tmp_path), images="lfw").open((1, 8, 8))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500


@pytest.mark.parametrize("place", ["", "lfw-deepfunneled/lfw-deepfunneled"])
def test_lfw_pairs_as_kaggle_has_them(tmp_path: Path, place: str) -> None:
    write_lfw(tmp_path / "published" / "lfw")
    (tmp_path / "published" / "pairs.txt").write_text(LFW_LIST)
    expected = LFWPairs(str(tmp_path / "published")).open((1, 8, 8))
    write_lfw(tmp_path / "kaggle" / place)
    (tmp_path / "kaggle" / "pairs.csv").write_text(lfw_table())
    for found in (
        LFWPairs(str(tmp_path / "kaggle")).open((1, 8, 8)),
        PairsFile(str(tmp_path / "kaggle"), "pairs.csv", folder=place or None).open((1, 8, 8)),
    ):
        assert len(found.table.items) == 12
        for ours, theirs in zip(found.table[3:], expected.table[3:], strict=True):
            assert torch.equal(ours, theirs)  # type: ignore[arg-type]
    rows = lfw_table().splitlines()
    one_list = [rows[0], *(row for row in rows[1:] if row.endswith(",")), *(row for row in rows[1:] if row[-1] != ",")]
    (tmp_path / "kaggle" / "pairs.csv").write_text("\n".join(one_list))
    table = LFWPairs(str(tmp_path / "kaggle")).open((1, 8, 8)).table
    assert table.folds.tolist() == [0, 1, 2, 3] * 2 and table.same.tolist() == [True] * 4 + [False] * 4


def test_lists_with_a_byte_order_mark_and_backslashes(tmp_path: Path) -> None:
    write_people(tmp_path)
    lines = ["first,second,same,fold", r"s1\1.png,s1\2.png,1,0", r"s1\1.png,s2\1.png,0,0"]
    lines += [r"s3\1.png,s3\2.png,1,1", r"s3\1.png,s4\1.png,0,1"]
    (tmp_path / "pairs.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = PairsFile(str(tmp_path)).open((1, 8, 8))
    assert found.table.items[:2] == ("s1/1.png", "s1/2.png") and found.table.folds.tolist() == [0, 0, 1, 1]
    write_lfw(tmp_path / "lfw")
    (tmp_path / "lfw.txt").write_bytes(b"\xef\xbb\xbf" + LFW_LIST.replace("\n", "\r\n").encode())
    assert len(LFWPairs(str(tmp_path), "lfw.txt").open((1, 8, 8)).table.items) == 12
    write_ytf(tmp_path / "ytf")
    listed = (tmp_path / "ytf" / "splits.txt").read_text().replace("/", "\\")
    (tmp_path / "ytf" / "splits.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
    assert YTFPairs(str(tmp_path / "ytf")).read().items[0] == "P0/0"


@pytest.mark.parametrize("number", ["²", "٣", "9" * 20, "9" * 5000])
def test_digits_that_are_no_number(tmp_path: Path, number: str) -> None:
    write_lfw(tmp_path / "lfw")
    for first, second in (("2\t2", f"{number}\t2"), ("Person_A\t1\t2", f"Person_A\t1\t{number}")):
        (tmp_path / "pairs.txt").write_text(LFW_LIST.replace(first, second))
        with pytest.raises(DataError, match=r"pairs.txt, line \d"):
            LFWPairs(str(tmp_path)).read()
    (tmp_path / "own.txt").write_text(f"a.png b.png 1 {number}\n")
    with pytest.raises(DataError, match=r"own.txt, line 1"):
        PairsFile(str(tmp_path), "own.txt").read()
    (tmp_path / "splits.txt").write_text(f"1, A/1, A/2, 1\n{number}, A/0, A/1, 1\n")
    with pytest.raises(DataError, match=r"splits.txt, line 2"):
        YTFPairs(str(tmp_path)).read()


@pytest.mark.parametrize("video", ["/", "//0", "/usr", "../..", "P0/..", "./", "P0//0", "P0/."])
def test_videos_lead_nowhere_else(tmp_path: Path, video: str) -> None:
    write_ytf(tmp_path)
    (tmp_path / "splits.txt").write_text(f"1, P0/0, {video}, 1\n")
    with pytest.raises(DataError, match=r"splits.txt, line 1: expected 'fold, name/video"):
        YTFPairs(str(tmp_path)).read()
