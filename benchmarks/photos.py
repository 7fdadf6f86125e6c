"""What it costs to find the people in a photo and to cut them out.

    python benchmarks/photos.py --device cpu                    # every size
    python benchmarks/photos.py --quick --device cpu --json rows.json

The photos are People's, enlarged. `look` is BlazePose: detector, square, landmark network; `matte` is the cut; `both` is what `spice_prepare` does with each photo before it writes it,
with as many photos at a time as there are cores.
"""
from concurrent.futures import ThreadPoolExecutor
from common import Bench
from PIL import Image
from spice.blazepose import BlazePose, Found
from spice.core import to_pil
from spice.matte import matte
from spice.people import People
from spice.sources import shot_of

bench = Bench('People in photos: joints and mattes')
photos = to_pil(People(512, 'valid', poses='everyday', yaw=60., device='cpu').photos(list(range(8))).image)
alone, threads = BlazePose(threads=1), BlazePose()

def prepared(photo):
    "What becomes of a photo"
    return shot_of(photo, Found(threads.look(photo), (photo.height, photo.width))[0], (256, 256))

for width, height in bench.pick([(512, 512), (800, 1200), (2000, 3000)], quick=[(800, 1200)]):
    some = [Image.new('RGB', (width, height), 'grey') for _ in photos]
    for canvas, photo in zip(some, photos): canvas.paste(photo.resize((width, width), Image.Resampling.BICUBIC), (0, (height - width)//2))
    size, person = f'{width}x{height}', alone.look(some[0])[0]
    bench.time('look', lambda: alone.look(some[0]), size)
    bench.time('matte', lambda: matte(some[0], person), size)
    with ThreadPoolExecutor(threads.threads) as pool: bench.time('both, onto a canvas', lambda: list(pool.map(prepared, some)), size, len(some), per_image=True)
bench.save()
