"""Takes the chart's picture apart, keeps its pixels in a database, and exits with what its arguments say."""

import os
import sqlite3
import struct
import sys
import zlib

work = os.environ["WORK"]
with open(f"{work}/chart.png", "rb") as picture:
    data = picture.read()
assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
at, image = 8, b""
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at : at + 8])
    body = data[at + 8 : at + 8 + length]
    assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0], kind
    if kind == b"IHDR":
        width, height, depth, colour = struct.unpack(">IIBB", body[:10])
    if kind == b"IDAT":
        image += body
    at += 12 + length
channels = {2: 3, 6: 4}[colour]
assert depth == 8, depth
raw, step = zlib.decompress(image), 1 + width * channels
# The first line refers to no line above it: its filter is none or the pixel to the left.
line, left = raw[1:step], raw[0] in (1, 3, 4)
pixels = []
for x in range(width):
    pixel = list(line[x * channels : (x + 1) * channels])
    if left and pixels:
        before = [value // 2 for value in pixels[-1]] if raw[0] == 3 else pixels[-1]
        pixel = [(a + b) % 256 for a, b in zip(pixel, before)]
    pixels.append(pixel)

database = sqlite3.connect(f"{work}/pixels.db")
database.execute("create table pixels (x integer primary key, colour text)")
with database:
    colours = ("#%02x%02x%02x" % tuple(pixel[:3]) for pixel in pixels)
    database.executemany("insert into pixels values (?, ?)", enumerate(colours))
try:
    with database:
        database.execute("delete from pixels")
        raise KeyError("rolled back")
except KeyError:
    pass
database.execute("vacuum")
database.close()

database = sqlite3.connect(f"{work}/pixels.db")
print(width, height, database.execute("pragma integrity_check").fetchone()[0])
print(database.execute("select colour, count(*), min(x) from pixels group by colour order by min(x)").fetchall())
print(sorted(os.listdir(work)))
sys.stdout.flush()
print("to stderr", file=sys.stderr)
sys.exit(int(sys.argv[1]))
