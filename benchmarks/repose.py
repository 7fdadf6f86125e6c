"""What `repose` takes with the model that ships, from a photo of 800 x 1,200 pixels to a pose, step by step; and how many frames of a film a second.

    python benchmarks/repose.py --device cpu
    python benchmarks/repose.py --quick --device cpu --json rows.json

The photo is one of People's on a plain ground, which BlazePose finds as it finds anybody. `find` is BlazePose, the matte and the fit (`see`); `open` all that is done once for a
photo at a size; `behind` the background without the person; `aim` the body in the pose; `paint` the person in it; `another pose` is everything for a further pose of a known photo,
`repose` everything for a photo never seen. `whole photo` is the same with `paste`. Memory is that of `repose`. A film is the motion `walk`, sources known.
"""
import warnings
from common import Bench
from PIL import Image
from spice.core import to_pil
from spice.reposer import Reposer
from spice.infer import repose
from spice.people import People
from spice.video import animate

def large_photo():
    "A person of People on a photo of 800 x 1,200"
    person = to_pil(People(512, 'valid', poses='everyday', yaw=30., device='cpu').photos([19]).image)[0]
    photo = Image.new('RGB', (800, 1200), person.getpixel((4, 4)))
    photo.paste(person.resize((1000, 1000), Image.Resampling.BICUBIC), (-100, 100))
    return photo

def main():
    bench = Bench('From a photo to a pose')
    warnings.simplefilter('ignore')
    photo, tool = large_photo(), Reposer(device=str(bench.device))
    def anew(f):
        def call():
            tool.forget()
            return f()
        return call
    bench.time('find', anew(lambda: tool.see(photo)), '800x1200')
    seen = tool.see(photo)
    for size in bench.pick([256, 512, 1024], quick=[512]):
        aim, portrait = tool.aim('wave', seen), tool.portrait(seen)
        portrait.picture(aim.rotmats, aim.camera, size)
        def emptied(name):
            getattr(portrait, name).clear()
            portrait.empty = None
        bench.time('open', lambda: (emptied('opened'), portrait.at(size)), size, least=1)
        bench.time('behind', lambda: (emptied('grounds'), portrait.ground(size)), size, least=1)
        bench.time('aim', lambda: tool.aim('wave', seen), size)
        bench.time('paint', lambda: portrait.paint(aim.rotmats, aim.camera, (0., 0., 256.), size), size)
        bench.time('another pose', lambda: repose(photo, 'wave', tool, size=size), size)
        bench.time('repose', anew(lambda: repose(photo, 'wave', tool, size=size)), size, least=1)
    bench.time('another pose, whole photo', lambda: repose(photo, 'wave', tool, paste=True), '800x1200')
    bench.time('repose, whole photo', anew(lambda: repose(photo, 'wave', tool, paste=True)), '800x1200', least=1)
    bench.memory('repose', anew(lambda: repose(photo, 'wave', tool, size=512)), 512)
    for size in bench.pick([256, 512], quick=[256]):
        film = animate(photo, 'walk', tool, fps=12, size=size)
        bench.rate('film', lambda: list(film), size, len(film), least=1)
    bench.save()

if __name__ == '__main__': main()
