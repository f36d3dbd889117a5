"""A video comes out with the frames, times and audio that it went in with, and a stop leaves a video."""

import importlib
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import RunError, UserError
from core.vision.video import Video, VideoWriter, video_targets
from tests.refusals import assert_refused, everything
from tests.videos import make_video

pytest.importorskip("av", reason="PyAV is not installed")


def contents(path: Path) -> tuple[list[float], list[int], int]:
    """A video's times since its first frame, the mean gray of each frame, and how many packets of audio it has."""
    av: Any = importlib.import_module("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            (float(frame.pts * stream.time_base), int(frame.to_ndarray().mean())) for frame in container.decode(stream)
        ]
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(*container.streams.audio[:1]) if packet.stream.type == "audio"]
    return [time - frames[0][0] for time, _ in frames], [gray for _, gray in frames], len(packets)


def copy(source: Path, target: Path) -> int:
    """Writes a video anew; returns its number of frames."""
    with Video(source) as video, VideoWriter(target, video) as writer:
        for frame in video.frames(writer=writer):
            writer.add(frame, frame.pixels)
    return writer.num


def copy_five(source: Path, target: Path, error: BaseException) -> None:
    """Writes five frames, of odd sides; then something goes wrong."""
    with Video(source) as video, VideoWriter(target, video) as writer:
        for frame in video.frames(writer=writer):
            if frame.number == 5:
                raise error
            writer.add(frame, frame.pixels[:31, :33])


@pytest.mark.parametrize("kind", ["30000/1001", "of varying rate", "without audio"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_no_frame_is_lost_and_times_and_audio_stay(kind: str, ending: str, tmp_path: Path) -> None:
    rate = Fraction(30_000, 1001) if kind == "30000/1001" else Fraction(25)
    has_audio = kind != "without audio"
    source = make_video(tmp_path / "in.mp4", rate=rate, gaps=kind == "of varying rate", audio=has_audio)
    target = tmp_path / f"out.{ending}"
    assert copy(source, target) == 20
    (times, grays, audio), (new_times, new_grays, new_audio) = contents(source), contents(target)
    assert np.abs(np.subtract(new_times, times)).max() <= 5e-4 + 1e-9  # Matroska counts milliseconds
    assert len(times) == 20
    assert np.abs(np.subtract(grays, new_grays)).max() <= 3
    assert (new_audio, audio > 0) == (audio, has_audio)
    with Video(target) as video:
        assert [frame.number for frame in video.frames(every=7)] == [0, 7, 14]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", target.name]


def test_an_odd_size_is_made_even_and_a_stop_leaves_the_frames_before(tmp_path: Path) -> None:
    source, target = make_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        copy_five(source, target, KeyboardInterrupt())
    with Video(target) as video:
        frames = list(video.frames())
    assert [frame.pixels.shape for frame in frames] == [(32, 34, 3)] * 5
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.mp4"]


def test_a_video_that_breaks_off_is_named_and_a_refused_one_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_video(tmp_path / "in.mkv", num=80, noise=True)
    assert copy(source, tmp_path / "whole.mp4") == 80
    assert capsys.readouterr().err == ""
    content = source.read_bytes()
    half = len(content) // 2
    source.write_bytes(content[:half] + bytes(content[half:-2000].__len__()) + content[-2000:])
    assert 0 < copy(source, tmp_path / "half.mp4") < 60
    assert f"{source} may be damaged" in capsys.readouterr().err
    damaged = make_video(tmp_path / "in.mp4", num=80, noise=True)
    content = damaged.read_bytes()
    third = len(content) // 3
    damaged.write_bytes(content[:third] + bytes(third // 2) + content[third + third // 2 :])
    with pytest.raises(RunError, match=r"in\.mp4"):
        copy(damaged, tmp_path / "kept.mp4")
    assert "kept.mp4 holds the first" in capsys.readouterr().err
    assert 0 < len(contents(tmp_path / "kept.mp4")[0]) < 60
    with pytest.raises(UserError):
        copy_five(source, tmp_path / "out.mp4", UserError("a refusal", "x", "y"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.mp4", "in.mkv", "in.mp4", "kept.mp4", "whole.mp4"]


def test_what_is_no_video_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n")
    make_video(tmp_path / "sound.mp4", num=0)
    for name in ("text.mp4", "list.mp4", "sound.mp4"):
        assert_refused(partial(_read, tmp_path / name), name, tmp_path)
    with pytest.raises(UserError, match="/dev/video63"):
        Video(Path("63"))
    same, before = [Path("a/x.mp4"), Path("b/x.mp4")], everything(tmp_path)
    for videos, named in ((same, "x.mp4"), ([tmp_path / "text.mp4"], "text.mp4")):
        with pytest.raises(UserError, match=named):
            video_targets(videos, tmp_path)
    assert video_targets([Path("0"), Path("c.avi")], Path("out")) == {
        Path("0"): Path("out/camera0.mp4"),
        Path("c.avi"): Path("out/c.avi.mp4"),
    }
    assert everything(tmp_path) == before
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert_refused(partial(Video, tmp_path / "text.mp4"), "av, to read videos", tmp_path)


def _read(path: Path) -> None:
    """Reads a whole video."""
    with Video(path) as video:
        list(video.frames())


def test_a_camera_is_read_until_a_stop_and_its_video_begins_at_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    av: Any = importlib.import_module("av")
    opened, source = [], "testsrc=rate=10:size=64x48,setpts=PTS+1000/TB"  # its clock began long before

    def open_instead(name: str, *mode: str, **settings: Any) -> Any:
        if settings.get("format") == "v4l2":
            opened.append(name)
            return real(source, format="lavfi")
        return real(name, *mode, **settings)

    real = av.open
    monkeypatch.setattr(av, "open", open_instead)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        copy_five(Path("2"), Path("out.mp4"), KeyboardInterrupt())
    assert opened == ["/dev/video2"]
    with Video(Path("out.mp4")) as video:
        frames = list(video.frames())
        assert [frame.pts * video.time_base for frame in frames] == [Fraction(k, 10) for k in range(5)]
        assert [frame.seconds for frame in frames] == pytest.approx([k / 10 for k in range(5)])
