"""Copies are found whatever was done to them that is promised, and nothing else is taken for one."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pixmed_jax.data import decode, duplicates, phantom

DATA = Path(__file__).parents[2] / "shared" / "data"
# Seen by eye, among them neighbours (1476 and 1477, 2001 and 2002, 2010 and 2011) and slices of little head.
SEEN = {
    ("Training/meningioma/Tr-me_1265.jpg", "0092.png", "flip_left_right"),
    ("Training/glioma/Tr-gl_1251.jpg", "0882.png", "flip_left_right"),
    ("Training/pituitary/Tr-pi_1146.jpg", "1476.png", "flip_left_right"),
    ("Testing/pituitary/Te-pi_0049.jpg", "1476.png", "identity"),
    ("Testing/pituitary/Te-pi_0198.jpg", "1477.png", "flip_left_right"),
    ("Training/pituitary/Tr-pi_0681.jpg", "1477.png", "identity"),
    ("Training/glioma/Tr-gl_0209.jpg", "2001.png", "flip_left_right"),
    ("Training/glioma/Tr-gl_0210.jpg", "2002.png", "flip_left_right"),
    ("Testing/glioma/Te-glTr_0002.jpg", "2010.png", "identity"),
    ("Training/glioma/Tr-gl_0219.jpg", "2011.png", "flip_left_right"),
    ("Training/glioma/Tr-gl_0832.jpg", "2693.png", "flip_left_right"),
}


def neighbours(patient: int, apart: float = 5.0, count: int = 3, size: int = 128) -> list[np.ndarray]:
    """Parallel slices of one patient, `apart` mm from each other, [S, S] uint8 with noise of their own."""
    axis = patient % 3
    a, plane = phantom.anatomy(patient), ("sagittal", "coronal", "axial")[axis]
    rng = np.random.default_rng(patient)
    slices = []
    for number in range(count):
        through = a.tumour.centre + number * apart * a.pose[:, axis]
        clean, _ = phantom.tissue(a, phantom.plane_points(a, plane, through, size))
        noisy = clean + 0.02 * rng.standard_normal(clean.shape)
        slices.append((noisy.clip(0, 1) * 255).round().astype(np.uint8))
    return slices


@pytest.fixture(scope="module")
def slices() -> list[np.ndarray]:
    """Seven patients in three planes, three neighbouring slices each."""
    return [image for patient in range(7) for image in neighbours(patient)]


def textures(images) -> duplicates.Texture:
    return duplicates.stack([duplicates.texture(image) for image in images])


def turned(image: np.ndarray, name: str) -> Image.Image:
    """By pillow, whose names the transforms bear."""
    picture = Image.fromarray(image)
    return picture if name == "identity" else picture.transpose(Image.Transpose[name.upper()])


def jpeg(picture: Image.Image, quality: int = 75) -> np.ndarray:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


@pytest.mark.parametrize("name", duplicates.TRANSFORMS)
def test_transforms_are_pillows(name):
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    np.testing.assert_array_equal(duplicates.transform(image, name), np.asarray(turned(image, name)))
    np.testing.assert_array_equal(duplicates.transform(image[None], name)[0], np.asarray(turned(image, name)))


@pytest.mark.parametrize("name", duplicates.TRANSFORMS)
def test_a_copy_is_found_whatever_was_done_to_it(slices, name):
    """Turned, stretched by 0.7 to 1.3, brightened or darkened, encoded as JPEG: those pairs and no others."""
    rng = np.random.default_rng(duplicates.TRANSFORMS.index(name))
    made = []
    for image in slices:
        picture = turned(image, name)
        width, height = (rng.uniform(0.7, 1.3, 2) * 128).round().astype(int)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling(int(rng.integers(0, 6)))))
        brightness = rng.uniform(0.5, 1.5)
        made.append(jpeg(Image.fromarray((pixels * brightness).clip(0, 255).astype(np.uint8))))
    found = duplicates.copies(textures(slices), textures(made))
    assert [(c.file, c.other, c.transform) for c in found] == [(i, i, name) for i in range(len(slices))]
    assert all(duplicates.COPY <= c.similarity <= 1.001 for c in found)


def test_gamma_and_colour_and_depth_change_nothing(slices):
    gamma = [(255 * (image / 255) ** 0.7).astype(np.uint8) for image in slices]
    deep = [image.astype(np.uint16) * 16 for image in slices]
    colour = [np.repeat(image[..., None], 3, -1) for image in slices]
    for made in (gamma, deep, colour):
        found = duplicates.copies(textures(slices), textures(made))
        assert [(c.file, c.other, c.transform) for c in found] == [
            (i, i, "identity") for i in range(len(slices))
        ]


@pytest.mark.parametrize("parts", [0.7, -1.0], ids=["both rules", "without the rule about parts"])
def test_neighbouring_slices_are_no_copies(slices, monkeypatch, parts):
    """Although their plain correlation is that of copies."""
    monkeypatch.setattr(duplicates, "_PARTS", parts)
    plain = [np.corrcoef(slices[i].ravel(), slices[i + 1].ravel())[0, 1] for i in range(0, len(slices), 3)]
    assert max(plain) > 0.9
    assert duplicates.copies(textures(slices)) == []
    darker = textures([(image * 0.6).astype(np.uint8) for image in slices])
    assert all(c.file == c.other for c in duplicates.copies(textures(slices), darker))


def test_an_image_that_agrees_in_most_parts_only_is_no_copy(slices, monkeypatch):
    """As of a slice whose tumour was painted over, or a neighbour that shares the skull."""
    changed = [image.copy() for image in slices]
    for image in changed:
        image[44:80, 44:80] = image[44:80, 44:80].T
    pair = textures(slices), textures(changed)
    assert duplicates.copies(*pair) == []
    monkeypatch.setattr(duplicates, "_PARTS", -1.0)
    assert len(duplicates.copies(*pair)) > 10


def test_within_a_set_the_later_one_is_the_copy_and_is_turned_into_the_earlier(slices):
    images = [*slices[:4], np.asarray(turned(slices[1], "rotate_90")), slices[3]]
    found = duplicates.copies(textures(images))
    assert [(c.file, c.other, c.transform) for c in found] == [(4, 1, "rotate_270"), (5, 3, "identity")]
    assert found[1].similarity == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(duplicates.transform(images[4], "rotate_270"), images[1])


def test_the_other_way_round_gives_the_inverse(slices):
    made = [np.asarray(turned(image, duplicates.TRANSFORMS[i % 8])) for i, image in enumerate(slices)]
    there = duplicates.copies(textures(slices), textures(made))
    back = duplicates.copies(textures(made), textures(slices))
    inverse = {name: name for name in duplicates.TRANSFORMS}
    inverse |= {"rotate_90": "rotate_270", "rotate_270": "rotate_90"}
    assert len(there) == len(slices)
    assert [(c.other, c.file, inverse[c.transform]) for c in there] == [
        (c.file, c.other, c.transform) for c in back
    ]


def test_images_without_structure_are_nobodys_copy(slices):
    rng = np.random.default_rng(0)
    across = np.linspace(0, 1, 128)[None] * np.ones((128, 1))
    flat = [
        np.zeros((128, 128)),
        np.full((128, 128), 255),
        200 * across,
        20 + 90 * across,
        200 * np.exp(-((across - 0.5) ** 2) - (across.T - 0.5) ** 2),
        150 * np.exp(-2 * (across - 0.5) ** 2 - 2 * (across.T - 0.5) ** 2),
        *(np.abs(rng.normal(0, 2, (128, 128))) for _ in range(3)),  # nothing but noise
        255 * (np.hypot(across - 0.3, across.T - 0.3) < 0.02),
        255 * (np.hypot(across - 0.6, across.T - 0.2) < 0.02),
    ]
    blank = [image.astype(np.uint8) for image in flat]
    for number in range(2):  # the first and the last slice of a volume: black but for the side's letter
        page = Image.new("L", (256, 256), number)
        ImageDraw.Draw(page).text((8, 8), "R", fill=255, font=ImageFont.load_default(16))
        blank.append(np.asarray(page))
    assert duplicates.copies(textures([*blank, *slices])) == []
    assert duplicates.copies(textures(blank[:2]), textures(blank[:2])) == []


def test_tiles_and_batches_do_not_matter(slices, monkeypatch):
    images = textures([*slices, *(np.asarray(turned(image, "transpose")) for image in slices)])
    first, second = duplicates.copies(images), duplicates.copies(images, images)
    assert [(c.file - c.other, c.transform) for c in first] == [(21, "transpose")] * 21
    assert len(second) == 21 * 4  # each with itself and both ways
    monkeypatch.setattr(duplicates, "_TILE", 5)
    monkeypatch.setattr(duplicates, "_BATCH", 2)
    for once, again in ((first, duplicates.copies(images)), (second, duplicates.copies(images, images))):
        assert [c[:3] for c in once] == [c[:3] for c in again]
        assert [c.similarity for c in once] == pytest.approx([c.similarity for c in again], abs=1e-5)


def test_many_equal_images_have_bounded_pairs_and_one_is_left(slices, monkeypatch):
    monkeypatch.setattr(duplicates, "_MOST", 2)
    noisy = [jpeg(Image.fromarray(slices[0]), quality) for quality in (95, 90, 85, 80, 75, 70)]
    found = duplicates.copies(textures(noisy))
    assert {c.file for c in found} == {1, 2, 3, 4, 5}
    assert [c.file for c in found].count(5) == 2
    nearest = max((c for c in found if c.file == 5), key=lambda c: c.similarity)
    assert nearest.other == 4


def test_a_symmetric_image_has_one_pair(slices):
    half = slices[0][:, :64]
    mirrored = np.concatenate([half, half[:, ::-1]], axis=1)
    assert [c[:3] for c in duplicates.copies(textures([mirrored, mirrored]))] == [(1, 0, "identity")]


@pytest.mark.skipif(not DATA.is_dir(), reason="real data are not here")
def test_real_copies():
    files, others = sorted({pair[0] for pair in SEEN}), sorted({pair[1] for pair in SEEN})
    first = textures(decode.read_image(DATA / "brain-tumor-mri-224" / name) for name in files)
    folder = DATA / "brain-tumor-segmentation-256" / "images"
    found = duplicates.copies(first, textures(decode.read_image(folder / name) for name in others))
    assert {(files[c.file], others[c.other], c.transform) for c in found} == SEEN
