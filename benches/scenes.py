#!/usr/bin/python3
"""Scenes end to end: `segmenter strategy=scene`, GStreamer's `scenechange`, ffmpeg's scdet and PySceneDetect on the same clips.

Usage: scenes.py OUTPUT.csv CLIP.mp4... (H.264; beside each clip CLIP.cuts.csv with the true cuts: frame,end_frame,time_s,kind)

Each is a process of its own that decodes the whole clip; what counts is its processor time, the least of three rounds in turn. A cut
is right within 2 frames of a true one that no other was taken for; what lies in a stretch of the kind `ignore` does not count.
PySceneDetect runs with the interpreter that runs this. Whatever is not installed is left out.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOLERANCE = 2
ROUNDS = 3

DETECT = """
import sys
from scenedetect import AdaptiveDetector, ContentDetector, detect
detector = {"adaptive": AdaptiveDetector, "content": ContentDetector}[sys.argv[2]]()
for start, _ in detect(sys.argv[1], detector)[1:]:
    print(start.get_frames())
"""


def run(command):
    """Output and processor time in s of a command, its children included."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{command[0]} failed with {process.returncode}")
        out.seek(0)
        return out.read().decode(errors="replace"), usage.ru_utime + usage.ru_stime


def pipeline(clip, rest):
    return ["gst-launch-1.0", "-m", "filesrc", f"location={clip}", "!", "qtdemux", "!", "h264parse", "!", "avdec_h264",
            "max-threads=1", "!", *rest.split(), "!", "fakesink", "sync=false"]


def segmenter(clip):
    text, cpu = run(pipeline(clip, "segmenter strategy=scene"))
    at, cuts = 0, []
    for frames in re.findall(r"segmenter-window-closed.*? frames=\(uint\)(\d+)", text):
        at += int(frames)
        cuts.append(at)
    return cuts[:-1], cpu


def scenechange(clip):
    # It tells nobody but an encoder.
    _, cpu = run(pipeline(clip, "scenechange"))
    return None, cpu


def scdet(clip):
    text, cpu = run(["ffmpeg", "-threads", "1", "-i", clip, "-vf", "scdet=threshold=10,metadata=print:file=-", "-an", "-f", "null", "-"])
    frame, cuts = 0, []
    for line in text.splitlines():
        if found := re.match(r"frame:(\d+)", line):
            frame = int(found[1])
        elif line.startswith("lavfi.scd.time="):
            cuts.append(frame)
    return cuts, cpu


def scenedetect(kind):
    def detect(clip):
        text, cpu = run([sys.executable, "-c", DETECT, clip, kind])
        return [int(line) for line in text.split()], cpu
    return detect


def decoding(clip):
    _, cpu = run(pipeline(clip, "identity"))
    return None, cpu


def truth(clip):
    with open(os.path.splitext(clip)[0] + ".cuts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    cuts = [int(row["frame"]) for row in rows if row["kind"] == "cut"]
    ignored = [(int(row["frame"]), int(row["end_frame"])) for row in rows if row["kind"] == "ignore"]
    return cuts, ignored


def judge(found, clip):
    """How many were found that are right, how many are there, how many were found."""
    cuts, ignored = truth(clip)
    left, right, wrong = list(cuts), 0, 0
    for frame in found:
        match = min((cut for cut in left if abs(cut - frame) <= TOLERANCE), key=lambda cut: abs(cut - frame), default=None)
        if match is not None:
            left.remove(match)
            right += 1
        elif not any(start - TOLERANCE <= frame <= end + TOLERANCE for start, end in ignored):
            wrong += 1
    return right, len(cuts), right + wrong


def contenders():
    yield "decoding alone", decoding
    yield "segmenter strategy=scene", segmenter
    if subprocess.run(["gst-inspect-1.0", "--exists", "scenechange"], check=False).returncode == 0:
        yield "scenechange", scenechange
    if shutil.which("ffmpeg"):
        yield "ffmpeg scdet=10", scdet
    if subprocess.run([sys.executable, "-c", "import scenedetect, cv2"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        yield "PySceneDetect adaptive", scenedetect("adaptive")
        yield "PySceneDetect content", scenedetect("content")


def main():
    output, clips = sys.argv[1], sys.argv[2:]
    names = dict(contenders())
    cpu = {name: [0.0] * ROUNDS for name in names}
    sums = {}
    for turn in range(ROUNDS):
        print(f">> scenes: round {turn + 1} of {ROUNDS}", flush=True)
        for name, detect in names.items():
            total = [0, 0, 0]
            for clip in clips:
                found, spent = detect(clip)
                cpu[name][turn] += spent
                if found is not None:
                    total = [a + b for a, b in zip(total, judge(found, clip))]
            sums[name] = total
    least = {name: min(times) for name, times in cpu.items()}
    with open(output, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["detector", "CPU s", "of segmenter", "precision", "recall", "F1"])
        for name in names:
            right, there, found = sums[name]
            row = [name, f"{least[name]:.2f}", f"{least[name] / least['segmenter strategy=scene']:.2f}"]
            if found:
                row += [f"{right / found:.3f}", f"{right / there:.3f}", f"{2 * right / (found + there):.3f}"]
            writer.writerow(row + [""] * (6 - len(row)))
    with open(output) as file:
        print(file.read())


main()
