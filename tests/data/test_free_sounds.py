"""Tables of sounds of Debian packages and git repositories, from a package and a repository made here."""

import io
import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import load_dataset

import free_sounds
from hear_hf.data import debian_sounds, repository_sounds
from hear_hf.data.debian_sounds import DebianArguments, collect_debian_sounds
from hear_hf.data.free_sounds import FreeFiles, FreeSet, free_packages, free_sets
from hear_hf.data.repository_sounds import RepositoryArguments, collect_repository_sounds
from hear_hf.data.sound_files import SoundFile, SoundFilesArguments, cut
from hear_hf.data.unlabelled import UnlabelledAudioArguments, load_whole_source
from helpers import write_tone


def wav(seconds, rate=16_000, level=0.3, channels=1):
    buffer = io.BytesIO()
    tone = level * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(buffer, np.stack([tone] * channels, axis=1), rate, format="WAV")
    return buffer.getvalue()


def cut_wav(data, piece_seconds=1.0, max_pieces=4):
    return cut(SoundFile("tone.wav", data, "here", "CC0"), piece_seconds, max_pieces)


def decode(encoded):
    return soundfile.read(io.BytesIO(encoded), dtype="float32")


@pytest.fixture
def package(tmp_path):
    """Builds a package of some files with Debian's own program; its path."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb, which unpacks packages, is not installed")

    def build(files, name="toy-sounds"):
        root = tmp_path / "root" / name
        control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: toys\n"
        files = files | {"DEBIAN/control": control.encode(), f"usr/share/doc/{name}/copyright": b"By A, CC0."}
        for path, data in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        deb = tmp_path / f"{name}_1.0_all.deb"
        subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
        return str(deb)

    return build


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A folder of repositories with one, whose commit is in the list; the set's name is `toys`."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path / "host" / "somebody" / "toys"
    for name, frequency in (("a bell (low)", 300), ("gong", 200), ("not free", 400)):
        write_tone(root / "sounds" / f"{name}.wav", frequency, 0.5)
    config = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*config, "commit", "-q", "-m", "Toys"]):
        subprocess.run(["git", "-C", root, *words], check=True)
    for setting in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
        subprocess.run(["git", "-C", root, "config", setting, "true"], check=True)
    commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    paths = ("sounds/a bell (low).wav", "sounds/gong.wav", "sounds/moved.wav")
    files = {("somebody/toys", commit.stdout.strip()): (FreeFiles("CC BY 4.0", "Bea", paths),)}
    monkeypatch.setattr(repository_sounds, "free_sets", lambda: {"toys": FreeSet("bells", files)})
    return f"file://{tmp_path}/host"


def rows(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def names(table):
    return [row["audio"]["path"] for row in table]


def test_a_package_gives_its_sounds_also_those_in_zip_files_and_its_copyright(package, tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("sound/shot.ogg", wav(0.4))  # told by its contents
        opened.writestr("readme.txt", "toys")
    deb = package({"usr/share/toys/Bell.WAV": wav(0.5), "usr/share/toys/a.pk3": archive.getvalue(), "usr/x.png": b"x"})
    assert collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[deb])) == 2
    table = rows(tmp_path / "out", "toy-sounds")
    assert sorted(names(table)) == ["toy-sounds/Bell.opus", "toy-sounds/shot.opus"]
    assert {row["source"] for row in table} == {"toy-sounds=1.0"}
    assert {row["licence"] for row in table} == {"free by Debian's guidelines; see toy-sounds.copyright"}
    assert (tmp_path / "out" / "toy-sounds.copyright").read_text() == "By A, CC0."


def test_a_file_that_unpacks_to_more_than_a_bound_is_not_unpacked(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(debian_sounds, "MAX_FILE_BYTES", 100_000)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("bomb.wav", wav(0.5) + bytes(200_000))
        opened.writestr("shot.wav", wav(0.4))
    deb = package({"usr/a.zip": archive.getvalue(), "usr/bomb.ogg": bytes(200_000), "usr/ok.wav": wav(0.5)})
    assert collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[deb])) == 2
    assert sorted(names(rows(tmp_path / "out", "toy-sounds"))) == ["toy-sounds/ok.opus", "toy-sounds/shot.opus"]


def test_licence_and_credit_of_a_listed_package_are_those_of_the_list(package, tmp_path):
    deb = package({"usr/bell.wav": wav(0.5)}, "klettres-data")
    collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[deb]))
    (row,) = rows(tmp_path / "out", "klettres-data")
    assert row["licence"] == "GPL-2+; see klettres-data.copyright" and "Anne-Marie Mahfouf" in row["credit"]


def test_what_is_also_in_esc50_is_left_out(package, tmp_path):
    deb = package({f"usr/{name}.ogg": wav(0.5) for name in ("sawing_00", "sawing_01", "sheep")}, "widelands-data")
    assert collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[deb])) == 1
    assert names(rows(tmp_path / "out", "widelands-data")) == ["widelands-data/sheep.opus"]


def test_what_cannot_be_used_is_counted_and_the_rest_is_kept(package, tmp_path, capsys):
    files = {"whole.wav": wav(0.5), "broken.ogg": b"no audio", "empty.wav": b"", "click.wav": wav(0.1)}
    files |= {"silent.wav": wav(0.5, level=0), "broken.zip": b"no archive", "cut.wav": wav(0.5)[:3000]}
    deb = package({f"usr/{name}": data for name, data in files.items()})
    assert collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[deb])) == 1
    assert "toy-sounds: 1 clips, 0.00 h, 1 silent, 2 too short, 3 unreadable" in capsys.readouterr().out


def test_a_package_that_fails_is_named_and_the_others_are_written_and_kept(package, tmp_path, capsys):
    good, out = package({"usr/bell.wav": wav(0.5)}), tmp_path / "out"
    (tmp_path / "bad_1.deb").write_bytes(b"no package")
    empty = package({"usr/readme": b"none"}, "mute")
    with pytest.raises(ValueError, match="found 2 of 3 that failed: bad: .*; mute: it must hold audio.*again to try"):
        collect_debian_sounds(DebianArguments(str(out), packages=[str(tmp_path / "bad_1.deb"), good, empty]))
    assert [path.name for path in out.glob("*.parquet*")] == ["toy-sounds.parquet"]
    before = (out / "toy-sounds.parquet").stat().st_mtime_ns
    assert collect_debian_sounds(DebianArguments(str(out), packages=[good])) == 0
    assert (out / "toy-sounds.parquet").stat().st_mtime_ns == before
    assert "1 of 1 tables are in" in capsys.readouterr().out


def test_processes_change_nothing_but_the_time(package, tmp_path):
    deb = package({f"usr/{i}.wav": wav(0.4 + i / 10) for i in range(6)})
    for num_proc in (1, 2):
        collect_debian_sounds(DebianArguments(str(tmp_path / f"{num_proc}"), num_proc=num_proc, packages=[deb]))
    one, two = (rows(tmp_path / name, "toy-sounds") for name in "12")
    assert names(one) == names(two)
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(decode(first["audio"]["bytes"])[0], decode(second["audio"]["bytes"])[0])


@pytest.mark.parametrize("missing, packages", [("apt-get", ["klettres-data"]), ("dpkg-deb", ["./toys.deb"])])
def test_without_debians_programs_the_command_says_where_they_are(monkeypatch, missing, packages):
    monkeypatch.setattr(debian_sounds.shutil, "which", lambda name: None if name == missing else name)
    with pytest.raises(ValueError, match=f"found no {missing}: run this on Debian or in its image"):
        free_sounds.main(["debian", "--packages", *packages])


def test_a_repository_gives_the_listed_files_alone_at_their_commit(host, tmp_path, capsys):
    assert collect_repository_sounds(RepositoryArguments(str(tmp_path / "out"), host=host)) == 2
    table = rows(tmp_path / "out", "toys")
    assert names(table) == ["toys/a bell (low).opus", "toys/gong.opus"]
    assert {(row["licence"], row["credit"]) for row in table} == {("CC BY 4.0", "Bea")}
    assert all(re.fullmatch("somebody/toys@[0-9a-f]{40}", row["source"]) for row in table)
    assert "toys: 2 clips, 0.00 h, 1 missing" in capsys.readouterr().out


def test_a_repository_that_is_gone_is_named_with_what_git_says(host, tmp_path):
    with pytest.raises(ValueError, match="1 of 1 that failed: toys: fatal: .*gone"):
        collect_repository_sounds(RepositoryArguments(str(tmp_path / "out"), host=f"{host}/gone"))


@pytest.mark.parametrize("kind, option", [("words", "--hours"), ("repositories", "--sets"), ("debian", "--packages")])
def test_each_kind_of_table_has_options_of_its_own(kind, option, capsys):
    with pytest.raises(SystemExit) as stop:
        free_sounds.main([kind, "--help"])
    assert stop.value.code == 0 and option in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["birds"]])
def test_another_kind_of_table_is_an_error(words, capsys):
    with pytest.raises(SystemExit) as stop:
        free_sounds.main(words)
    assert stop.value.code == 2 and "kind" in capsys.readouterr().err


def test_an_unknown_set_is_an_error():
    with pytest.raises(ValueError, match="must be among those of docs/free-sounds.md, found: nobodys"):
        free_sounds.main(["repositories", "--sets", "nobodys", "blanket"])


def test_a_long_file_is_cut_into_pieces_spread_over_it():
    assert [len(decode(piece)[0]) for piece in cut_wav(wav(0.9)).pieces] == [14_400]
    result = cut_wav(wav(10.0), max_pieces=3)
    assert [len(decode(piece)[0]) for piece in result.pieces] == [16_000] * 3 and result.seconds == 3.0


@pytest.mark.parametrize("rate, kept", [(8_000, 8_000), (11_025, 12_000), (32_000, 48_000), (96_000, 48_000)])
def test_a_clip_is_mono_at_the_lowest_rate_of_opus_that_keeps_what_is_heard(rate, kept):
    (piece,) = cut_wav(wav(0.8, rate, channels=2)).pieces
    samples, decoded_rate = decode(piece)
    assert decoded_rate == kept and samples.shape == (int(0.8 * kept),)
    assert np.abs(samples[kept // 4 : kept // 2]).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("settings", [{"piece_seconds": 0.1}, {"max_pieces": 0}, {"num_proc": 0}])
def test_settings_out_of_range_are_errors(settings):
    with pytest.raises(ValueError, match=f"`{[*settings][0]}` must be at least"):
        SoundFilesArguments(**settings)


def test_the_tables_load_for_training_and_by_datasets(package, host, tmp_path):
    collect_debian_sounds(DebianArguments(str(tmp_path / "out"), packages=[package({"usr/bell.wav": wav(0.5)})]))
    collect_repository_sounds(RepositoryArguments(str(tmp_path / "out"), host=host))
    clips = load_whole_source(UnlabelledAudioArguments(train_file=[str(tmp_path / "out" / "*.parquet")]))
    assert len(clips) == 3
    table = str(tmp_path / "out" / "toys.parquet")
    loaded = load_dataset("parquet", data_files=table, split="train", cache_dir=str(tmp_path / "cache"))
    assert str(loaded.features["audio"]).startswith("Audio(")


def test_each_listed_source_states_its_sounds_licence_and_credit():
    texts = json.dumps([vars(package) for package in free_packages().values()])
    for package in free_packages().values():
        assert package.sounds and package.licence and package.credit
    for name, entry in free_sets().items():
        assert entry.sounds and entry.files, name
        for (repository, commit), groups in entry.files.items():
            assert len(commit) == 40 and repository.count("/") == 1
            assert all(group.licence and group.credit and group.paths for group in groups), name
            texts += json.dumps([group.licence for group in groups])
    assert len(free_packages()) > 100 and len(free_sets()) > 40
    assert not re.search(r"\bNC\b|non-?commercial", texts, re.IGNORECASE)


def test_the_guide_lists_the_same_sources_with_the_same_licences():
    guide = (Path(__file__).parents[2] / "docs" / "free-sounds.md").read_text(encoding="utf-8")
    table = {
        row[0]: row for row in re.findall(r"^\| `([\w.+-]+)` \| (.+?) \| (.+) \| [\d,.\s]+ \|$", guide, re.MULTILINE)
    }
    assert set(table) == {*free_packages(), *free_sets()}
    for name, package in free_packages().items():
        assert table[name][1:] == (package.sounds, package.licence)
    for name, entry in free_sets().items():
        licences = sorted({group.licence for groups in entry.files.values() for group in groups})
        links = [
            f"[{repository}](https://github.com/{repository}/tree/{commit})" for repository, commit in entry.files
        ]
        assert table[name][1:] == (entry.sounds, f"{', '.join(links)} | {', '.join(licences)}")
