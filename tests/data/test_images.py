"""Pictures are found inline, in directories and in archives, and what is missing or broken is named."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import pickle
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench import files
from bench.files import drawn, encoded, write_tar, write_zip
from PIL import Image

from ofa_core.data.images import Images
from ofa_core.data.records import BadRow, Record
from ofa_core.errors import OFAError


def record(image: str, **changes: Any) -> Record:
    fields: dict[str, Any] = {"id": "7", "image": image, "box": files.BOX, "place": "rows.jsonl:3"}
    return Record(**(fields | changes))


def same(found: Image.Image, number: int) -> bool:
    expected = drawn(number)
    return found.mode == "RGB" and found.size == expected.size and found.tobytes() == expected.tobytes()


def in_directory(path: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


ROOTS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "directory": lambda d, content: in_directory(d / "root", content),
    "zip": lambda d, content: write_zip(d / "root.zip", content),
    "stored zip": lambda d, content: write_zip(d / "root.zip", content, zipfile.ZIP_STORED),
    "tar": lambda d, content: write_tar(d / "root.tar", content),
    "tar.gz": lambda d, content: write_tar(d / "root.tar.gz", content),
    "tar of .": lambda d, content: write_tar(d / "root.tar", {f"./{name}": data for name, data in content.items()}),
}
ARCHIVES = {kind: make for kind, make in ROOTS.items() if kind != "directory"}

CONTENT = {
    "1.png": encoded(1),
    "sub/2.png": encoded(2),
    "sub/3.jpg": encoded(3, "JPEG"),
    "sub/same.png": encoded(4),
    "other/same.png": encoded(5),
    "other/1.png": encoded(6),
    "other/broken.png": encoded(7)[:60],
    "other/text.png": b"not a picture",
    "other/empty.png": b"",
    "other/grey.png": encoded(8),
}


@pytest.mark.parametrize("make", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1.png", 1),
        ("./1.png", 1),
        ("sub/2.png", 2),
        ("2.png", 2),  # COCO's names lack train2014/
        ("/elsewhere/sub/2.png", 2),
        ("elsewhere/deep/2.png", 2),
        ("sub/same.png", 4),
        ("data/other/same.png", 5),
        ("other/1.png", 6),
        ("elsewhere/1.png", 1),
        ("../../1.png", 1),
        ("sub/../other/same.png", 5),
    ],
)
def test_a_picture_is_found_by_its_path_or_by_the_end_of_it(
    tmp_path: Path, make: Callable[..., Path], name: str, number: int
) -> None:
    with Images.open(make(tmp_path, CONTENT)) as images:
        assert same(images.load(record(name)), number)


@pytest.mark.parametrize("make", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("9.png", r"image 9\.png does not exist, nor is it in {root}$"),
        ("sub", r"image sub does not exist, nor is it in {root}$"),
        ("..", r"image \.\. does not exist, nor is it in {root}$"),
        ("\0.png", r"image \0\.png does not exist, nor is it in {root}$"),
        ("x" * 300, r"image x{{300}} does not exist, nor is it in {root}$"),
        ("same.png", r"image same\.png could be other/same\.png or sub/same\.png in {root}$"),
        ("broken.png", r"image .*broken\.png.* cannot be read: ."),
        ("text.png", r"image .*text\.png.* cannot be read: it is not a picture in a known format"),
        ("empty.png", r"image .*empty\.png.* cannot be read: it is not a picture in a known format"),
    ],
)
def test_a_missing_or_broken_picture_is_named_with_its_row(
    tmp_path: Path, make: Callable[..., Path], name: str, message: str
) -> None:
    root = make(tmp_path, CONTENT)
    with (
        Images.open(root) as images,
        pytest.raises(OFAError, match="^rows.jsonl:3: " + message.format(root=root)) as caught,
    ):
        images.load(record(name))
    assert "\n" not in str(caught.value)


def test_a_picture_of_any_kind_becomes_rgb_at_its_own_size(tmp_path: Path) -> None:
    drawn(1).convert("P").save(tmp_path / "x.gif")
    drawn(1).convert("CMYK").save(tmp_path / "x.jpg")
    drawn(1).convert("LA").resize((33, 44)).save(tmp_path / "x.png")
    with Images.open(tmp_path) as images:
        found = [images.load(record(name, box=(1, 2, 3, 4))) for name in ("x.gif", "x.jpg", "x.png")]
    assert [(image.mode, image.size) for image in found] == [("RGB", (90, 60)), ("RGB", (90, 60)), ("RGB", (33, 44))]


def test_a_row_may_hold_the_whole_path_where_that_is_allowed(tmp_path: Path) -> None:
    in_directory(tmp_path / "here", {"1.png": encoded(1)})
    in_directory(tmp_path / "root", {"1.png": encoded(2)})
    path = str(tmp_path / "here" / "1.png")
    with Images.open(None, allow_outside=True) as images:
        assert same(images.load(record(path)), 1)
    with Images.open(tmp_path / "root", allow_outside=True) as images:  # its own path comes first
        assert same(images.load(record(path)), 1)
        assert same(pickle.loads(pickle.dumps(images)).load(record(path)), 1)
    with Images.open(tmp_path / "root") as images:  # what others call /here/1.png lies under the root
        assert same(images.load(record(path)), 2)
        assert same(pickle.loads(pickle.dumps(images)).load(record(path)), 2)


@pytest.mark.parametrize("make", ROOTS.values(), ids=ROOTS)
@pytest.mark.parametrize("name", ["{}/secret.png", "../secret.png", "sub/../../secret.png", "{}/root/../secret.png"])
def test_under_a_root_nothing_outside_of_it_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path], name: str
) -> None:
    root = make(in_directory(tmp_path, {"secret.png": encoded(1)}), CONTENT)
    (tmp_path / "root").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "root")
    message = r"^rows\.jsonl:3: image .*secret\.png lies outside of {}, where rows may not lead; pass --allow-outside"
    with Images.open(root) as images, pytest.raises(OFAError, match=message.format(root)):
        images.load(record(name.format(tmp_path)))
    with Images.open(root, allow_outside=True) as images:
        assert same(images.load(record(name.format(tmp_path))), 1)


@pytest.mark.parametrize("name", ["{}/secret.png", "../secret.png", "sub/../../secret.png"])
def test_without_a_root_the_current_directory_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    in_directory(tmp_path, {"secret.png": encoded(1), "here/1.png": encoded(2), "here/sub/3.png": encoded(3)})
    monkeypatch.chdir(tmp_path / "here")
    message = r"secret\.png lies outside of the current directory, .*; pass --images DIR or --allow-outside"
    with Images.open(None) as images:
        for inside, number in (("1.png", 2), ("sub/../sub/3.png", 3), (f"{tmp_path}/here/1.png", 2)):
            assert same(images.load(record(inside)), number)
        with pytest.raises(OFAError, match=message):
            images.load(record(name.format(tmp_path)))


def test_a_path_that_lies_within_the_root_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_directory(tmp_path, {"root/1.png": encoded(1), "root/sub/1.png": encoded(2)})
    (tmp_path / "link").symlink_to(tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    for root in ("root", "link", tmp_path / "root", tmp_path / "link"):
        with Images.open(Path(root)) as images:
            for name in ("{}/root/sub/1.png", "{}/link/sub/1.png", "root/sub/1.png", "link/../root/sub/1.png"):
                assert same(images.load(record(name.format(tmp_path))), 2)


def test_links_in_the_root_lead_where_their_owner_wants(tmp_path: Path) -> None:
    in_directory(tmp_path, {"elsewhere/1.png": encoded(1), "secret.png": encoded(2), "root/2.png": encoded(3)})
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    with Images.open(tmp_path / "root") as images:
        for name in ("link/1.png", f"{tmp_path}/root/link/1.png", "1.png"):
            assert same(images.load(record(name)), 1)
        for name in ("link/../secret.png", f"{tmp_path}/root/link/../secret.png"):  # to the system, that is beside it
            with pytest.raises(OFAError, match=r"secret\.png (does not exist, nor is it in|lies outside of)"):
                images.load(record(name))


def test_without_a_root_a_missing_picture_says_so() -> None:
    expected = r"^rows\.jsonl:3: image 1\.png does not exist, and no directory or archive of images was given$"
    with Images.open(None) as images, pytest.raises(OFAError, match=expected):
        images.load(record("1.png"))


def test_the_inline_picture_comes_first(tmp_path: Path) -> None:
    in_directory(tmp_path, {"1.png": encoded(1)})
    with Images.open(tmp_path) as images:
        assert same(images.load(record("1.png", inline=encoded(2))), 2)
    with Images.open(None) as images:
        assert same(images.load(record("", inline=encoded(3))), 3)


@pytest.mark.parametrize(
    ("inline", "message"),
    [
        (b"no picture", r"the inline image of 7 cannot be read: it is not a picture in a known format"),
        (b"", r"the inline image of 7 cannot be read: it is not a picture in a known format"),
        (encoded(1)[:-40], r"the inline image of 7 cannot be read: ."),
        (encoded(1, "JPEG")[:-300], r"the inline image of 7 cannot be read: ."),
        (encoded(1)[:50] + b"\xff" * 40 + encoded(1)[90:], r"the inline image of 7 cannot be read: ."),
        (None, r"the row names no image and holds none"),
    ],
)
def test_a_broken_inline_picture_is_named_by_its_row(inline: bytes | None, message: str) -> None:
    with Images.open(None) as images, pytest.raises(OFAError, match=f"^rows.jsonl:3: {message}") as caught:
        images.load(record("", inline=inline))
    assert "\n" not in str(caught.value)


def test_a_picture_too_large_to_be_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with Images.open(None) as images, pytest.raises(OFAError, match=r"inline image of 7 cannot be read: .* bomb"):
        images.load(record("", inline=encoded(1)))


def test_a_picture_that_is_not_the_one_the_row_speaks_of_is_an_error(tmp_path: Path) -> None:
    in_directory(tmp_path, {"1.png": encoded(1)})
    with Images.open(tmp_path) as images:
        assert same(images.load(record("1.png", size=(90, 60))), 1)
        with pytest.raises(BadRow, match=r"^rows\.jsonl:3: picture 1\.png is 90 × 60 pixels, the row says 640 × 480$"):
            images.load(record("1.png", size=(640, 480)))
        with pytest.raises(BadRow, match=r"^rows\.jsonl:3: box: .* is not within the picture of 90 × 60 pixels$"):
            images.load(record("1.png", box=(1, 2, 94, 50)))


# --- archives ------------------------------------------------------------------------------------------------------


def test_links_in_a_tar_lead_to_its_own_files_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encoded(9))
    links = {
        "hard.png": (tarfile.LNKTYPE, "./sub/2.png"),
        "sub/soft.png": (tarfile.SYMTYPE, "2.png"),
        "up/soft.png": (tarfile.SYMTYPE, "../sub/2.png"),
        "out.png": (tarfile.SYMTYPE, str(tmp_path / "secret.png")),
        "above.png": (tarfile.SYMTYPE, "../secret.png"),
        "round.png": (tarfile.SYMTYPE, "round.png"),
    }
    with Images.open(write_tar(tmp_path / "x.tar", {"./sub/2.png": encoded(2)}, links)) as images:
        for name in ("hard.png", "sub/soft.png", "up/soft.png"):
            assert same(images.load(record(name)), 2)
        for name in ("out.png", "above.png", "round.png"):
            with pytest.raises(OFAError, match=rf"image {name} in .* cannot be read: it is a link to .*, which is no"):
                images.load(record(name))


@pytest.mark.parametrize("make", [write_zip, write_tar], ids=["zip", "tar"])
def test_names_that_lead_out_of_an_archive_reach_nothing_outside(tmp_path: Path, make: Callable[..., Path]) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = make(tmp_path / f"x.{make.__name__.removeprefix('write_')}", {"../../evil.png": encoded(3)})
    with Images.open(path) as images:
        assert same(images.load(record("evil.png")), 3)  # the archive's own bytes
    assert sorted(tmp_path.rglob("*")) == [*before, path]


@pytest.mark.parametrize("make", [write_zip, write_tar], ids=["zip", "tar"])
def test_of_two_entries_of_one_path_the_last_counts(tmp_path: Path, make: Callable[..., Path]) -> None:
    content = {"sub/1.png": encoded(1), "./sub/1.png": encoded(2)}
    with Images.open(make(tmp_path / f"x.{make.__name__.removeprefix('write_')}", content)) as images:
        assert same(images.load(record("sub/1.png")), 2)
        assert same(images.load(record("1.png")), 2)


def test_directories_in_an_archive_are_no_pictures(tmp_path: Path) -> None:
    content = {"sub/": b"", "sub/1.png": encoded(1)}
    tar = write_tar(tmp_path / "x.tar", {"sub/1.png": encoded(1)}, {"sub": (tarfile.DIRTYPE, "")})
    for root in (write_zip(tmp_path / "x.zip", content), tar):
        with Images.open(root) as images:
            assert same(images.load(record("sub/1.png")), 1)
            with pytest.raises(OFAError, match="image sub does not exist, nor is it in"):
                images.load(record("sub"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_index_is_built_once(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = ROOTS[kind](tmp_path, {f"{number}.png": encoded(number) for number in range(10)})
    with Images.open(root) as images:
        for cls, name in ((tarfile, "open"), (zipfile, "ZipFile"), (gzip, "open")):
            monkeypatch.setattr(cls, name, None)
        for number in (7, 1, 9, 0, 1):
            assert same(images.load(record(f"{number}.png")), number)


def load_shuffled(images: Images, seed: int, wrong: Any) -> None:
    numbers = [number for number in range(20) for _ in range(10)]
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        try:
            if not same(images.load(record(f"{number}.png")), number):
                wrong.put(number)
        except Exception as error:
            wrong.put(error)
    wrong.put(None)


@pytest.mark.parametrize("kind", ["directory", "zip", "stored zip", "tar", "tar.gz"])
@pytest.mark.parametrize("way", ["fork", "thread", "unpickled"])
def test_several_workers_read_one_archive_at_once(tmp_path: Path, kind: str, way: str) -> None:
    content = {f"{number}.png": encoded(number) + os.urandom(9000) for number in range(20)}
    root = ROOTS[kind](tmp_path, content)
    with Images.open(root) as images:
        images.load(record("3.png"))
        if way == "unpickled":
            with pickle.loads(pickle.dumps(images)) as copy:
                assert all(same(copy.load(record(f"{number}.png")), number) for number in range(20))
            return
        context = multiprocessing.get_context("fork")
        wrong = context.Queue()
        make: Any = context.Process if way == "fork" else threading.Thread
        workers = [make(target=load_shuffled, args=(images, seed, wrong)) for seed in range(3)]
        for worker in workers:
            worker.start()
        ended = 0
        while ended < len(workers):
            found = wrong.get(timeout=60)
            assert found is None
            ended += 1
        for worker in workers:
            worker.join(20)


def test_a_closed_archive_is_let_go_of(tmp_path: Path) -> None:
    for kind in ("zip", "tar", "tar.gz"):
        before = set(os.listdir("/proc/self/fd"))
        images = Images.open(ROOTS[kind](tmp_path, CONTENT))
        with images:
            assert set(os.listdir("/proc/self/fd")) > before
        assert set(os.listdir("/proc/self/fd")) == before


def test_an_encrypted_or_damaged_member_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"1.png": encoded(1), "2.png": encoded(2)}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(encoded(1), encoded(1)[:-1] + b"!"))
    with Images.open(path) as images:
        with pytest.raises(OFAError, match=r"^rows.jsonl:3: image 1\.png in .*x\.zip cannot be read: Bad CRC-32"):
            images.load(record("1.png"))
        assert same(images.load(record("2.png")), 2)
    start = content.index(b"PK\x01\x02") + 8
    path.write_bytes(content[:start] + b"\x01" + content[start + 1 :])
    local = path.read_bytes()
    path.write_bytes(local[:6] + b"\x01" + local[7:])
    with Images.open(path) as images, pytest.raises(OFAError, match=r"image 1\.png in .* cannot be read: .*encrypted"):
        images.load(record("1.png"))


def test_a_tar_that_ends_too_early_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"1.png": encoded(1), "2.png": encoded(2) + bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[:1700])
    with pytest.raises(OFAError, match=r"images .*x\.tar cannot be read .*: unexpected end of data"):
        Images.open(path)
    path.write_bytes(whole)
    with Images.open(path) as images:
        os.truncate(path, 1700)
        assert same(images.load(record("1.png")), 1)
        with pytest.raises(OFAError, match=r"image 2\.png in .* cannot be read: the archive ends before the picture"):
            images.load(record("2.png"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.zip", b""),
        ("x.zip", b"PK\x03\x04 and nothing"),
        ("x.tar", b"no archive"),
        ("x.tar.gz", gzip.compress(b"no archive")),
        ("x.tar.gz", gzip.compress(os.urandom(5000))[:-2000]),
        ("x.rar", b"Rar!" * 900),
    ],
    ids=["empty zip", "damaged zip", "no tar", "no tar.gz", "cut tar.gz", "rar"],
)
def test_a_root_of_another_kind_is_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        OFAError, match=rf"images .*{name} cannot be read as a directory, a \.zip, \.tar or \.tar\.gz archive: ."
    ):
        Images.open(tmp_path / name)


def test_a_missing_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OFAError, match=r"images .*absent does not exist; it should be a directory, a \.zip"):
        Images.open(tmp_path / "absent")
