"""The emoji set from archives of the packages' layout, and the real one where it is prepared."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from latent.data import dataset, emoji, prepare
from latent.errors import UserError

BASES = [f"1F{number:03X}" for number in range(0x400, 0x428)]
TONED = BASES[:3]
TWINS = next(
    (one, other) for one in BASES[4::2] for other in BASES[4::2] if emoji._bucket(one) < 1 < emoji._bucket(other)
)
"""Emoji with five skin tones, and two flags, of the test and the training split, that are one picture."""


def picture(code, style):
    seed = BASES.index(TWINS[0]) if code in TWINS else int(hashlib.sha256(code.encode()).hexdigest()[:6], 16)
    pixels = np.random.default_rng([seed, style]).integers(0, 256, (64, 64, 4)).astype(np.uint8)
    pixels[:8, :8] = (10, 20, 30, 0)  # transparent: its colour must not show
    pixels[8:16, :8] = (10, 20, 30, 255)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def archive(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as files:
        for name, data in members.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            files.addfile(member, io.BytesIO(data))
    return file.getvalue()


def packages():
    entries, names = [], []
    for place, base in enumerate(BASES):
        tones = emoji.TONES if base in TONED else ()
        code = f"{base}-FE0F" if place % 2 else base  # sources differ in where they write the variation selector
        forms = {tone: {"unified": f"{base}-{tone}", "image": f"{base}-{tone}.png"} for tone in tones}
        entries.append({"unified": code, "image": f"{base}.png", "category": emoji.GROUPS[place % 9]})
        if forms:
            entries[-1]["skin_variations"] = forms
        skins = [{"hexcode": form["unified"], "label": f"{base}: {tone}"} for tone, form in forms.items()]
        names.append({"hexcode": base, "label": f"the {base}", "skins": skins} if skins else
                     {"hexcode": f"{base}-FE0F", "label": f"the {base}"})  # fmt: skip
    found = {emoji.NAMES: archive({"en/data.json": json.dumps(names).encode()})}
    for number, (style, package) in enumerate(emoji.STYLES.items()):
        files = [form["image"] for entry in entries for form in (entry, *entry.get("skin_variations", {}).values())]
        images = {f"img/{style}/64/{file}": picture(file[:-4], number) for file in files}
        found[package] = archive({"emoji.json": json.dumps(entries).encode(), **images})
    return found


@pytest.fixture
def raw(tmp_path, monkeypatch):
    made = packages()
    for package, data in made.items():
        (tmp_path / f"{package}-1.0.0.tgz").write_bytes(data)
    versions = {package: ("1.0.0", hashlib.sha256(data).hexdigest()) for package, data in made.items()}
    monkeypatch.setattr(emoji, "ARCHIVES", versions)
    return tmp_path


def test_every_form_of_an_emoji_is_in_one_split(raw):
    splits = emoji.read(raw)
    assert sum(len(split.x) for split in splits.values()) == 2 * (len(BASES) + 3 * len(emoji.TONES))
    codes = {name: {caption.replace("the ", "")[:5] for caption in split.caption} for name, split in splits.items()}
    assert set.union(*codes.values()) == set(BASES)
    assert sum(map(len, codes.values())) == len(BASES), "an emoji is in two splits"
    assert all(len(split.x) for split in splits.values())
    for split in splits.values():
        assert np.bincount(split.factors[:, 0], minlength=2).tolist() == [len(split.x) // 2] * 2


def test_emoji_that_share_a_picture_are_not_parted(raw):
    homes = [name for name, split in emoji.read(raw).items() for twin in TWINS if f"the {twin}" in split.caption]
    assert len(homes) == 2 and len(set(homes)) == 1


def test_labels_tones_captions_and_pixels_belong_together(raw):
    for split in emoji.read(raw).values():
        for x, label, (style, tone), caption in zip(split.x, split.label, split.factors, split.caption, strict=True):
            base = caption.replace("the ", "")[:5]
            assert label == BASES.index(base) % 9
            code = base if tone == 0 else f"{base}-{emoji.TONES[tone - 1]}"
            assert caption == (f"the {base}" if tone == 0 else f"{base}: {emoji.TONES[tone - 1]}")
            rgba = np.asarray(Image.open(io.BytesIO(picture(code, style)))).astype(float)
            alpha = rgba[..., 3:] / 255
            np.testing.assert_allclose(x, alpha * rgba[..., :3] + (1 - alpha) * 255, atol=1.01)
            assert (x[:8, :8] == 255).all() and (x[8:16, :8] == (10, 20, 30)).all()


def test_preparing_keeps_captions_and_factors(raw, tmp_path):
    prepare.prepare("emoji", tmp_path / "data", raw)
    found, original = dataset.load("emoji", tmp_path / "data"), emoji.read(raw)
    for name, split in found.splits.items():
        for part, array in original[name].parts().items():
            np.testing.assert_array_equal(split.parts()[part], array)
        assert "caption" not in split.arrays(), "words cannot go to a device"


def test_missing_and_other_archives_are_refused(raw):
    path = raw / f"{emoji.STYLES['twitter']}-1.0.0.tgz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"emoji-datasource-twitter-1.0.0.tgz is damaged or another version: SHA-256"):
        emoji.read(raw)
    path.unlink()
    with pytest.raises(UserError, match=r"`npm pack emoji-datasource-twitter@1.0.0` makes it"):
        emoji.read(raw)
    with pytest.raises(UserError, match=r"--from=DIRECTORY is required: `npm pack"):
        emoji.read(None)


def test_the_real_set_if_it_is_there():
    if not (dataset.data_directory(None) / "emoji" / emoji.SOURCE.version / dataset.ARRAYS).is_dir():
        pytest.skip("emoji is not prepared on this machine (python -m scripts.prepare_data emoji --from=DIRECTORY)")
    splits = dataset.load("emoji").splits
    assert sum(len(split.x) for split in splits.values()) == 7572
    assert len(set(np.concatenate([split.caption for split in splits.values()]))) == 3786
    seen = [{x.tobytes() for x in split.x} for split in splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 7519
